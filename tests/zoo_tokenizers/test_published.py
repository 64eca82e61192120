"""Published vocabularies, against their own libraries, with and without a network."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken.load
import tiktoken.registry

from harness.common.errors import UsageError
from harness.data import assets as assets_module
from harness.data.assets import Assets
from harness.data.dataset import Dataset
from tests.waiting import GUARD
from tests.zoo_tokenizers.building import ON_THE_CORPUS, VOCABULARIES, tokenizer_of
from zoo_tokenizers import TokenizerError
from zoo_tokenizers.huggingface import HuggingFace


@pytest.mark.parametrize("name", ["p50k", "gpt2", "cl100k", "tiktoken", "bert", "hf"])
def test_with_the_mirror_nobody_is_asked(
    name: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    tokenizer = tokenizer_of(*ON_THE_CORPUS[name])
    tokenizer.fetch(Assets((tmp_path / "nothing here", assets), tmp_path / "cache"))
    assert tokenizer.vocab_size == VOCABULARIES[name]
    assert not (tmp_path / "cache").exists()
    # tiktoken is left as it was.
    assert tiktoken.load.read_file_cached.__module__ == "tiktoken.load"


@pytest.mark.parametrize(
    ("name", "encoding"), [("p50k", "p50k_base"), ("gpt2", "r50k_base"), ("cl100k", "cl100k_base")]
)
def test_ids_are_those_of_tiktoken(
    name: str,
    encoding: str,
    datasets: dict[str, Dataset],
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(assets / "tiktoken", tmp_path / "tiktoken")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    own = tiktoken.get_encoding(encoding)
    text = (assets / "tiny_shakespeare.txt").read_text()
    tokenizer = datasets[name].tokenizer
    assert own.n_vocab == tokenizer.vocab_size
    assert tokenizer.encode(text).tolist() == own.encode_ordinary(text)
    for id_ in own.encode_ordinary(text)[:1000]:
        assert tokenizer.pieces[id_] == own.decode_single_token_bytes(id_)


def test_text_never_becomes_a_special_token(datasets: dict[str, Dataset]) -> None:
    for name, text in (("p50k", "<|endoftext|>"), ("cl100k", "<|endoftext|>"), ("bert", "[MASK]")):
        tokenizer = datasets[name].tokenizer
        (special,) = [id_ for id_, piece in enumerate(tokenizer.pieces) if piece == text.encode()]
        ids = tokenizer.encode(f"a {text} b")
        assert special not in ids
        assert len(ids) > 3
        assert text in tokenizer.decode([special])


def test_ids_that_an_encoding_leaves_out_have_names(datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets["cl100k"].tokenizer
    assert tokenizer.pieces[100_256] == b"<|100256|>"
    assert tokenizer.pieces[100_257] == b"<|endoftext|>"
    assert tokenizer.decode([100_256]) == "<|100256|>"


PROGRAM = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = json.load(sys.stdin)
print(json.dumps([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]))
"""


def by_auto_tokenizer(folder: Path, texts: list[str]) -> Any:
    """The ids as transformers has them, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], input=json.dumps(texts),
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ids_are_those_of_auto_tokenizer(
    datasets: dict[str, Dataset], assets: Path, bert_folder: Path
) -> None:
    text = (assets / "tiny_shakespeare.txt").read_text()
    generator = random.Random(5)
    strings = [
        "".join(generator.choice("aB é日\n\t'!1ſǅÀ\u0301😀") for _ in range(30)) for _ in range(50)
    ]
    expected = by_auto_tokenizer(bert_folder, [text, *strings])
    tokenizer = datasets["bert"].tokenizer
    assert tokenizer.encode(text).tolist() == expected[0]
    assert [tokenizer.encode(string).tolist() for string in strings] == expected[1:]


def test_a_folder(bert_folder: Path, tmp_path: Path, no_network: None) -> None:
    tokenizer = HuggingFace(str(bert_folder))
    tokenizer.fetch(Assets((), tmp_path))
    assert tokenizer.vocab_size == 30_522


@pytest.mark.long
def test_a_folder_without_tokenizer_json_is_converted(
    bert_folder: Path, datasets: dict[str, Dataset], tmp_path: Path, no_network: None
) -> None:
    for name in ("vocab.txt", "config.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / name, tmp_path)
    tokenizer = HuggingFace(str(tmp_path))
    tokenizer.fetch(Assets((), tmp_path))
    text = "First Citizen:\nBefore we proceed any further, hear me speak."
    assert np.array_equal(tokenizer.encode(text), datasets["bert"].tokenizer.encode(text))


@pytest.mark.long
def test_a_folder_that_holds_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match="AutoTokenizer can't load"):
        HuggingFace(str(tmp_path)).fetch(Assets((), tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"an error": "page"}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json can't be used"):
        HuggingFace(str(tmp_path)).fetch(Assets((), tmp_path))


def test_a_revision_of_the_hubs_own_cache(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    repository = tmp_path / "hub/models--me--mine"
    shutil.copytree(bert_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for revision in ("main", "abc"):
        tokenizer = HuggingFace("me/mine", revision)
        tokenizer.fetch(Assets((), tmp_path / "cache"))
        assert tokenizer.vocab_size == 30_522


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("p50k", ["ec7223a39ce59f226a68acc30dc1af2788490e15", "p50k_base.tiktoken", "94b5ca7d"]),
        ("cl100k", ["9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k_base.tiktoken"]),
        ("bert", ["tokenizer.json", "https://huggingface.co/bert-base-uncased/", "cc9c03ce"]),
    ],
)
@pytest.mark.parametrize("network", ["refuses", "hangs"])
def test_without_the_mirror_the_error_says_what_to_do(
    name: str, named: list[str], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    answer = threading.Event()

    def hang(*arguments: object, **options: object) -> None:
        answer.wait(GUARD)

    monkeypatch.setattr("urllib.request.urlopen", refuse if network == "refuses" else hang)
    monkeypatch.setattr(assets_module, "CONNECT_SECONDS", 0.3)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing here"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UsageError) as error:
        tokenizer_of(*ON_THE_CORPUS[name]).fetch(Assets((tmp_path / "mirror",), tmp_path / "cache"))
    answer.set()  # nobody waited for it
    message = str(error.value)
    assert "\n" not in message
    folder = tmp_path / "mirror" / ("hf/hub/models--" if name == "bert" else "tiktoken/")
    for part in [*named, f"save it as {folder}"]:
        assert part in message
    assert not (tmp_path / "mirror").exists()


@pytest.mark.parametrize("name", ["p50k", "bert"])
def test_a_vocabulary_of_the_wrong_digest_is_refused(
    name: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(assets / "tiktoken", mirror / "tiktoken")
    shutil.copytree(assets / "hf", mirror / "hf")
    names = ("ec7223a39ce59f226a68acc30dc1af2788490e15", "tokenizer.json")
    paths = [path for path in mirror.rglob("*") if path.name in names]
    for path in paths:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises((UsageError, TokenizerError), match="is not the expected file: its SHA-256"):
        tokenizer_of(*ON_THE_CORPUS[name]).fetch(Assets((mirror,), tmp_path / "cache"))
    assert all(path.exists() for path in paths)  # a mirror is not ours to tidy
