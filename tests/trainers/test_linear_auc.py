import numpy as np
import pytest
import torch

from lib.losses.macro_auc import KINDS, macro_auc
from lib.trainers import fit_linear_auc
from lib.trainers.linear_auc import SMOOTH

RIDGES = (1e-3, 0.1, 10.0)


def data(n=60, d=4, rates=(0.4, 0.1)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.3
    noise = torch.randn(n, len(rates), generator=generator, dtype=torch.float64)
    place = (x[:, : len(rates)] + noise).argsort(0, descending=True).argsort(0)
    return x, (place < torch.tensor(rates) * n).long()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", SMOOTH)
@pytest.mark.parametrize("bias", [False, True])
def test_limit_gradient_of_the_loss_is_zero_there(kind, base, bias):
    """The module's loss, by autograd: at the solution the sum over labels plus the ridge has no slope."""
    x, y = data()
    weights = fit_linear_auc(x, y, kind, RIDGES, base, bias, tolerance=1e-8)
    inputs = torch.cat([x, torch.ones(len(x), 1)], dim=1) if bias else x
    for ridge, w in zip(RIDGES, weights, strict=True):
        w = w.clone().requires_grad_()
        penalty = ridge / 2 * w[:, : x.shape[1]].square().sum()
        loss = y.shape[1] * KINDS[kind](inputs @ w.T, y, base) + penalty
        (slope,) = torch.autograd.grad(loss, w)
        assert slope.abs().max() < 1e-7


def test_parity_scikit_learn():
    """Its C is the inverse of N lambda; class weights "balanced" are N / (2 n_c), half of ours."""
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = data()
    for kind, balance, factor in (("univariate", None, 1), ("reweighted", "balanced", 2)):
        ours = fit_linear_auc(x, y, kind, [0.05], bias=True)[0]
        for label, w in zip(y.T, ours, strict=True):
            peer = linear.LogisticRegression(C=factor / (0.05 * len(x)), class_weight=balance, tol=1e-10, max_iter=1000)
            peer.fit(x.numpy(), label.numpy())
            np.testing.assert_allclose(w[:-1], peer.coef_[0], atol=1e-5)
            assert w[-1].item() == pytest.approx(peer.intercept_[0], abs=1e-5)


def test_invariance_pairwise_ignores_bias_and_centre():
    x, y = data()
    plain = fit_linear_auc(x, y, "pairwise", RIDGES)
    torch.testing.assert_close(fit_linear_auc(x + 5, y, "pairwise", RIDGES), plain, atol=1e-4, rtol=0)
    with_bias = fit_linear_auc(x, y, "pairwise", RIDGES, bias=True)
    torch.testing.assert_close(with_bias[..., :-1], plain, atol=1e-4, rtol=0)
    assert with_bias[..., -1].abs().max() < 1e-6


def test_invariance_exponential_losses_with_a_bias_rank_alike():
    """Without ridge (nearly) the three minimisers are one: min over the bias of u1 and u2 are functions of L_pa."""
    x, y = data()
    scores = [x @ fit_linear_auc(x, y, kind, [1e-9], "exponential", True)[0, :, :-1].T for kind in KINDS]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(macro_auc(other, y), macro_auc(scores[0], y))


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_separable_and_one_sided(kind):
    x = torch.tensor([[2.0], [1.0], [-1.0], [-2.0]])
    y = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 1]])
    weights = fit_linear_auc(x, y, kind, [1e-4])
    assert weights.shape == (1, 2, 1)
    assert 3 < weights[0, 0, 0] < 20
    assert weights[0, 1, 0] == 0


def test_degenerate_arguments():
    x, y = data()
    with pytest.raises(ValueError, match="hinge"):
        fit_linear_auc(x, y, "pairwise", RIDGES, "hinge")
    with pytest.raises(ValueError, match="kind"):
        fit_linear_auc(x, y, "u3", RIDGES)
    with pytest.raises(ValueError, match="ridges > 0"):
        fit_linear_auc(x, y, "pairwise", [0.0])
    with pytest.raises(RuntimeError, match="after 1 steps"):
        fit_linear_auc(x, y, "pairwise", [1e-4], steps=1)
