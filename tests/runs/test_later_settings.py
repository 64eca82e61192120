"""A run of before a setting came is of the configuration that has the setting's default."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.compute.matmul import current_matmul, use_matmul
from harness.config.settings import Settings
from harness.runs import config
from harness.runs.digest import digest
from tests.small_runs import settings

LATER = Settings.defaults()
KEYS = [
    (name, key)
    for name, value in LATER.items()
    for key in (value if isinstance(value, dict) else [None])
]


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_reports_take_it_for_the_same_configuration(
    tmp_path: Path, name: str, key: str | None
) -> None:
    plain = settings(tmp_path / "a").plain()
    for folder in ("now", "before"):
        group, own = (plain, name) if key is None else (plain[name], key)
        group[own] = LATER[name] if key is None else LATER[name][key]
        if folder == "before":
            del group[own]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / config.FILE).write_text(yaml.safe_dump(plain))
    assert config.read_flat(tmp_path / "now") == config.read_flat(tmp_path / "before")


def test_what_came_later_is_known() -> None:
    assert {"ngrams", "zero_residual", "tf32"} <= LATER.keys()
    assert LATER["train"]["on_non_finite"] == "stop"


@pytest.mark.parametrize("matmul", ["auto", "blas"])
def test_a_jobs_identity_does_not_depend_on_what_the_process_multiplies_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matmul: str
) -> None:
    """bf16 is faster than the BLAS here, and not faster than oneDNN."""
    seconds = {"bf16": 1.0, "fp16": 1.0, "blas": 1.5, "onednn": 1.0}
    monkeypatch.setattr("harness.compute.race.race", lambda kind: seconds)
    some = settings(tmp_path / "a", "precision=auto", f"matmul={matmul}")
    before, found = current_matmul(), []
    try:
        for name in ("blas", "onednn"):
            use_matmul(name)
            found.append(digest(some))
            assert current_matmul() == name
    finally:
        use_matmul(before)
    assert found[0] == found[1]
    chosen = digest(some.replace(precision="fp32" if matmul == "auto" else "bf16"))
    assert found[0] == chosen
