"""fp32 products on a CPU, by the BLAS and by oneDNN: one function, chosen by measuring, kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.compute import matmul, race
from harness.compute.device import Compute
from harness.compute.matmul import Matmul, current_matmul, use_matmul
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, cut_off, summary, trace, train

pytestmark = pytest.mark.skipif(not matmul.has_onednn(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = current_matmul()
    yield
    use_matmul(before)


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of products that oneDNN is given: all that are not empty."""
    given: list[tuple[int, ...]] = []
    own = matmul.by_onednn

    def watched(a_MK: Tensor, b_KN: Tensor, c_N: Tensor | None) -> Tensor:
        given.append((*a_MK.shape, b_KN.shape[1]))
        return own(a_MK, b_KN, c_N)

    monkeypatch.setattr(matmul, "by_onednn", watched)
    monkeypatch.setattr(matmul, "LEAST_WORK", 1)
    return given


def _layouts(rows: int, columns: int) -> list[Tensor]:
    """Matrices of this shape in every way that lies in memory: dense, turned, strided, repeated."""
    return [
        torch.randn(rows, columns),
        torch.randn(columns, rows).t(),
        torch.randn(rows, 2 * columns)[:, ::2],
        torch.randn(2 * rows, columns)[::2],
        torch.randn(rows, columns + 3)[:, 2 : 2 + columns],
        torch.randn(1, 1).expand(rows, columns),
        torch.randn(rows, 1).expand(rows, columns),
        torch.randn(1, columns).expand(rows, columns),
    ]


@pytest.mark.parametrize("shape", [*product((0, 1, 8, 33), (0, 1, 5, 64), (0, 1, 3, 64))])
def test_every_layout_has_the_product(
    shape: tuple[int, int, int], by_onednn: list[tuple[int, ...]]
) -> None:
    use_matmul("onednn")
    rows, inner, columns = shape
    biases = [torch.randn(columns), torch.randn(2 * columns)[::2], torch.randn(1, columns)]
    for a_MK, b_KN in product(_layouts(rows, inner), _layouts(inner, columns)):
        exact = a_MK.double() @ b_KN.double()
        torch.testing.assert_close(a_MK @ b_KN, exact.float(), rtol=1e-4, atol=1e-4)
        for c in biases:
            found = torch.addmm(c, a_MK, b_KN)
            torch.testing.assert_close(found, (exact + c).float(), rtol=1e-4, atol=1e-4)
            found = torch.addmm(c, a_MK, b_KN, beta=0.5, alpha=2)
            torch.testing.assert_close(found, (2 * exact + c / 2).float(), rtol=1e-4, atol=1e-4)
    assert bool(by_onednn) == (min(shape) > 0)


def test_gradients_are_those_of_blas(by_onednn: list[tuple[int, ...]]) -> None:
    x_BTC, weight, bias = torch.randn(3, 9, 16), torch.randn(24, 16), torch.randn(24)
    leaves = [each.requires_grad_() for each in (x_BTC, weight, bias)]

    def gradients(name: Matmul) -> tuple[Tensor, ...]:
        use_matmul(name)
        return torch.autograd.grad(F.linear(*leaves).square().sum(), leaves)

    exact = gradients("blas")
    assert not by_onednn
    torch.testing.assert_close(gradients("onednn"), exact)
    assert len(by_onednn) == 3  # forward, and backward for the input and the weight


def test_of_a_large_turned_matrix_and_a_small_one_the_small_one_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """oneDNN would copy the large one, which takes as long as the product."""
    firsts: list[tuple[int, ...]] = []
    own = matmul._by_onednn

    def watched(a_MK: Tensor, b_KN: Tensor, c_N: Tensor | None) -> Tensor:
        firsts.append(tuple(a_MK.shape))
        return own(a_MK, b_KN, c_N)

    monkeypatch.setattr(matmul, "_by_onednn", watched)
    use_matmul("onednn")
    gradient_KM, x_KN = torch.randn(400, 128), torch.randn(400, 64)
    for small_KN in (x_KN, torch.randn(64, 400).t()):
        found_MN = gradient_KM.t() @ small_KN
        assert found_MN.is_contiguous()
        exact_MN = (gradient_KM.double().t() @ small_KN.double()).float()
        torch.testing.assert_close(found_MN, exact_MN, rtol=1e-4, atol=1e-4)
    x_KN.t() @ gradient_KM
    torch.randn(128, 400) @ x_KN
    torch.randn(100, 512).t() @ torch.randn(100, 64)  # whose product would be a larger copy
    assert firsts == [(64, 400), (64, 400), (64, 400), (128, 400), (512, 100)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.int64])
def test_other_types_are_torchs_own(dtype: torch.dtype, by_onednn: list[tuple[int, ...]]) -> None:
    a, b, c = torch.ones(9, 4).to(dtype), torch.ones(4, 5).to(dtype), torch.ones(5).to(dtype)
    own = a @ b, torch.addmm(c, a, b)
    use_matmul("onednn")
    assert all(map(torch.equal, (a @ b, torch.addmm(c, a, b)), own))
    assert not by_onednn


