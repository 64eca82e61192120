"""Datasets of Hugging Face's library: by folder, by name, as a stream; never over the network."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import UsageError
from harness.config.identity import differences
from harness.data.assets import Assets
from harness.data.dataset import Dataset, prepare
from harness.data.dataset_corpora import Datasets, DatasetsStream
from harness.data.documents import DocumentCorpus
from harness.data.lane import Lane
from harness.data.read_ahead import ReadAhead
from harness.training import streamed_rows
from harness.training.context import ignore
from harness.training.run import run
from tests.data.datasets import SHARES
from tests.small_runs import GPT_SMALL, settings, trace
from tests.training.test_streamed_rows import InThisProcess
from zoo_tokenizers import EndMarker
from zoo_tokenizers.bytes import Bytes

datasets = pytest.importorskip("datasets", reason="the extra `datasets` is not installed")
TRAIN = [f"train {number} é\n" for number in range(40)]
HELD_OUT = {"validation": ["v one", "", "v two"], "test": ["t one", "t two"]}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library has a cache of its own, and no network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))


def table(texts: list[str]) -> Any:
    return datasets.Dataset.from_dict({"n": [*range(len(texts))], "text": texts})


def saved(folder: Path, splits: dict[str, list[str]], shards: int = 3) -> str:
    """As `save_to_disk` writes them: a folder's name."""
    whole = datasets.DatasetDict({name: table(texts) for name, texts in splits.items()})
    counts = dict.fromkeys(splits, 1) | {"train": shards}
    whole.save_to_disk(str(folder / "saved"), num_shards=counts)
    return str(folder / "saved")


def as_files(folder: Path, splits: dict[str, list[str]], shards: int = 3) -> str:
    """As the Hub has them."""
    (folder / "files").mkdir()
    for name, texts in splits.items():
        count = shards if name == "train" else 1
        for number in range(count):
            part = table(texts).shard(num_shards=count, index=number, contiguous=True)
            part.to_parquet(str(folder / "files" / f"{name}-{number:05}-of-{count:05}.parquet"))
    return str(folder / "files")


def encoded(corpus: DocumentCorpus, folder: Path) -> Dataset:
    return prepare(corpus, EndMarker(Bytes()), Assets((), folder / "cache"))


def parts(dataset: Dataset) -> list[list[str]]:
    return [[*dataset.text.strings(*part[:2])] for part in dataset.parts]


@pytest.mark.parametrize("make", [saved, as_files])
def test_the_datasets_own_splits_are_honoured(make: Any, tmp_path: Path) -> None:
    """What it lacks is cut from train; what has no share is left out."""
    name = make(tmp_path, {"train": TRAIN, **HELD_OUT})
    dataset = encoded(Datasets(name, SHARES), tmp_path)
    assert parts(dataset) == [TRAIN, ["v one", "v two"], ["t one", "t two"]]
    assert "1 empty documents are left out" in dataset.notes()
    cut = parts(encoded(Datasets(name, SHARES, parts=["train", "test", None]), tmp_path))
    assert cut == [TRAIN[:36], ["t one", "t two"], TRAIN[36:]]
    shuffled = encoded(Datasets(name, SHARES, parts=["train", None, None], shuffle=3), tmp_path)
    assert [len(part) for part in parts(shuffled)] == [32, 4, 4]
    assert sorted(itertools.chain(*parts(shuffled))) == sorted(TRAIN)
    none = encoded(Datasets(name, [0.9, 0.1, 0.0]), tmp_path)
    assert none.test is None
    assert parts(none) == [TRAIN, ["v one", "v two"], []]


