"""The head-to-head compares models of one size, at equal training FLOPs."""

from __future__ import annotations

import math

import pytest
import yaml

from harness.cli.hydra_app import compose
from harness.common.paths import CONF
from harness.compute.costs import parameters, step_flops
from harness.config.settings import read_settings
from harness.training.checks import check_settings
from tests.zoo_models import COUNTED, fresh, node, weightless

RECIPE = yaml.safe_load((CONF / "experiment" / "head_to_head.yaml").read_text())
NAMES = [
    name for name in RECIPE["hydra"]["sweeper"]["params"]["model"].split(",") if name not in COUNTED
]
BYTES = 256
PARAMETERS = 0.08  # of gpt's
FLOPS = 0.005  # of the budget: a training ends with a whole step


def count(name: str) -> int:
    return parameters(weightless(node(name), BYTES))["total"]


@pytest.fixture(scope="module")
def size() -> int:
    return count("gpt")


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str, size: int) -> None:
    assert size == pytest.approx(0.83e6, rel=0.01)
    assert count(name) == pytest.approx(size, rel=PARAMETERS)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_flops(name: str) -> None:
    chosen = read_settings(compose(["experiment=head_to_head", f"model={name}"]))
    check_settings(chosen)
    assert chosen.model == node(name)
    plan = chosen.train
    assert plan.budget == ("flops", 4e12)
    step = plan.batch_size * step_flops(lambda: fresh(chosen.model, BYTES), plan.seq_len)
    steps = math.ceil(plan.budget[1] / step)
    assert 100 < steps < 2000
    assert steps * step == pytest.approx(plan.budget[1], rel=FLOPS)


@pytest.mark.long
def test_every_job_of_the_ablations_can_be_trained() -> None:
    recipe = yaml.safe_load((CONF / "experiment" / "megabyte_ablations.yaml").read_text())
    params = recipe["hydra"]["sweeper"]["params"]
    assert math.prod(len(yaml.safe_load(f"[{values}]")) for values in params.values()) == 36
    for patch_size in (2, 4, 8):
        for kernel_sizes in ("[]", "[3,5,7]"):
            check_settings(
                read_settings(
                    compose(
                        [
                            "experiment=megabyte_ablations",
                            f"model.patch_size={patch_size}",
                            f"model.kernel_sizes={kernel_sizes}",
                            "model.cross_patch=2",
                            "model.n_layer_global=4",
                        ]
                    )
                )
            )
