"""An ablation: every change added and left out, at the same budget, and no effect that is none."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.config.saved import load_settings
from harness.config.settings import read_settings
from harness.report.statistics import effects as effects_of
from harness.report.statistics import paired
from harness.report.statistics.effects import Comparand, find_effects
from harness.report.statistics.where import Tokens
from harness.runs.summary import read_summary, status_of
from harness.tuning import plan as tuning_plan
from harness.tuning import search
from harness.tuning.ablation import ablate, plan_ablation
from harness.tuning.plan import INIT, RATE, Stage
from harness.tuning.sweeps import Run
from tests.conftest import Ended
from tests.report.comparing import Page
from tests.report.test_paired import HARD, K, text
from tests.small_runs import SMALL
from tests.training.sweeps import trace
from tests.waiting import GUARD, wait_until

NORM, BIAS, CAP = "model.norm=rms_norm", "model.bias=false", "model.logit_cap=5.0"


@pytest.fixture
def base(small_text: Path, tmp_path: Path) -> str:
    small = [word for word in SMALL if not word.startswith("data.split")]
    own = (f"data.path={small_text}", f"cache={tmp_path / 'cache'}", "data.split=[0.6,0.35,0.05]")
    return " ".join(["model=bigram", *small, *own, "train.steps=4"])


@pytest.fixture
def run(command: Callable[..., Ended]) -> Run:
    def run(arguments: Sequence[str], table: bool) -> int:
        assert not table
        return command("train", *arguments).code

    return run


# The plan


def test_every_change_is_added_and_left_out() -> None:
    plan = plan_ablation("gpt", [NORM, BIAS, CAP])
    made = {variant.name: variant.overrides[1:] for variant in plan.variants}
    assert made == {
        "base": (),
        "add-1": (NORM,), "add-2": (BIAS,), "add-3": (CAP,),
        "all": (NORM, BIAS, CAP),
        "without-1": (BIAS, CAP), "without-2": (NORM, CAP), "without-3": (NORM, BIAS),
    }  # fmt: skip
    for comparand in plan.comparands:
        within, without = set(made[comparand.within]), set(made[comparand.without])
        own = {comparand.change} if comparand.how != "all at once" else {NORM, BIAS, CAP}
        assert within - without == own
        assert without < within
    assert len(plan.comparands) == 2 * 3 + 1


def test_of_two_changes_one_left_out_is_the_other_added() -> None:
    plan = plan_ablation("gpt", [NORM, BIAS])
    assert [variant.name for variant in plan.variants] == ["base", "add-1", "add-2", "all"]
    left_out = [each for each in plan.comparands if each.how == "left out"]
    assert left_out == [
        Comparand(NORM, "left out", "add-2", "all"),
        Comparand(BIAS, "left out", "add-1", "all"),
    ]
    assert len(plan_ablation("gpt", [NORM]).comparands) == 1
    # The order of the rows is no part of the text that is scored.
    assert len(plan_ablation("gpt", ["data.order=shuffled"]).comparands) == 1


def test_a_change_takes_the_place_of_the_base_s_own() -> None:
    plan = plan_ablation("model=gpt model.n_layer=2", ["model.n_layer=3 model.n_head=2"])
    changed = plan.variants[1]
    assert changed.overrides == ("model=gpt", "model.n_layer=3", "model.n_head=2")
    assert changed.settings.model["n_layer"] == 3
    with_model = plan_ablation("gpt", ["model=gpt_modern"])
    assert with_model.variants[1].overrides == ("model=gpt_modern",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gtp", NORM], "Did you mean gpt"),
        (["gpt", "model.nrom=rms_norm"], "model.nrom"),
        (["gpt", "model.norm=layer_norm"], "changes nothing"),
        (["gpt", NORM, "model.norm=layer_norm"], "both set model.norm"),
        (["gpt", "seed=1"], "the ablation chooses seed"),
        (["gpt", "rms_norm"], "is no setting"),
        (["gpt", "tokenizer=bytes"], "tokenizer must be that of the base"),
        (["model=gpt data=names", NORM], "these data are documents"),
        (
            ["model=gpt data=mix data.texts={a:python_docs,b:tiny_shakespeare}", NORM],
            "these data are a mix",
        ),
        (["gpt", "model=gpt_modern", "model.norm=rms_norm"], "makes another one void"),
        (["gpt", "train.steps=7"], "the budget must be that of the base"),
        (["gpt", "train.batch_size=3"], "give the budget by train.tokens"),
        (["gpt", ""], "a change is settings"),
        (["gpt", "model.n_layer=1,2"], "model.n_layer"),
        (
            ["gpt", "model.bias=false,true"],
            "error: model.bias=false,true has several values: give each as a change of its own\n",
        ),
        (["gpt", "model.n_layer=range(3)"], "give each as a change of its own"),
        (["model=gpt seed=0 model.n_layer=1,2", NORM], "the ablation chooses seed"),
        (["model=gpt model.n_layer=1,2", NORM], "several values: this command takes one value"),
        (["gpt", "'"], "No closing quotation"),
        (["gpt", NORM, "--seeds", "0"], "--seeds 0 must be at least 1"),
        (["gpt", "optimizer.lr=1e-2", "--search"], "--search chooses it"),
        (["gpt", NORM, "data.split=[0.9,0,0.1]"], "data must be that of the base"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Ended],
    words: list[str],
    message: str,
    small_text: Path,
    tmp_path: Path,
) -> None:
    typed = [word.replace("{}", str(small_text)) for word in words]
    ended = command("ablate", *typed, "--folder", tmp_path / "ablation")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "ablation").exists()


# The trainings


@pytest.mark.long
def test_every_variant_is_trained_alike_and_its_effects_are_reported(
    tmp_path: Path, base: str, run: Run
) -> None:
    folder = tmp_path / "ablation"
    assert ablate(plan_ablation(base, ["optimizer.lr=0.5"]), folder, 1, 1, False, run) == 0
    runs = sorted(folder.glob("*/*/summary.json"))
    settings = [load_settings(path.with_name("config.yaml")) for path in runs]
    assert [(each.seed, each.optimizer["lr"]) for each in settings] == [(0, 0.5), (0, 1e-3)]
    assert len({(str(each.train), str(each.eval)) for each in settings}) == 1
    assert all(read_summary(path.parent).candidate for path in runs)  # test is not shown
    page = Page((folder / "report.html").read_text()).words
    assert "Effects of the changes" in page
    assert "no search: every variant has the base's rate" in page
    assert "one seed: not tested" in page


@pytest.mark.long
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, base: str, run: Run) -> None:
    folder, plan = tmp_path / "ablation", plan_ablation(base, ["optimizer.lr=0.5"])
    assert ablate(plan, folder, 2, 1, False, run) == 0
    runs = sorted(folder.glob("*/*/summary.json"))
    assert len(runs) == 4
    page = (folder / "report.html").read_text()
    assert (
        "optimizer.lr=0.5 added to the base gains" in Page(page).words
    )  # better, by two seeds of each
    before = {path: path.read_bytes() for path in runs[:-1]}
    runs[-1].unlink()  # as one that was killed before it had a summary
    assert ablate(plan, folder, 2, 1, False, run) == 0
    assert {path: path.read_bytes() for path in runs[:-1]} == before
    assert len([*folder.glob("*/*/summary.json")]) == 4
    with pytest.raises(UsageError, match="holds another ablation"):
        ablate(plan_ablation(base, ["optimizer.lr=0.4"]), folder, 2, 1, False, run)


@pytest.mark.long
def test_with_a_search_every_variant_has_the_same_trials(
    tmp_path: Path, base: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (Stage("1-rate", RATE, (1e-2, 1e-1)), Stage("2-init", INIT, ("default", "xavier")))
    for module in (tuning_plan, search):
        monkeypatch.setattr(module, "STAGES", few)
    folder = tmp_path / "ablation"
    plan = plan_ablation(base, ["train.clip=0.5", "model.n_embd=4"])
    assert ablate(plan, folder, 1, 1, True, run) == 0
    for variant in plan.variants:
        assert len([*folder.glob(f"{variant.name}/[1-9]-*/*/summary.json")]) == 3
        assert len([*folder.glob(f"{variant.name}/chosen/*/summary.json")]) == 1
    assert "was searched with 3 trials" in (folder / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("search", [[], ["--search"]], ids=["rate of the base", "searched"])
def test_a_killed_command_goes_on_to_the_same_effects(
    tmp_path: Path, base: str, search: list[str]
) -> None:
    """In processes of its own, two trainings at a time: SIGKILL leaves no time to say anything."""
    changes = ["train.clip=0.5", "model.n_embd=4"]

    def started(name: str) -> subprocess.Popen[str]:
        words = [base, *changes, *search, "--folder", name, "--seeds", "2", "--workers", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "harness.ablate", *words],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def runs(name: str) -> list[Path]:
        # Not by rglob, which raises where a folder is renamed while it looks.
        places = os.walk(tmp_path / name)
        found = [Path(place) for place, _, files in places if "config.yaml" in files]
        return sorted(path.relative_to(tmp_path / name) for path in found)

    def statuses() -> list[str | None]:
        return [status_of(tmp_path / "cut" / run) for run in runs("cut")]

    def effects(said: str) -> list[str]:
        """All that is said but for the plan, whose seconds are of the moment."""
        return [line for line in said.splitlines() if "FLOPs" not in line]

    whole = started("whole").communicate(timeout=GUARD)[0]
    killed = started("cut")
    wait_until(lambda: statuses().count("finished") >= 3, lambda: killed.poll() is None)
    killed.kill()
    killed.communicate()
    wait_until(lambda: "running" not in statuses())  # its trainings leave, too
    again = started("cut")
    assert effects(again.communicate(timeout=GUARD)[0]) == effects(whole)
    assert again.returncode == 0
    assert runs("cut") == runs("whole")
    for run in runs("whole"):
        assert trace(tmp_path / "cut" / run) == trace(tmp_path / "whole" / run)


# The effects

SIZES = np.full(4 * K, 64)
TOKENS = Tokens(SIZES, int(SIZES[1:].sum()))
COMPARANDS = [
    *(Comparand(f"c{n}", "added", "base", f"add-{n}") for n in range(3)),
    *(Comparand(f"c{n}", "left out", f"without-{n}", "all") for n in range(3)),
    Comparand("all changes", "all at once", "base", "all"),
]
VARIANTS = sorted({name for each in COMPARANDS for name in (each.within, each.without)})


def variants(generator: np.random.Generator, seeds: int = 3) -> dict[str, list[np.ndarray]]:
    """Nats of every token of equal variants: the text's own, each variant's drift over the pages,
    and seeds that differ."""
    drifts = 0.05 * text(generator, HARD, len(VARIANTS))
    return {
        name: [
            np.repeat(drift, 4)[1:]
            + generator.normal(0, 0.01)
            + generator.normal(0, 0.3, len(SIZES) - 1)
            for _ in range(seeds)
        ]
        for name, drift in zip(VARIANTS, drifts, strict=True)
    }


@pytest.fixture
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "DRAWS", 1000)


def false_findings(trials: int) -> int:
    """How many ablations of changes that do nothing find an effect."""
    generator = np.random.default_rng(0)
    found = (find_effects(variants(generator), TOKENS, COMPARANDS) for _ in range(trials))
    return sum(any(effect.is_significant for effect in own) for own in found)


@pytest.mark.usefixtures("_fewer_draws")
def test_changes_that_do_nothing_have_seldom_an_effect() -> None:
    """More than 7 of 60 have a probability of 2 % if 5 % are wrong."""
    assert false_findings(60) <= 7


@pytest.mark.long
@pytest.mark.usefixtures("_fewer_draws")
def test_changes_that_do_nothing_have_an_effect_in_five_percent() -> None:
    assert false_findings(1000) <= 0.05 * 1000


@pytest.mark.usefixtures("_fewer_draws")
def test_without_the_correction_they_would_have_one_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(effects_of, "holm", list)
    monkeypatch.setattr(effects_of, "LEVEL", 0.8)
    assert false_findings(20) > 7


@pytest.mark.usefixtures("_fewer_draws")
def test_a_planted_effect_is_found_and_has_its_sign() -> None:
    losses = variants(np.random.default_rng(1))
    losses["add-0"] = [own - 20.0 for own in losses["add-0"]]
    losses["all"] = [own + 20.0 for own in losses["all"]]
    found = {
        (effect.comparand.change, effect.comparand.how): effect
        for effect in find_effects(losses, TOKENS, COMPARANDS)
    }
    gain = 20.0 / np.log(2) / 64
    added = found["c0", "added"]
    assert added.gain == pytest.approx(gain, rel=0.02)
    assert added.is_significant
    assert all(found[f"c{n}", "left out"].gain == pytest.approx(-gain, rel=0.02) for n in range(3))
    assert all(found[f"c{n}", "left out"].is_significant for n in range(3))
    assert not found["c1", "added"].is_significant


@pytest.mark.usefixtures("_fewer_draws")
def test_one_seed_shows_no_effect_and_a_variant_without_a_score_has_none() -> None:
    losses = variants(np.random.default_rng(2), seeds=1)
    losses["add-0"] = [own - 20.0 for own in losses["add-0"]]
    del losses["add-1"]
    first, second, *_ = find_effects(losses, TOKENS, COMPARANDS)
    assert first.interval is not None
    assert not first.is_significant
    assert (second.gain, second.interval, second.seeds) == (None, None, (1, 0))


# Those of sweeps/


@pytest.mark.parametrize(
    ("name", "variants"), [("gpt_modern_parts", 16), ("wavenet_parts", 8), ("positions", 2)]
)
def test_the_ablations_of_sweeps_can_be_planned(name: str, variants: int) -> None:
    script = (REPOSITORY / "sweeps" / f"{name}.sh").read_text()
    words = shlex.split(script.partition("exec ")[2].replace("\\\n", ""))
    assert words[:3] == ["python", "-m", "harness.ablate"]
    base, *changes = words[3 : next(n for n, word in enumerate(words) if word[:2] == "--")]
    plan = plan_ablation(base, changes)
    assert len(plan.variants) == variants
    if name == "gpt_modern_parts":  # all changes together are that model
        everything = next(each.settings for each in plan.variants if each.name == "all")
        modern = read_settings(compose(["model=gpt_modern"]))
        spelled = {"positions": "rope", "rotary_theta": None}  # one of two ways to say it
        assert everything.model == modern.model | spelled