def test_the_digest_says_where_train_ends(tmp_path: Path) -> None:
    """Else a run could be scored on what it was trained on."""
    found = []
    for number, held_out in enumerate((["d"], ["c", "d"])):
        (tmp_path / str(number)).mkdir()
        texts = {"train": ["a", "b", "c", "d"][: -len(held_out)], "validation": held_out}
        corpus = Datasets(saved(tmp_path / str(number), texts, 1), [0.9, 0.1, 0.0])
        found.append(encoded(corpus, tmp_path))
    assert found[0].text.read(0, 4) == found[1].text.read(0, 4) == b"abcd"
    assert found[0].digest != found[1].digest
    with pytest.raises(UsageError, match="not the one this run was trained on"):
        prepare(corpus, found[0].tokenizer, Assets((), tmp_path / "cache"), found[0].digest)


def test_a_moved_folder_has_the_same_text(tmp_path: Path) -> None:
    name = saved(tmp_path, {"train": TRAIN})
    for corpus in (
        Datasets(name, SHARES, None, None, "text", None, 7, "packed"),
        DatasetsStream(name, SHARES, None, None, "text", None, 7, "across", 300, 3, 9),
    ):
        before = encoded(corpus, tmp_path).digest
        (tmp_path / "there").mkdir(exist_ok=True)
        Path(name).rename(tmp_path / "there" / "moved")
        moved = corpus.moved_to(tmp_path / "there" / "moved")
        assert encoded(moved, tmp_path).digest == before
        assert {**vars(moved), "source": 0, "found": 0} == {**vars(corpus), "source": 0, "found": 0}
        Path(tmp_path / "there" / "moved").rename(name)


def lanes(dataset: Dataset) -> list[Lane]:
    shards = dataset.shards
    assert shards is not None
    return [
        Lane(shards, dataset.tokenizer, 1, number, shards.lanes, 4, 9, 8, dataset.held_out())
        for number in range(shards.lanes)
    ]


def read(lane: Lane) -> Iterator[str]:
    for _, ids in lane._documents(lane.start):
        yield lane.tokenizer.decode(ids)


@pytest.mark.parametrize("make", [saved, as_files])
def test_a_stream_reads_each_shard_once_a_pass_and_nothing_held_out(
    make: Any, tmp_path: Path
) -> None:
    name = make(tmp_path, {"train": [*TRAIN, "v one", "t one"], **HELD_OUT})
    dataset = encoded(DatasetsStream(name, SHARES, first_bytes=40), tmp_path)
    assert parts(dataset) == [TRAIN[:4], ["v one"], ["t one"]]
    own = lanes(dataset)
    assert len(own) == 2
    found = [*itertools.chain(*(itertools.islice(read(lane), 3 * 40) for lane in own))]
    assert sorted(found) == sorted(TRAIN * 6)
    assert dataset.shards is not None
    assert dataset.shards.bytes is not None
    assert "3 shards of the split train" in dataset.shards.notes()[0]


@pytest.mark.parametrize("make", [saved, as_files])
def test_a_stream_goes_on_from_any_position(make: Any, tmp_path: Path) -> None:
    dataset = encoded(DatasetsStream(make(tmp_path, {"train": TRAIN}), SHARES), tmp_path)
    lane = lanes(dataset)[1]
    whole = [*itertools.islice(lane.blocks(lane.start), 30)]
    for number in (1, 7, 22):
        start = type(lane.start)(**json.loads(json.dumps(whole[number][0])))
        other: Lane = pickle.loads(pickle.dumps(lane))
        for (place, rows), (again, same) in zip(
            whole[number:], other.blocks(start, number), strict=False
        ):
            assert place == again
            assert (rows == same).all()


