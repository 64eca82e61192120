"""The trainings that the drills disturb: a fresh run, a finished run that is extended, a sweep."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import RunFailure
from harness.diagnostics import comparison
from harness.diagnostics.faults.life import Life, live
from harness.diagnostics.faults.moments import CallCounter, Unit
from harness.diagnostics.faults.tries import Result

TEXT = "".join(
    f"{number} green bottles, hanging on the wall; and if {number % 7} should fall… \n"
    for number in range(400)
)
# A training of a fraction of a second that passes through every phase several times.
SMALL = (
    *("data=text", "data.split=[0.94,0.03,0.03]", "device=cpu", "precision=fp32"),
    *("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16"),
    *("train.batch_size=2", "train.seq_len=16", "train.accumulate=2", "train.steps=7"),
    *("eval.every=3", "eval.sample_tokens=5", "checkpoint.every=2"),
)
EXTENDED = "train.steps=12"
SWEPT = ("-m", "seed=0,1")


@dataclass(frozen=True)
class Scenario:
    """A command that is given again and again in a folder until it is done.

    name: fresh, extended or sweep. whole: the folder of the uninterrupted command, beside which
    lies the corpus. settings: what the user adds.
    """

    name: str
    whole: Path
    settings: tuple[str, ...] = ()

    def prepare(self, folder: Path) -> None:
        """Make what is there before the command: for `extended` a finished run."""
        if self.name == "extended":
            shutil.copytree(self.whole.with_name("fresh"), folder, dirs_exist_ok=True)

    def command(self, folder: Path) -> list[str]:
        """The same, in whatever state the folder is."""
        options = {
            "fresh": (f"run_dir={folder}/run",),
            "extended": (f"run_dir={folder}/run", EXTENDED),
            "sweep": (f"hydra.sweep.dir={folder}/sweep",),
        }[self.name]
        return [
            *("harness.train", *(SWEPT if self.name == "sweep" else ()), *SMALL, *self.settings),
            *(f"data.path={self.whole.with_name('corpus.txt')}", f"cache={folder}/cache"),
            *options,
            "resume=auto",
        ]

    def rehearse(self) -> Counter[tuple[str, Unit]]:
        """Run the command uninterrupted; returns its moments. Raises RunFailure if it fails."""
        self.prepare(self.whole)
        clock = CallCounter()

        def after() -> None:
            counts = [[*key, count] for key, count in clock.counts.items()]
            self._counts.write_text(json.dumps(counts))

        life = live(self.command(self.whole), clock.start, after)
        if life.code != 0:
            raise RunFailure(f"the uninterrupted training ended with {life.code}: {life.output}")
        return self.moments()

    def moments(self) -> Counter[tuple[str, Unit]]:
        """How many of each unit each phase of the uninterrupted command had."""
        read = json.loads(self._counts.read_text())
        return Counter({(phase, unit): count for phase, unit, count in read})

    @property
    def _counts(self) -> Path:
        return self.whole.with_name(f"{self.name}.json")

    def differences(self, folder: Path) -> list[str]:
        """Between the uninterrupted command's folder and another."""
        runs = {path.parent.relative_to(self.whole) for path in self.whole.rglob("config.yaml")}
        found = []
        for run in sorted(runs):
            lines = comparison.run_differences(self.whole / run, folder / run)
            found += [f"{run}: {line}" for line in lines]
        for page in (path.relative_to(self.whole) for path in self.whole.rglob("report.html")):
            if not (folder / page).read_text().rstrip().endswith("</html>"):
                found.append(f"{page} is torn")
        return found


def scenarios(
    folder: Path, settings: Sequence[str], names: Sequence[str] = ("fresh", "extended", "sweep")
) -> dict[Scenario, Counter[tuple[str, Unit]]]:
    """Each scenario, run once uninterrupted, with its moments."""
    folder.mkdir(parents=True)
    (folder / "corpus.txt").write_text(TEXT)
    chosen = [Scenario(name, folder / name, tuple(settings)) for name in names]
    return {scenario: scenario.rehearse() for scenario in chosen}


def verdict(
    scenario: Scenario, folder: Path, lives: Sequence[Life], group: str, what: str, times: int = 1
) -> Result:
    """Of a command that was disturbed in all lives but the last."""

    def result(verdict: str, detail: str = "") -> Result:
        peak = max(life.peak_bytes for life in lives)
        return Result(group, what, verdict, detail, peak, times)

    for life in lives:
        if life.code is None:
            return result("hang", life.last_line)
        if "Traceback" in life.output:
            return result("traceback", life.last_line)
    if lives[-1].code != 0:
        return result("loss", f"exit code {lives[-1].code}: {lives[-1].last_line}")
    return _compared(result, lambda: scenario.differences(folder), folder)


def _compared(
    result: Callable[[str, str], Result], differences: Callable[[], list[str]], folder: Path
) -> Result:
    try:
        differing = differences()
    except (OSError, ValueError, RunFailure) as error:
        return result("loss", str(error))
    if differing:
        return result("silence", differing[0])
    left = comparison.leftovers(folder)
    return result("leftover", ", ".join(left[:3])) if left else result("equal", "")
