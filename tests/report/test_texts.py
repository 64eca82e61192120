"""The table of scores by text: whose scores, which text is which, and the ranks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.report.html.document import write_report
from harness.report.records.runs import find_runs, read_run
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.statistics.texts import text_table
from harness.report.text import export
from harness.report.text import texts as words
from harness.report.text.terminal import print_comparison
from harness.runs import texts
from harness.runs.summary import TextScore
from tests import small_runs
from tests.conftest import Ended
from tests.report.comparing import write_certificate, write_run

SPLIT = [0.8, 0.1, 0.1]
PLAY, DOCS, MIX, FURTHER, OTHER = (letter * 64 for letter in "abcde")


def of_texts(folder: Path, name: str, test: float, seed: int = 0, **more: Any) -> None:
    """more: `texts` of a mix, by their names bits per byte; and fields of the summary."""
    own = more.pop("texts", {})
    run = write_run(
        folder / f"{name}-{seed}", name, seed, test=test, config={"data": {"split": SPLIT}}, **more
    )
    document = json.loads((run / "summary.json").read_text())
    for split in ("val", "test"):
        document[split]["texts"] = {key: {"bits_per_byte": bits} for key, bits in own.items()}
    (run / "summary.json").write_text(json.dumps(document))
    write_certificate(run, document, more.get("certified", "passed"))


def mixed(**digests: str) -> dict[str, Any]:
    parts = {"weight": 0.5, "train": "", "val": "", "test": ""}
    return {name: parts | {"sha256": digest} for name, digest in digests.items()}


def also(**scores: tuple[str, float]) -> dict[str, Any]:
    return {name: {"sha256": sha, "bits_per_byte": bits} for name, (sha, bits) in scores.items()}


@pytest.fixture
def compared(tmp_path: Path) -> Comparison:
    corpus = {"sha256": MIX, "split": SPLIT, "mixed": mixed(play=PLAY, docs=DOCS)}
    for seed, bits in enumerate((2.0, 2.2)):
        of_texts(
            tmp_path, "gpt", 1.9, seed, corpus=corpus, texts={"play": bits, "docs": 1.5},
            data="play+docs",
        )  # fmt: skip
    alone = {"sha256": PLAY, "split": SPLIT}
    of_texts(
        tmp_path, "lstm", 2.05, corpus=alone, data="shakespeare",
        also=also(far=(FURTHER, 3.0), near=(OTHER, 2.5)),
    )  # fmt: skip
    of_texts(
        tmp_path, "gru", 2.3, corpus=alone, data="shakespeare",
        also=also(wide=(FURTHER, 2.9), near=(DOCS, 1.0)),
    )  # fmt: skip
    of_texts(
        tmp_path, "rnn", 1.0, corpus=alone, data="shakespeare", certified="failed",
        also=also(far=(FURTHER, 0.1)),
    )  # fmt: skip
    return compare_runs(find_runs([tmp_path]), "test")


def cells(compared: Comparison) -> dict[str, list[str]]:
    table = text_table(compared)
    assert table is not None
    return {
        group.model: [words.cell(places.get(text)) for text in table.names]
        for group, places in table.rows
    }


def test_a_text_is_known_by_its_content(compared: Comparison) -> None:
    """A plain run's test text is that of a mix that has the same corpus, split alike."""
    table = text_table(compared)
    assert table is not None
    assert list(table.names.values()) == [
        ("play+docs", "test, all bytes"),
        ("play", "test"),
        ("docs", "test"),
        ("far", "text"),
        (f"near·{OTHER[:6]}", "text"),
        (f"near·{DOCS[:6]}", "text"),
    ]
    assert cells(compared) == {
        "gpt": ["1.900 ± 0.000 (1)", "2.100 ± 0.141 (2)", "1.500 ± 0.000 (1)", "–", "–", "–"],
        "lstm": ["–", "2.050 (1)", "–", "3.000 (2)", "2.500 (1)", "–"],
        "gru": ["–", "2.300 (3)", "–", "2.900 (1)", "–", "1.000 (1)"],
    }  # and no rnn, which is not certified


def test_on_validation_test_is_not_shown(tmp_path: Path, compared: Comparison) -> None:
    table = text_table(compare_runs(find_runs([tmp_path]), "val"))
    assert table is not None
    assert {part for _, part in table.names.values()} == {"val, all bytes", "val", "text"}


def test_it_is_in_every_output(tmp_path: Path, compared: Comparison) -> None:
    out = io.StringIO()
    print_comparison(compared, out)
    write_report(compared, tmp_path / "report.html", [tmp_path])
    for written in (
        out.getvalue(), (tmp_path / "report.html").read_text(), export.markdown(compared)
    ):  # fmt: skip
        assert "2.100 ± 0.141 (2)" in written
        assert words.NOTE in written


def test_there_is_none_of_one_text(tmp_path: Path) -> None:
    of_texts(tmp_path, "gpt", 2.0)
    of_texts(tmp_path, "lstm", 2.1, also={"old": {"bits_per_byte": 1.0}})  # without its digest
    assert text_table(compare_runs(find_runs([tmp_path]), "test")) is None


def test_scores_of_further_texts_are_kept(
    tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the weights that the run is ranked by, and as it is ranked; edited ones are not
    believed."""
    assert small_runs.train(tmp_path / "a", "model=bigram", "tokenizer=bytes", "train.steps=2") == 0
    run, text = tmp_path / "a" / "run", tmp_path / "text"
    text.write_text("green bottles")

    def known() -> dict[str, TextScore]:
        return dict(read_run(run).evaluated)

    pair = f"own={text}"
    for other in (["--checkpoint", "latest"], ["--precision", "bf16"]):
        assert command("evaluate", run, "--text", pair, *other).code == 0
        assert not known()
    ended = command("evaluate", run, "--json", "--text", pair)
    (score,) = json.loads(ended.out)["texts"]
    assert command("evaluate", run, "--text", f"again={text}").code == 0
    assert list(known()) == ["own", "again"]
    own = known()["own"].model_dump(exclude_unset=True)
    assert own == {name: score[name] for name in own}
    assert {"sha256", "bits_per_byte", "stride"} <= own.keys()
    table = text_table(compare_runs(find_runs([run]), "test"))
    assert table is not None
    assert [name for name, _ in table.names.values()] == ["corpus", "own"]
    written = (run / texts.FILE).read_text()
    (run / texts.FILE).write_text(written.replace('"tokens": 12', '"tokens": 13'))
    assert not known()
    (run / texts.FILE).write_text("[")
    assert not known()
    (run / texts.FILE).write_text(written)
    assert known()
    (run / "checkpoints").rename(tmp_path / "elsewhere")  # where other weights may lie by now
    assert not known()
    (tmp_path / "elsewhere").rename(run / "checkpoints")
    monkeypatch.setattr(texts, "MOST", 2)
    assert command("evaluate", run, "--text", f"third={text}").code == 0
    assert list(known()) == ["again", "third"]
    corpus = tmp_path / "corpus.txt"
    ended = command("evaluate", run, "--text", f"trained={corpus}")
    assert "trained is the text that this run was trained on" in ended.err
    assert list(known()) == ["again", "third"]
    for digest in (run / "checkpoints").glob("*.sha256"):
        digest.write_text(digest.read_text().replace(digest.read_text()[:8], "00000000"))
    assert not known()
