"""The bound of the comp-sum family, against searches that know nothing of its formula."""

import math

import pytest
import torch
from scipy.optimize import minimize

from lib.losses import comp_sum_loss
from lib.theory import (
    best_conditional_risk,
    best_softmax,
    conditional_risk,
    h_consistency_bound,
    zero_one_regret,
)

TAUS = (0.0, 0.5, 1.0, 1.5, 1.9, 2.0, 2.5)


def distributions(count, classes, seed=0, spread=0.7):
    torch.manual_seed(seed)
    return torch.distributions.Dirichlet(torch.full((classes,), spread, dtype=torch.float64)).sample((count,))


def test_value_by_hand():
    """T_0 = 1 - sqrt(1 - b^2); T_1 = binary entropy's deficit; T_2 = b / n; b = 1 gives the loss of a tie."""
    b = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
    torch.testing.assert_close(h_consistency_bound(b, 0.0, 5), 1 - (1 - b**2).sqrt())
    entropy = -(torch.xlogy((1 + b) / 2, (1 + b) / 2) + torch.xlogy((1 - b) / 2, (1 - b) / 2))
    torch.testing.assert_close(h_consistency_bound(b, 1.0, 5), math.log(2) - entropy)
    torch.testing.assert_close(h_consistency_bound(b, 2.0, 5), b / 5)
    torch.testing.assert_close(h_consistency_bound(b, 3.0, 4), b / 32)
    tie = comp_sum_loss(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), 0.5)
    torch.testing.assert_close(h_consistency_bound(1.0, 0.5, 2), tie)


@pytest.mark.parametrize("tau", TAUS)
def test_parity_best_risk_by_search(tau):
    """The closed form of the infimum against a quasi-Newton search over the scores."""
    for p in distributions(4, 4, seed=1):

        def risk(scores, p=p):
            z = torch.tensor(scores, requires_grad=True)
            value = conditional_risk(p, z, tau)
            (slope,) = torch.autograd.grad(value, z)
            return value.item(), slope.numpy()

        starts = [torch.zeros(4).double(), *(6.0 * torch.eye(4).double())]
        found = min(minimize(risk, start.numpy(), jac=True, options={"maxiter": 500}).fun for start in starts)
        best = best_conditional_risk(p, tau).item()
        assert best <= found + 1e-9
        assert found == pytest.approx(best, abs=2e-3 if tau >= 2 else 1e-6)


def test_parity_conditional_risk_is_a_mean_of_losses():
    p, scores = distributions(6, 3), torch.randn(6, 3, dtype=torch.float64)
    for tau in TAUS:
        losses = torch.stack([comp_sum_loss(scores, torch.full((6,), k), tau, "none") for k in range(3)], dim=1)
        torch.testing.assert_close(conditional_risk(p, scores, tau), (p * losses).sum(1))


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_parity_bound_by_search(tau, classes):
    """Minimise regret minus bound over p and scores by random descent: never below zero, near it for two classes."""
    torch.manual_seed(2)
    p, scores = distributions(3000, classes, seed=3), 2 * torch.randn(3000, classes, dtype=torch.float64)
    margin = float("inf")
    for step in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003):
        b = zero_one_regret(p, scores)
        surplus = conditional_risk(p, scores, tau) - best_conditional_risk(p, tau)
        ratio = torch.where(b > 0.1, surplus / h_consistency_bound(b, tau, classes), torch.inf)
        assert (surplus >= h_consistency_bound(b, tau, classes) - 1e-12).all()
        keep = ratio.topk(30, largest=False).indices
        margin = ratio[keep[0]].item()
        p, scores = p[keep].repeat(100, 1), scores[keep].repeat(100, 1)
        p = (p.clamp_min(1e-12).log() + step * torch.randn_like(p)).softmax(1)
        scores = scores + step * torch.randn_like(scores)
    if classes == 2 and tau <= 2:
        assert margin < 1.05


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 1.0])
def test_limit_tight_at_a_tie_of_two_classes(tau, classes):
    b = 0.4
    p, scores = torch.zeros(classes).double(), torch.full((classes,), -60.0).double()
    p[:2], scores[:2] = torch.tensor([0.7, 0.3]), 0.0
    regret = conditional_risk(p, scores, tau) - best_conditional_risk(p, tau)
    assert regret.item() == pytest.approx(h_consistency_bound(b, tau, classes).item(), rel=1e-6)


def test_limit_in_tau_and_near_zero():
    """The branches join at tau = 1 (two classes) and 2, and the curve begins as stated in the paper."""
    b = torch.linspace(0, 1, 21, dtype=torch.float64)
    for tau in (1 - 1e-6, 1 + 1e-6):
        torch.testing.assert_close(h_consistency_bound(b, tau, 2), h_consistency_bound(b, 1.0, 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        h_consistency_bound(b, 2 - 1e-6, 3), h_consistency_bound(b, 2.0, 3), atol=1e-4, rtol=1e-4
    )
    for tau in (0.0, 0.5):
        assert (h_consistency_bound(b, tau, 3) >= b**2 / (2**tau * (2 - tau)) - 1e-12).all()
    for tau in (1.0, 1.3, 1.8):
        assert (h_consistency_bound(b, tau, 3) >= b**2 / (2 * 3 ** (tau - 1)) - 1e-12).all()


@pytest.mark.parametrize("tau", TAUS)
def test_limit_convex_and_increasing(tau):
    curve = h_consistency_bound(torch.linspace(0, 1, 201, dtype=torch.float64), tau, 4)
    assert curve[0].item() == pytest.approx(0.0, abs=1e-12)
    assert (curve.diff() > 0).all()
    assert (curve.diff(n=2) > -1e-12).all()


def test_invariance_of_the_best_scores():
    """Proportional to p^(1/(2 - tau)): p itself for cross-entropy, its root for the sum of exponentials."""
    p = distributions(10, 5)
    torch.testing.assert_close(best_softmax(p, 1.0), p)
    torch.testing.assert_close(best_softmax(p, 0.0), p.sqrt() / p.sqrt().sum(1, keepdim=True))
    torch.testing.assert_close(best_softmax(p, 1.5), p**2 / (p**2).sum(1, keepdim=True))
    assert (zero_one_regret(p, best_softmax(p, 2.0)) == 0).all()


def test_gradcheck_best_scores_are_stationary():
    for tau in (0.0, 0.5, 1.0, 1.5):
        p = (distributions(10, 5) + 0.01) / 1.05
        z = best_softmax(p, tau).log()
        slope = torch.func.grad(lambda z, p=p, tau=tau: conditional_risk(p, z, tau).sum())(z)
        assert slope.abs().max() < 1e-10


def test_degenerate_arguments_and_certain_classes():
    for arguments in [(1.1, 1.0, 3), (-0.1, 1.0, 3), (0.5, -1.0, 3), (0.5, 1.0, 1), (math.nan, 1.0, 3)]:
        with pytest.raises(ValueError, match="beta"):
            h_consistency_bound(*arguments)
    with pytest.raises(ValueError, match="tau"):
        best_softmax(torch.tensor([0.5, 0.5]), -1.0)
    certain = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    for tau in TAUS:
        assert best_conditional_risk(certain, tau).item() == pytest.approx(0.0, abs=1e-12)


def test_dtype_device():
    assert h_consistency_bound(0.5, 1.0, 3).dtype == torch.float64
    p = distributions(5, 3)
    assert best_conditional_risk(p.float(), 1.5).dtype == torch.float32
    torch.testing.assert_close(
        best_conditional_risk(p.float(), 1.5).double(), best_conditional_risk(p, 1.5), rtol=1e-5, atol=1e-6
    )
