"""Vocabularies that other tools have fetched are found where those tools have them; and what only
has the name of one is not taken for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.data.assets import Assets
from tests.zoo_tokenizers.building import ON_THE_CORPUS, tokenizer_of
from zoo_tokenizers import TokenizerError, huggingface
from zoo_tokenizers.huggingface import HuggingFace

VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR",
)  # fmt: skip
SOURCES = """
import json, os, sys
for given in json.load(sys.stdin):
    for name in sys.argv[1:]:
        os.environ.pop(name, None)
    os.environ |= given
    for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
        del sys.modules[name]
    from huggingface_hub import constants
    print(json.dumps([constants.HF_HUB_CACHE, constants.ENDPOINT, constants.HF_HUB_OFFLINE]))
"""


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_hub_is_where_its_own_library_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "/home of it", "XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "~/hf"},
        {"HUGGINGFACE_HUB_CACHE": "/legacy", "HF_HOME": "/home of it"},
        {"HF_HUB_CACHE": "$HOME/hub", "HUGGINGFACE_HUB_CACHE": "/legacy"},
        {"HF_ENDPOINT": "https://mirror.example/"},
        {"HF_HUB_OFFLINE": "1"},
        {"HF_HUB_OFFLINE": "true"},
        {"HF_HUB_OFFLINE": "0"},
        {"TRANSFORMERS_OFFLINE": "YES"},
    ]
    done = subprocess.run(
        [sys.executable, "-c", SOURCES, *VARIABLES], input=json.dumps(settings),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for given, line in zip(settings, done.stdout.splitlines(), strict=True):
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            ours = [str(huggingface._hub_cache()), huggingface._hub(), bool(huggingface._offline())]
        assert ours == json.loads(line), given


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG"])
def test_a_tokenizer_in_the_hubs_cache_is_used(
    variable: str, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    place, value = {
        "HF_HOME": ("hf/hub", "hf"),
        "XDG": ("xdg/huggingface/hub", "xdg"),
    }.get(variable, ("hub", "hub"))
    shutil.copytree(assets / "hf" / "hub", tmp_path / place)
    monkeypatch.setenv(variable.replace("XDG", "XDG_CACHE_HOME"), str(tmp_path / value))
    tokenizer = tokenizer_of(*ON_THE_CORPUS["bert"])
    tokenizer.fetch(Assets((), tmp_path / "cache"))
    assert tokenizer.vocab_size == 30_522


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR"])
def test_ranks_in_tiktokens_cache_are_used(
    variable: str, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    place = "data-gym-cache" if variable == "TMPDIR" else "."
    shutil.copytree(assets / "tiktoken", tmp_path / "given" / place)
    monkeypatch.setenv(variable, str(tmp_path / "given"))
    monkeypatch.setattr("tempfile.tempdir", None)
    tokenizer = tokenizer_of(*ON_THE_CORPUS["gpt2"])
    tokenizer.fetch(Assets((), tmp_path / "cache"))
    assert tokenizer.vocab_size == 50_257


def no_answer(*arguments: object, **options: object) -> None:
    raise OSError("nobody there")


def test_ranks_of_another_digest_are_nobodys(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they stay: the folder may be a mirror."""
    shutil.copytree(assets / "tiktoken", tmp_path / "given")
    for path in (files := list((tmp_path / "given").iterdir())):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "given"))
    monkeypatch.setattr("urllib.request.urlopen", no_answer)
    with pytest.raises(UsageError, match="could not be downloaded"):
        tokenizer_of(*ON_THE_CORPUS["gpt2"]).fetch(Assets((), tmp_path / "cache"))
    assert all(path.exists() for path in files)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_means_that_the_hub_is_not_asked(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UsageError) as error:
        HuggingFace("me/mine").fetch(Assets((tmp_path,), tmp_path / "cache"))
    assert f"({variable}=1 is set); get it from https://huggingface.co/me/mine/" in str(error.value)


def test_a_mirror_of_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(url: str, **options: object) -> None:
        asked.append(url)
        raise OSError("nobody there")

    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setattr("urllib.request.urlopen", ask)
    with pytest.raises(UsageError):
        HuggingFace("me/mine").fetch(Assets((), tmp_path / "cache"))
    assert asked == ["https://mirror.example/me/mine/resolve/main/tokenizer.json"]


def words(folder: Path, bert_folder: Path) -> Path:
    """A tokenizer of few words that calls itself BERT's."""
    folder.mkdir(parents=True)
    shutil.copy(bert_folder / "config.json", folder)
    shutil.copy(bert_folder / "tokenizer_config.json", folder)
    lines = (bert_folder / "vocab.txt").read_text().splitlines()[:57]
    (folder / "vocab.txt").write_text("\n".join([*lines[:1], "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    return folder


def by_name(tmp_path: Path) -> Path:
    return tmp_path / "here" / "bert-base-uncased"


def in_a_hub(tmp_path: Path) -> Path:
    return tmp_path / "mirror/hf/hub/models--bert-base-uncased/snapshots/main"


@pytest.mark.parametrize("place", [by_name, in_a_hub])
def test_a_folder_called_like_bert_is_not_bert(
    place: Callable[[Path], Path], bert_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whether it has no tokenizer.json, or another one; and the working folder's is passed over."""
    folder = words(place(tmp_path), bert_folder)
    monkeypatch.chdir((tmp_path / "here") if place is by_name else tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", no_answer)
    assets = Assets((tmp_path / "mirror",), tmp_path / "cache")
    with pytest.raises(UsageError, match="could not be downloaded"):
        tokenizer_of(*ON_THE_CORPUS["bert"]).fetch(assets)
    (folder / "tokenizer.json").write_bytes((bert_folder / "tokenizer.json").read_bytes() + b" ")
    expected = "could not be" if place is by_name else "is not the expected file: its SHA-256"
    with pytest.raises((UsageError, TokenizerError), match=expected):
        tokenizer_of(*ON_THE_CORPUS["bert"]).fetch(assets)


def test_a_folder_that_is_meant_is_held_to_its_digest(bert_folder: Path, tmp_path: Path) -> None:
    folder = words(tmp_path / "mine", bert_folder)
    digest = hashlib.sha256((bert_folder / "tokenizer.json").read_bytes()).hexdigest()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json whose SHA-256"):
        HuggingFace(str(folder), sha256=digest).fetch(Assets((), tmp_path / "cache"))
    shutil.copy(bert_folder / "tokenizer.json", folder)
    (exact := HuggingFace(str(folder), sha256=digest)).fetch(Assets((), tmp_path / "cache"))
    assert exact.vocab_size == 30_522
