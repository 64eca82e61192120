"""The live page's list of many runs: bounded, filtered and sorted, and read bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.live import watch
from harness.live.listing import MOST_FOLLOWED, MOST_LISTED
from tests.live.live_server import Client, make_run, serving

MANY = 260


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth is stopped, every seventh has no validation score, and one is told by its
    name."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        make_run(
            folder / f"{number // 100}" / f"{number}",
            model="wavenet" if number == 77 else "gpt" + "x" * 1000,
            seed=number,
            status="stopped" if number % 4 == 0 else "finished",
            val=None if number % 7 == 0 else {"bits_per_byte": 2 + number % 50, "bytes": 9},
            error="y" * 50_000,
        )
    return folder


@pytest.fixture
def client(many: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(watch, "LEAST", 2 * MANY)  # all at once, on a slow machine, too
    with serving(many) as client:
        yield client


def test_an_answer_has_some_of_the_runs_and_says_how_many_there_are(client: Client) -> None:
    found = client.get("runs")
    assert (found["known"], found["matching"], found["unread"], found["beyond"]) == (
        MANY,
        MANY,
        0,
        0,
    )
    assert found["counts"] == {"finished": 195, "stopped": 65}
    assert len(found["listed"]) == len({*found["listed"]}) == MOST_LISTED
    assert {card["id"] for card in found["runs"]} == {*found["listed"], *found["followed"]}
    begun = [card["begun"] for card in found["runs"] if card["id"] in found["listed"]]
    assert begun == sorted(begun, reverse=True)
    assert found["followed"] == found["listed"][:6]
    assert len(json.dumps(found)) < 400_000  # whatever names and errors say
    assert all(len(card["error"]) < 400 for card in found["runs"])


def test_a_filter_and_an_order_are_of_all_runs(client: Client) -> None:
    one = client.get("runs", words="WaveNet finished")
    assert (one["matching"], one["known"]) == (1, MANY)
    (listed,) = one["listed"]
    assert next(card["seed"] for card in one["runs"] if card["id"] == listed) == 77
    assert client.get("runs", words="wavenet stopped")["listed"] == []
    for up in (0, 1):
        found = client.get("runs", sort="val", up=up)
        values = {card["id"]: card["val"] for card in found["runs"]}
        assert len(found["listed"]) == MOST_LISTED
        known = [values[each] for each in found["listed"]]
        assert known == sorted(known, reverse=not up)
    last = client.get("runs", sort="val", words="/0 stopped")  # unknown ones last, not first
    assert last["listed"]
    assert client.ask("GET", "/api/runs?sort=__class__")[0] == 400


def test_runs_that_are_asked_for_are_there_wherever_they_stand(client: Client, many: Path) -> None:
    listed = {*client.get("runs")["listed"]}
    other = next(run.id for run in client.server.answers.runs.look() if run.id not in listed)
    found = client.get("runs", run=[other, "nobody"], words="wavenet")
    assert other in {card["id"] for card in found["runs"]}
    assert other not in found["listed"]
    assert client.get("run", run=other)["flat_config"]["model.n_layer"] == "2"


def test_those_that_train_come_first_and_are_followed(tmp_path: Path) -> None:
    for number in range(40):
        make_run(tmp_path / f"{number}", status="finished" if number % 4 else "running")
    with serving(tmp_path) as client:
        found = client.get("runs")
        cards = {card["id"]: card for card in found["runs"]}
        assert [cards[each]["status"] for each in found["followed"]] == ["running"] * 10
        for number in range(40):
            make_run(tmp_path / f"{number}", status="running")
        while client.get("runs")["counts"].get("finished"):
            pass
        assert len(client.get("runs")["followed"]) == MOST_FOLLOWED


def test_many_runs_are_read_bit_by_bit_the_newest_first(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "READ_SECONDS", 0.0)
    monkeypatch.setattr(watch, "REREAD_SECONDS", 10.0)
    monkeypatch.setattr(watch, "LEAST", 100)
    with serving(many) as client:
        unread = []
        while not unread or unread[-1]:
            found = client.get("runs")
            assert found["known"] == MANY
            assert sum(found["counts"].values()) == MANY - found["unread"]
            unread.append(found["unread"])
    assert unread == [160, 60, 0]


def test_more_runs_than_are_followed_are_counted(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_RUNS", 100)
    monkeypatch.setattr(watch, "LEAST", 2 * MANY)
    with serving(many) as client:
        found = client.get("runs")
        assert (found["known"], found["beyond"]) == (100, MANY - 100)


def test_a_folder_that_nobody_foresaw_takes_no_list_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name)
    read = watch.read_run

    def fails_on_b(folder: Path, **how: bool) -> object:
        if folder.name == "b":
            raise AttributeError("a bug")
        return read(folder, **how)

    monkeypatch.setattr(watch, "read_run", fails_on_b)
    with serving(tmp_path) as client:
        cards = client.runs()
    assert (cards["a"]["status"], cards["b"]["status"]) == ("finished", "damaged")
    assert cards["b"]["error"] == "can't be read (AttributeError: a bug)"


def test_curves_of_many_runs_keep_to_their_memory(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_READ", 5)
    with serving(many) as client:
        runs = client.server.answers.runs
        ids = client.get("runs")["listed"][:20]
        assert len(client.get("curves", run=ids, name="loss", axis="step")["runs"]) == 20
        assert len(runs._metrics) == 5
        monkeypatch.setattr(watch, "CURVES_MEMORY", -1)
        client.get("curves", run=ids, name="loss", axis="step")
        assert len(runs._metrics) == 1