def test_a_run_goes_on_where_its_dataset_was_moved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an undisturbed one, and with no other dataset. Of the Hub it may be told the revision."""
    monkeypatch.setattr(streamed_rows, "ReadAhead", InThisProcess)
    name, other = saved(tmp_path, {"train": TRAIN}), tmp_path / "other"

    def trained(run_: str, steps: int, name: str, *overrides: str) -> list[dict[str, Any]]:
        small = *GPT_SMALL, "schedule=constant", "eval.every=9", f"train.steps={steps}", *overrides
        data = {
            "_target_": "harness.data.dataset_corpora.DatasetsStream",
            "name": name,
            "split": SHARES,
        }
        assert run(settings(tmp_path / run_, *small).replace(data=data)) == 0
        return [row for row in trace(tmp_path / run_) if "lr" in row]

    whole = trained("a", 4, name)
    trained("b", 2, name)
    moved = str(Path(name).rename(tmp_path / "moved"))
    with pytest.raises(UsageError, match="can't be resumed: its corpus has changed"):
        trained("b", 4, saved(other, {"train": [*TRAIN, "new"]}), "resume=true")
    assert trained("b", 4, moved, "resume=true") == whole
    assert differences({"data": {"revision": None}}, {"data": {"revision": "abc123"}}) == []


@pytest.mark.long
def test_another_process_reads_what_a_lane_has(tmp_path: Path) -> None:
    """Though the library puts a tensor into what it is given, where torch is imported."""
    dataset = encoded(DatasetsStream(as_files(tmp_path, {"train": TRAIN}), SHARES), tmp_path)
    lane = lanes(dataset)[0]
    reader = ReadAhead(lane, lane.start, 0)
    for place, rows in itertools.islice(lane.blocks(lane.start), 9):
        again, same = reader.next(ignore)
        assert place == again
        assert (rows == same).all()
    reader.close()


def test_shards_of_other_files_are_others(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    found = [
        encoded(DatasetsStream(as_files(folder, {"train": texts}), SHARES, first_bytes=90), folder)
        for folder, texts in ((tmp_path, TRAIN), (tmp_path / "b", [*TRAIN, "more"]))
    ]
    assert found[0].digest == found[1].digest
    assert found[0].shards.sha256 != found[1].shards.sha256  # type: ignore[union-attr]


def test_by_name_what_the_cache_has_is_taken_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network is looked for once, and not waited for."""
    folder = Path(as_files(tmp_path, {"train": TRAIN, **HELD_OUT}))
    folder.rename(tmp_path / "tales")
    builder = datasets.load_dataset_builder(str(tmp_path / "tales"))
    builder.download_and_prepare(str(tmp_path / "hf/me___tales/default/0.0.0/abc123"))
    expected = [TRAIN, ["v one", "v two"], ["t one", "t two"]]
    for corpus in (Datasets("me/tales", SHARES), DatasetsStream("me/tales", SHARES)):
        dataset = encoded(corpus, tmp_path)
        assert parts(dataset) == expected
        assert dataset.name == "tales"
        assert "me/tales is that of revision abc123" in dataset.notes()
        if dataset.shards is not None:
            assert {*itertools.islice(read(lanes(dataset)[0]), 40)} == set(TRAIN)
    for name, revision, words in (
        ("me/none", None, r"data.name=me/none is not in the cache .*\(it is switched off: HF_HUB"),
        ("me/tales", "main", "the cache has revision abc123, not data.revision=main"),
    ):
        with pytest.raises(UsageError, match=words):
            encoded(Datasets(name, SHARES, revision=revision), tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    assert parts(encoded(Datasets("me/tales", SHARES), tmp_path)) == expected
    with pytest.raises(UsageError, match=r"the Hub is not asked \(.*refused.*import datasets"):
        encoded(Datasets("me/none", SHARES), tmp_path)
    assert "data.revision=COMMIT" not in capsys.readouterr().err
    stranger = Assets((), tmp_path / "cache").of_stranger([])
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    Datasets("me/tales", SHARES, revision="abc123").read(stranger)
    assert capsys.readouterr().err == ""
    Datasets("me/tales", SHARES).read(stranger)
    told = "me/tales is that of revision abc123; if the run's is another, which its train.log says"
    assert capsys.readouterr().err == f"{told}, data.revision=COMMIT asks for that\n"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match="only https://… is fetched"):
        Datasets("me/none", SHARES).read(stranger)
    assert datasets.config.HF_HUB_OFFLINE is False


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "field": (
        {"field": "txt"},
        r"train.* has no field 'txt'; data.field should be one of 'n', 'te",
    ),
    "kind": ({"field": "n"}, "train.*, row 1: the field n is no text: 0"),
    "part": ({"parts": ["trian", None, None]}, "no split trian; .* Did you mean train"),
    "no train": ({"parts": [None, "train", None]}, "has no split train: name those to take"),
    "subset": ({"subset": "en"}, "BuilderConfig 'en' not found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    options, words = REFUSED[case]
    name = as_files(tmp_path, {"train": TRAIN})
    for corpus in (Datasets, DatasetsStream):
        with pytest.raises(UsageError, match=words) as refused:
            encoded(corpus(name, SHARES, **options), tmp_path)
        assert "\n" not in str(refused.value)


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    name = as_files(tmp_path, {"train": TRAIN})
    (tmp_path / "empty").mkdir()
    for path, words in (("none", "is no folder"), ("empty", "can't be loaded")):
        with pytest.raises(UsageError, match=words):
            encoded(Datasets(str(tmp_path / path), SHARES), tmp_path)
    (shard, *_) = Path(name).glob("train-00000*")
    content = shard.read_bytes()
    for damaged in (content[:-9], content[:4] + b"\0" * 80 + content[84:], b""):
        shard.write_bytes(damaged)
        with pytest.raises(UsageError, match="can't be ") as refused:
            encoded(Datasets(name, SHARES), tmp_path)
        assert "\n" not in str(refused.value)
    shard.write_bytes(content)
    elsewhere = "configs:\n- config_name: a\n  data_files: https://example.org/a.parquet\n"
    for described, content in (
        ("README.md", f"---\n# --- \n{elsewhere}---\n"),
        (".huggingface.yaml", elsewhere),
    ):
        (Path(name) / described).write_text(content)
        with pytest.raises(UsageError, match=f"its {described} names data that are not in the fol"):
            encoded(Datasets(name, SHARES), tmp_path)
        (Path(name) / described).unlink()
    (Path(name) / "files.py").write_text("raise SystemExit")  # as datasets had code once
    with pytest.raises(UsageError, match="scripts are no longer supported"):
        encoded(Datasets(name, SHARES), tmp_path)


def test_files_of_a_folder_that_are_not_read_are_counted(tmp_path: Path) -> None:
    """Of two formats the library takes one, and says nothing."""
    folder = tmp_path / "two"
    (folder / ".hidden").mkdir(parents=True)
    for number in range(2):
        (folder / f"train-{number}.jsonl").write_text(f'{{"text": "{number}"}}\n' * 9)
    for name in ("README.md", ".hidden/train-3.csv"):
        (folder / name).write_text("text\n3\n")
    corpus = Datasets(str(folder), SHARES)
    assert not any("not read" in note for note in encoded(corpus, tmp_path).notes())
    for name in ("train-2.csv", "more.jsonl"):
        (folder / name).write_text("text\n2\n")
    dataset = encoded(corpus, tmp_path)
    assert sum(map(len, parts(dataset))) == 18
    note = "2 files of another format or of no split are not read"
    assert f"{note}: {folder}/more.jsonl, {folder}/train-2.csv" in dataset.notes()


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'language-model-zoo\[datasets\]'"):
        encoded(Datasets("a/b", SHARES), tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "should be OWNER/NAME, or a folder"),
        ({"name": "json"}, "should be OWNER/NAME, or a folder"),
        ({"name": "buckets/a"}, "should be OWNER/NAME, or a folder"),
        ({"name": "./a", "revision": "main"}, "a folder has none"),
        ({"parts": ["train"]}, "should be three"),
        ({"parts": ["train", "train", None]}, "has a split twice"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    for corpus in (Datasets, DatasetsStream):
        with pytest.raises(ValueError, match=words):
            corpus(**{"name": "a/b", "split": SHARES} | options)
