"""New models among others: the same search for each, the same seeds, the floor, certificates, and
the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.compute.meta import meta_model
from harness.config.settings import CURRENCIES, read_settings, require_trusted
from harness.config.spelling import override
from harness.referee.at_once import certify_each
from harness.report.outputs import compare
from harness.report.records.runs import find_runs
from harness.runs import certificate
from harness.runs.find import run_folders
from harness.tuning import sweeps
from harness.tuning.search import CHOSEN, search

RECIPE = "experiment=compare"  # whose models, text and budget are the defaults
FLOOR = "floor"  # the folder of the models that count


def baseline(
    new: Sequence[str],
    against: Sequence[str] | None,
    typed: Sequence[str],
    folder: Path,
    *,
    seeds: int,
    workers: sweeps.Workers = 1,
    complete: bool = False,
    only_plan: bool = False,
    run: sweeps.Run | None = None,
) -> int:
    """Search, train what was chosen, count the floor, certify, and write report.html and the tables
    into the folder; returns the exit code. What is finished there is not done again.

    against: None: the models of experiment=compare. complete: of the certificates; else those that
    the trainings made themselves count. Raises UsageError and RunFailure.
    """
    recipe = compose([RECIPE])
    against = recipe.hydra.sweeper.params.model.split(",") if against is None else against
    models = list(dict.fromkeys([*against, *new]))
    given = {word.partition("=")[0] for word in typed}
    shared = list(typed)
    if not given & {f"train.{name}" for name in CURRENCIES}:
        shared.append(f"train.steps={recipe.train.steps}")
    if "data" not in given:
        shared.append(f"data={recipe.hydra.runtime.choices.data}")
    floors = [model for model in models if _counts(model, shared)]
    trained = [model for model in models if model not in floors]
    if not trained:
        raise UsageError("every model that is named counts: there is nothing to search or train")
    code = search(trained, shared, folder, seeds, workers, run, table=False, only_plan=only_plan)
    if code or only_plan:
        return code
    places = [folder / CHOSEN]
    if floors:
        places.append(folder / FLOOR)
        counted = [
            "-m", f"model={','.join(floors)}", *shared,
            override("hydra.sweep.dir", str(places[-1])), "resume=auto",
        ]  # fmt: skip
        if code := (run or sweeps.run_sweep)(counted, False):
            return code
    failed = complete and _certify(places)
    compare(
        find_runs(places), paths=places, out=folder / "report.html", plots=None,
        markdown=folder / "table.md", latex=folder / "table.tex", csv=folder / "table.csv",
        runs_csv=None, complete=complete,
    )  # fmt: skip
    return int(failed)


def _counts(model: str, shared: Sequence[str]) -> bool:
    """Whether it counts, in place of taking steps."""
    settings = read_settings(compose([f"model={model}", *shared]))
    require_trusted(settings)
    return meta_model(settings).fit is not None


def _certify(places: Sequence[Path]) -> bool:
    """Score every test token of every run again; whether a certificate failed."""
    folders = sorted(path for place in places for path in run_folders(place))
    known = {folder: certificate.read(folder) for folder in folders}
    whole = [found for found in known.values() if found and found.complete and found.is_own]
    lacking = [folder for folder, found in known.items() if found not in whole]
    failed = any(found.failed for found in whole)
    made = certify_each(lacking, complete=True, device="cpu", trust=[])
    for number, (folder, found) in enumerate(zip(lacking, made, strict=True), 1):
        if not isinstance(found, certificate.Certificate):
            raise found
        print(f"certificate {number} of {len(lacking)}: {folder}", file=sys.stderr)
        failed |= bool(found.failed)
    return failed
