"""A run's folder is enough: wherever it lies, whatever became of what it was made from."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.identity import require_same_settings, without_resumable
from harness.config.saved import load_settings
from harness.config.settings import read_settings
from harness.data.assets import Assets
from harness.live.watch import LiveRuns
from harness.report.records.runs import find_runs
from harness.runs.find import run_folders
from harness.runs.resume import resumed_settings
from harness.training.run import run
from tests.conftest import TOOLS, Ended
from tests.small_runs import GPT_SMALL, TEXT, cut_off, settings, trace, train
from zoo_tokenizers.huggingface import BytePairs, HuggingFace

SMALL = ("model=bigram", "tokenizer=hf")
OTHER = 54321  # a user whom the system does not know


def resume(*overrides: str) -> int:
    typed = ["resume=true", *overrides]
    return run(resumed_settings(read_settings(compose(typed)), typed))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A published tokenizer in a folder."""
    (folder := tmp_path / "source").mkdir()
    tokenizer = BytePairs(vocab_size=300)
    tokenizer.fit([TEXT])
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder


def test_a_run_goes_on_when_all_it_was_made_from_is_gone(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer is that of its folder; of the text it is told where it lies now."""
    chosen = (*SMALL, f"tokenizer.name={source}")
    assert train(tmp_path / "whole", *chosen) == 0
    assert cut_off(tmp_path / "cut", 5, monkeypatch, *chosen) == 143
    shutil.rmtree(source)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "corpus.txt").rename(tmp_path / "the text.txt")
    moved = tmp_path / "elsewhere" / "a b"
    moved.parent.mkdir()
    (tmp_path / "cut" / "run").rename(moved)
    here = (f'run_dir="{moved}"', f"cache={tmp_path / 'other cache'}")
    with pytest.raises(UsageError, match=r"corpus\.txt can't be read"):
        resume(*here)
    assert resume(*here, f'data.path="{tmp_path}/the text.txt"') == 0
    (tmp_path / "moved").mkdir()
    moved.rename(tmp_path / "moved" / "run")
    assert trace(tmp_path / "moved") == trace(tmp_path / "whole")


def test_a_tokenizers_folder_is_stored_as_it_is_from_anywhere(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a text is. A run of an earlier version, which has it as it was typed, goes on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for number, typed in enumerate(("source", "./source", "~/source")):
        folder, chosen = tmp_path / str(number), (*SMALL, f"tokenizer.name='{typed}'")
        assert cut_off(folder, 2, monkeypatch, *chosen) == 143
        config = folder / "run" / "config.yaml"
        saved = load_settings(config)
        assert saved.tokenizer["name"] == str(source)
        before = without_resumable(saved)
        before["tokenizer"]["name"] = typed
        require_same_settings(before, saved, config)
        assert train(folder, *chosen, "resume=true") == 0
    monkeypatch.chdir("/")
    assert resume(f"run_dir={tmp_path / '0/run'}", "train.steps=9") == 0


def test_a_published_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a name that happens to be a file's, or nothing here."""
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    bert = read_settings(compose(["tokenizer=bert"])).tokenizer
    assert bert["name"] == "bert-base-uncased"
    for name in ("file", "./nothing", "me/mine"):
        chosen = read_settings(compose(["tokenizer=hf", f"tokenizer.name={name}"]))
        assert chosen.tokenizer["name"] == name


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.pth=x", "data.pth: None → x"),
        ("model.n_embd=7", "model.n_embd: None → 7"),
        ("dat.path=x", "there is no setting dat.path. Did you mean data"),
    ],
)
def test_what_is_typed_is_compared_with_the_run(
    override: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(tmp_path / "a", 2, monkeypatch, "model=bigram")
    with pytest.raises(UsageError) as error:
        resume(f"run_dir={tmp_path / 'a/run'}", override)
    assert expected in str(error.value)


def test_a_vocabulary_is_not_learnt_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release of its library might learn another one."""
    chosen = ("model=bigram", "tokenizer=bpe", "tokenizer.vocab_size=300")
    assert cut_off(tmp_path / "a", 2, monkeypatch, *chosen) == 143
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.delattr(BytePairs, "fit")
    assert resume(f"run_dir={tmp_path / 'a/run'}", f"cache={tmp_path / 'cache'}") == 0


def test_another_tokenizer_in_the_folder_is_replaced(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = (*SMALL, f"tokenizer.name={source}")
    assert cut_off(tmp_path / "a", 2, monkeypatch, *chosen) == 143
    (theirs := tmp_path / "theirs").mkdir()
    learnt = BytePairs(vocab_size=280)
    learnt.fit([TEXT])
    (theirs / "tokenizer.json").write_bytes(learnt.files()["tokenizer.json"])
    other = HuggingFace(str(theirs))
    other.fetch(Assets((), tmp_path))
    folder = tmp_path / "a/run/tokenizer"
    shutil.rmtree(folder)
    other.save(folder)
    digest = (folder / "sha256.txt").read_text()
    assert resume(f"run_dir={tmp_path / 'a/run'}", f"cache={tmp_path / 'cache'}") == 0
    assert "it was written again" in caplog.text
    assert (folder / "sha256.txt").read_text() != digest


def test_links_to_runs_are_followed_and_others_named(
    finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not into a loop, nor to where they lead."""
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    (top / "deep" / "linked").symlink_to(finished_run)
    (top / "again").symlink_to(top)
    (top / "home").symlink_to(finished_run.parent)
    (top / "gone").symlink_to(tmp_path / "gone")
    (found,) = find_runs([top])
    assert (found.folder, found.status) == (top / "deep" / "linked", "finished")
    said = sorted(line for line in caplog.messages if "link" in line)
    assert said == [
        f"{top / name} is a link to a folder that is no run, and is not followed"
        for name in ("again", "home")
    ]
    both = find_runs([finished_run, top])
    assert [each.folder for each in both] == [finished_run]  # once
    assert list(run_folders(tmp_path / "top")) == [top / "deep" / "linked"]


def ends_as(user: int, run: Path, line: list[str]) -> Ended:
    """A command, as another user who has no home, in a fork of this process."""
    out, err = run.parent / "out", run.parent / "err"
    tool, *arguments = [word.replace("RUN", str(run)) for word in line]
    child = os.fork()
    if not child:
        code = 99
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.chdir("/")
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
            os.environ.pop("HOME", None)
            os.environ["XDG_CACHE_HOME"] = ""
            sys.argv = [tool, *arguments]
            TOOLS[tool]()
        except SystemExit as ended:
            code = int(ended.code or 0)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, out.read_text(), err.read_text())


