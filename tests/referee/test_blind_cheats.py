"""Cheats by someone who had not read the checks, unchanged: which are seen, and by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.referee import verify
from harness.referee.verify import verify_model
from harness.runs.certificate import Certificate
from tests.referee.blind import CHEATS, HONEST, outside
from tests.small_runs import settings

# Not caught without a run: the first waits for 200 calls, two need a text to read or to train on,
# and Alibi repeats what it remembers of a shared prefix.
ESCAPES = {"LaterCalls", "ReadsTheCorpus", "TrainsOnTest", "Alibi"}


def certificate(cls: type, folder: Path) -> Certificate:
    asked = settings(folder, "model=gpt", "train.seq_len=64", "trust=[tests]")
    precision = "bf16" if cls.__name__ == "LowPrecision" else "fp32"
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
    asked = asked.replace(model=node, precision=precision)
    return verify_model(asked, complete=False, device="cpu")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cheats before left in this process is gone."""
    monkeypatch.setattr(verify, "SECONDS", 1.0)
    outside.restore_losses()
    outside.REMEMBERED.clear()
    outside.ALIBIS.clear()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(CHEATS.keys() - ESCAPES))
def test_a_blind_cheat_is_caught(name: str, tmp_path: Path) -> None:
    assert certificate(CHEATS[name], tmp_path).failed != []


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(ESCAPES))
def test_what_escapes_is_known(name: str, tmp_path: Path) -> None:
    assert certificate(CHEATS[name], tmp_path).failed == []


@pytest.mark.parametrize("name", ["FarPositions", "NosyHead", "CarriesTheText"])
def test_some_blind_cheats_are_caught(name: str, tmp_path: Path) -> None:
    assert certificate(CHEATS[name], tmp_path).failed != []


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(HONEST))
def test_no_honest_model_is_refused(name: str, tmp_path: Path) -> None:
    assert certificate(HONEST[name], tmp_path).failed == []