def test_mistakes_are_in_torchs_words(by_onednn: list[tuple[int, ...]]) -> None:
    use_matmul("onednn")
    for other in (torch.ones(5, 4), torch.ones(4, 4).double()):
        with pytest.raises(RuntimeError) as found:
            torch.mm(torch.ones(9, 4), other)
        use_matmul("blas")
        with pytest.raises(RuntimeError) as own:
            torch.mm(torch.ones(9, 4), other)
        use_matmul("onednn")
        assert str(found.value) == str(own.value)
    assert not by_onednn


@pytest.mark.parametrize("shapes", [((4, 4), (4,)), ((1, 4, 4), (4, 4)), ((4,), (4, 4))])
def test_what_are_no_matrices_torch_refuses(shapes: tuple[tuple[int, ...], ...]) -> None:
    use_matmul("onednn")
    a, b = (torch.ones(shape) for shape in shapes)
    with pytest.raises(RuntimeError):
        torch.mm(a, b)
    with pytest.raises(RuntimeError):
        torch.addmm(torch.ones(4), a, b)


def test_each_computes_by_its_own() -> None:
    """Two runs in one process, with a choice each."""
    first, second = (Compute.choose("cpu", "fp32", matmul=name) for name in ("onednn", "blas"))
    for compute in (first, second, first):
        with compute.autocast():
            assert current_matmul() == compute.matmul == compute.describe()["matmul"]


def test_what_counts_flops_counts_the_same(by_onednn: list[tuple[int, ...]]) -> None:
    use_matmul("onednn")
    with FlopCounterMode(display=False) as counter:
        F.linear(torch.ones(9, 4), torch.ones(5, 4), torch.ones(5))
    assert counter.get_total_flops() == 2 * 9 * 4 * 5


def test_small_products_stay_with_blas(
    by_onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_matmul("onednn")
    monkeypatch.setattr(matmul, "LEAST_WORK", 1 << 20)
    torch.ones(4, 500) @ torch.ones(500, 524)
    torch.ones(64, 128) @ torch.ones(128, 127)
    assert not by_onednn
    torch.ones(64, 128) @ torch.ones(128, 128)
    assert by_onednn == [(64, 128, 128)]
    torch.ones(1, 512) @ torch.ones(512, 512)  # reading these takes longest
    torch.ones(0, 512) @ torch.ones(512, 512)
    assert by_onednn[1:] == [(1, 512, 512)]


@pytest.mark.parametrize(("width", "expected"), [(511, "blas"), (512, "onednn")])
def test_single_tokens_go_to_blas_where_no_weight_is_worth_it(width: int, expected: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(512, width))
    for outside in ("onednn", "blas"):
        use_matmul(outside)
        with matmul.blas_for_small(model):
            assert current_matmul() == (expected if outside == "onednn" else "blas")
        assert current_matmul() == outside


@pytest.mark.parametrize(
    ("seconds", "faster"),
    [
        ({"blas": 1.0, "onednn": 0.7, "bf16": 9.0}, "onednn"),
        ({"blas": 1.0, "onednn": 0.8, "bf16": 9.0}, "blas"),
        ({"blas": 1.0, "bf16": 0.1}, "blas"),
    ],
)
def test_the_faster_by_a_quarter(
    seconds: dict[str, float], faster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "race", lambda kind: seconds)
    assert race.faster_matmul() == faster


def test_the_choice_is_of_a_cpu_and_what_none_leaves_alone() -> None:
    assert Compute.choose("cpu", "fp32", matmul="onednn").matmul == current_matmul() == "onednn"
    assert Compute.choose("cpu", "fp32").matmul == "onednn"
    assert Compute.choose("cpu", "fp32", matmul="blas").matmul == current_matmul() == "blas"


def test_a_run_keeps_what_it_began_with(
    command: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_onednn: list[tuple[int, ...]],
) -> None:
    """Where the other is faster when it is resumed, it ends in the bits of an undisturbed one."""
    monkeypatch.setattr("harness.compute.device.faster_matmul", lambda: "onednn")
    train(tmp_path / "whole", *GPT_SMALL)
    cut_off(tmp_path / "cut", 3, monkeypatch, *GPT_SMALL)
    assert summary(tmp_path / "cut")["machine"]["matmul"] == "onednn"
    monkeypatch.setattr("harness.compute.device.faster_matmul", lambda: "blas")
    train(tmp_path / "other", *GPT_SMALL)
    assert summary(tmp_path / "other")["machine"]["matmul"] == current_matmul() == "blas"
    by_onednn.clear()
    assert command("train", f"run_dir={tmp_path / 'cut/run'}", "resume=true").code == 0
    assert by_onednn
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
