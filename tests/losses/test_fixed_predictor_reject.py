"""Rejection with a fixed predictor: hand values, the conditional minimiser against scipy, calibration, upper bound."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.func import grad, vmap

from lib.losses.fixed_predictor_reject import (
    FixedPredictorRejectLoss,
    calibrated_beta,
    conditional_minimiser,
    reject_surrogate,
    rejection_cost,
)

COSTS, ALPHAS = (0.05, 0.1, 0.2, 0.4), (0.5, 1.0, 2.0, 4.0)


def scores(n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = 2.0 * torch.randint(2, (n,), generator=generator) - 1
    return torch.randn(n, generator=generator, dtype=torch.float64), a.double()


def test_value_by_hand() -> None:
    """c = 0.1, alpha = 2: I_c = 0.60292, beta = 6.0292; l(0, -1) = e + 0.1 and l(0, +1) = 1/e + 0.1."""
    assert calibrated_beta(0.1, 2.0).item() == pytest.approx(6.02920, abs=1e-5)
    zero, one = torch.zeros(1), torch.ones(1)
    assert reject_surrogate(zero, -one).item() == pytest.approx(math.e + 0.1)
    assert reject_surrogate(zero, one).item() == pytest.approx(1 / math.e + 0.1)
    r, a = torch.tensor([1.0, 2.0, -1.0, 0.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert rejection_cost(r, a, 0.1).item() == pytest.approx((0 + 1 + 0.1 + 0.1) / 4)


@pytest.mark.parametrize("c", COSTS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_parity_minimiser_with_scipy(c: float, alpha: float) -> None:
    """The closed form against a numeric search over the expected surrogate, with both exponents."""
    for p in (0.01, c, 0.3, 0.9):
        for beta in (None, 1.0):
            weights = torch.tensor([p, 1 - p], dtype=torch.float64)

            def expected(value: float, beta: float | None = beta, weights: torch.Tensor = weights) -> float:
                r = torch.full((1,), value, dtype=torch.float64)
                each = [reject_surrogate(r, torch.full_like(r, sign), c, alpha, beta) for sign in (-1.0, 1.0)]
                return (weights * torch.stack(each)).sum().item()

            found = minimize_scalar(expected, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}).x
            closed = conditional_minimiser(torch.tensor(p, dtype=torch.float64), c, alpha, beta).item()
            assert closed == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("c", COSTS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_limit_sign_changes_at_the_cost(c: float, alpha: float) -> None:
    p = torch.linspace(0, 1, 1001, dtype=torch.float64)
    best = conditional_minimiser(p, c, alpha)
    assert torch.equal(best > 1e-12, p < c - 1e-9)
    assert conditional_minimiser(torch.tensor(c, dtype=torch.float64), c, alpha).item() == pytest.approx(0, abs=1e-12)
    if c < 0.2:
        assert (conditional_minimiser(p, c, 2.0, 1.0) < 0).all()  # the naive beta = 1 rejects everything


def test_limit_symmetric_cost_is_adaboosts_threshold() -> None:
    """c = 1/2, alpha = 2: beta = 2 cosh 1, and the sign changes at p = 1/2 as in binary classification."""
    assert calibrated_beta(0.5, 2.0).item() == pytest.approx(2 * math.cosh(1))
    p = torch.tensor([0.49, 0.51], dtype=torch.float64)
    assert conditional_minimiser(p, 0.5).sign().tolist() == [1, -1]


@pytest.mark.parametrize("c", COSTS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_invariance_upper_bound(c: float, alpha: float) -> None:
    """The surrogate is never below the target loss."""
    for r in torch.linspace(-8, 8, 161, dtype=torch.float64)[:, None]:
        for sign in (-1.0, 1.0):
            a = torch.full_like(r, sign)
            assert reject_surrogate(r, a, c, alpha) >= rejection_cost(r, a, c) - 1e-12


def test_gradcheck() -> None:
    r, a = scores()
    for beta in (None, 1.0):
        assert torch.autograd.gradcheck(lambda z, beta=beta: reject_surrogate(z, a, 0.1, 2.0, beta), r.requires_grad_())


def test_invariance_stack_of_costs() -> None:
    """Costs as tensors under vmap and grad give what numbers give one by one."""
    r, a = scores()
    costs = torch.tensor([0.05, 0.3], dtype=torch.float64)
    stacked = vmap(grad(lambda z, c: reject_surrogate(z, a, c)), (None, 0))(r, costs)
    for row, c in zip(stacked, costs.tolist(), strict=True):
        torch.testing.assert_close(row, grad(lambda z, c=c: reject_surrogate(z, a, c))(r))


def test_degenerate() -> None:
    r, a = scores()
    assert reject_surrogate(r * 1e6, a, 0.02).isfinite()  # exponents are clipped
    assert reject_surrogate(r * torch.nan, a).isnan()
    assert reject_surrogate(r[:0], a[:0]).isnan()
    assert rejection_cost(r * torch.nan, a, 0.2).item() == pytest.approx(0.2)
    for call in (
        lambda: reject_surrogate(r, a[:-1]),
        lambda: reject_surrogate(r, a, 0.0),
        lambda: reject_surrogate(r, a, 0.1, -1.0),
        lambda: FixedPredictorRejectLoss(0.5),
    ):
        with pytest.raises(ValueError, match=r"one shape|c:|alpha:"):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype: torch.dtype) -> None:
    r, a = (part.to(dtype) for part in scores())
    assert FixedPredictorRejectLoss()(r, a).dtype == dtype
    assert "beta=6.0292" in repr(FixedPredictorRejectLoss())
