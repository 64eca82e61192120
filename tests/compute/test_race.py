"""The race of products: once on a machine, kept in the user's cache, never an error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.compute import device, race
from harness.compute.device import Compute

OWN = {"bf16": 1.0, "fp16": 2.0, "blas": 3.0, "onednn": 4.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the races, in a cache that is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    race._race.cache_clear()
    yield tmp_path / "cache" / race.FOLDER
    race._race.cache_clear()


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What was measured: seconds made up, other ones each time."""
    found: list[dict[str, float]] = []

    def measured(products: Mapping[str, Any]) -> dict[str, float]:
        found.append({name: OWN[name] + len(found) for name in products})
        return found[-1]

    monkeypatch.setattr(race, "_measured", measured)
    return found


def of_a_new_process() -> dict[str, float]:
    race._race.cache_clear()
    return race.race("cpu")


def test_it_is_measured_once_on_a_machine(cache: Path, races: list[dict[str, float]]) -> None:
    assert of_a_new_process() == of_a_new_process() == races[0]
    assert len(races) == 1
    (file,) = cache.iterdir()
    entry = json.loads(file.read_text())
    assert entry["seconds"] == races[0]
    assert entry["conditions"]["torch"] == torch.__version__
    assert entry["conditions"]["threads"] == 1
    file.unlink()  # to measure anew
    assert of_a_new_process() == races[1]


def test_it_multiplies_and_takes_time(cache: Path) -> None:
    seconds = race.race("cpu")
    assert seconds.keys() >= {"bf16", "fp16", "blas"}
    assert all(0 < each < 60 for each in seconds.values())


@pytest.mark.parametrize("change", ["variable", "threads", "torch", "processor", "instructions"])
def test_what_decides_it_is_measured_for_itself(
    change: str, cache: Path, races: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_a_new_process()
    if change == "variable":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    if change == "torch":
        monkeypatch.setattr(torch, "__version__", "2.99")
    if change == "processor":
        monkeypatch.setattr(race, "cpu_name", lambda: "another one")
    if change == "instructions":
        monkeypatch.setattr(race, "cpu_instructions", lambda: "fewer")
    assert of_a_new_process() == races[1]
    assert len(list(cache.iterdir())) == 2


def with_seconds(value: object) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        entry = json.loads(file.read_text())
        file.write_text(json.dumps(entry | {"seconds": entry["seconds"] | {"blas": value}}))

    return damage


def of_another(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"conditions": {}}))


def with_less(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": {"bf16": 1.0}}))


def as_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "damage",
    [
        *map(with_seconds, (0.0, -1.0, float("nan"), float("inf"), "1", None, True, [1.0])),
        of_another, with_less, as_a_pipe,
        *(
            lambda file, text=text: file.write_bytes(text)
            for text in (b"", b"{", b"[]", b"\xff", b"1", b"[" * 60000, b"0" * 70000)
        ),
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_anew(
    damage: Callable[[Path], None], cache: Path, races: list[dict[str, float]]
) -> None:
    of_a_new_process()
    (file,) = cache.iterdir()
    damage(file)
    assert of_a_new_process() == of_a_new_process() == races[1]
    assert [path.name for path in cache.iterdir()] == [file.name]


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    tmp_path: Path, races: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert of_a_new_process() == races[0]
    assert of_a_new_process() == races[1]
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless(path: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert of_a_new_process() == races[2]


def test_of_processes_that_start_together_the_first_counts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = dict(OWN)

    def overtaken(products: Mapping[str, Any]) -> dict[str, float]:
        monkeypatch.setattr(race, "_measured", lambda products: slow)
        of_a_new_process()
        return dict.fromkeys(products, 7.0)

    monkeypatch.setattr(race, "_measured", overtaken)
    assert of_a_new_process() == {name: slow[name] for name in race.race("cpu")}


def test_a_precision_that_is_emulated_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {"bf16": 40.0, "fp16": 1.9, race.current_matmul(): 1.0}
    monkeypatch.setattr(race, "race", lambda kind: seconds)
    device._say.cache_clear()
    for precision in ("bf16", "fp16", "fp32", "auto", "bf16"):
        Compute.choose("cpu", precision)
    line = "precision=bf16: a product takes 40 times as long here as in fp32\n"
    assert capsys.readouterr().err == line


def test_a_gpus_precision_is_by_its_own_products(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a job on the CPU before has chosen."""
    monkeypatch.setattr(race, "race", lambda kind: {"bf16": 1.0, "blas": 2.0})
    monkeypatch.setattr(race, "current_matmul", lambda: "onednn")
    assert race.times_fp32("bf16", "cuda") == 0.5


def test_fp32_is_raced_as_fp32(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an earlier job of the process has it rounded, and it stays so."""
    seen: list[str] = []

    def measured(products: Mapping[str, Any]) -> dict[str, float]:
        seen.append(torch.get_float32_matmul_precision())
        return dict.fromkeys(products, 1.0)

    monkeypatch.setattr(race, "_measured", measured)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        race.race("cpu")
        assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "high")
    finally:
        torch.set_float32_matmul_precision(before)