# Imported before the user changes, who may not read the folders of this interpreter.
IMPORTED = (
    *("sampling.sample_run", "evaluation.evaluate_run", "report.calibrate", "report.outputs"),
    *("referee.certificates", "training.run"),
)


@pytest.fixture
def theirs(finished_run: Path) -> Iterator[Path]:
    """A copy of the run that anybody may read, outside of what is pytest's."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    for name in (*(f"harness.{each}" for each in IMPORTED), "torch._dynamo"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        for stream in ("out", "err"):
            (home / stream).touch()
            (home / stream).chmod(0o666)
        yield shutil.copytree(finished_run, home / "run")


READING = {
    "sample": ["sample", "RUN", "--tokens", "3"],
    "compare": ["compare", "RUN"],
}
# What needs the cache, or writes to the run, and the end of its one line.
REFUSED = {
    "evaluate": (["evaluate", "RUN"], "no home folder is known; set HOME"),
    "calibration": (["evaluate", "RUN", "--calibration"], "no home folder is known; set HOME"),
    "verify": (["verify", "RUN"], ""),
    "resume": (["train", "run_dir=RUN", "resume=true", "train.steps=40", "cache=/nowhere"], ""),
}


@pytest.mark.parametrize("line", READING)
def test_another_users_run_can_be_read(line: str, theirs: Path) -> None:
    ended = ends_as(OTHER, theirs, READING[line])
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("line", REFUSED)
def test_what_can_not_be_done_with_it_is_one_line(line: str, theirs: Path) -> None:
    words, expected = REFUSED[line]
    ended = ends_as(OTHER, theirs, words)
    assert ended.code in (1, 2)
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert expected in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("line", [*READING, *REFUSED])
def test_a_run_that_may_not_be_read_is_one_line(line: str, theirs: Path) -> None:
    theirs.chmod(0o700)
    ended = ends_as(OTHER, theirs, READING.get(line) or REFUSED[line][0])
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert "Permission denied" in ended.err
    assert "Traceback" not in ended.err


def test_the_page_lists_a_linked_run_once(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "linked").symlink_to(finished_run)
    found = LiveRuns([tmp_path / "top", finished_run.parent]).look()
    assert [each.folder for each in found] == [finished_run]


def test_a_setting_that_came_later_has_its_default(tmp_path: Path) -> None:
    """In a checkpoint of a version that did not know it; another value is a difference."""
    now = settings(tmp_path, *GPT_SMALL)
    trained = without_resumable(now)
    before = trained | {"eval": {k: v for k, v in trained["eval"].items() if k != "part"}}
    require_same_settings(before, now, tmp_path)
    other = settings(tmp_path, *GPT_SMALL, "eval.part=0.5")
    with pytest.raises(UsageError, match=r"eval\.part: 1\.0 → 0\.5"):
        require_same_settings(before, other, tmp_path)
