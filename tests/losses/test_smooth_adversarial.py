"""The smooth adversarial comp-sum loss and TRADES: definitions, the upper bound, and the search for the worst input."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad

from lib.losses import (
    SmoothAdversarialCompSum,
    comp_sum_loss,
    gap_distances,
    kl_divergences,
    smooth_adversarial_loss,
    trades_loss,
)


def pair(n=16, classes=4, seed=0, move=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    moved = logits + move * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, moved, torch.randint(classes, (n,), generator=generator)


def test_value_by_hand():
    """Gaps (1, 3) move to (0, 1): a distance of sqrt(1 + 4); KL of a coin against (1/4, 3/4)."""
    logits, moved = torch.tensor([[3.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    y = torch.tensor([0])
    assert gap_distances(logits, moved, y).item() == pytest.approx(5**0.5)
    fit = F.cross_entropy(logits / 2, y).item()
    assert smooth_adversarial_loss(logits, moved, y, 1.0, 2.0, 0.3).item() == pytest.approx(fit + 0.3 * 5**0.5)
    coin, skew = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log()
    expected = 0.5 * torch.tensor([2.0, 2 / 3]).log().sum().item()
    assert kl_divergences(coin, skew).item() == pytest.approx(expected)
    assert trades_loss(coin, skew, y, 6.0).item() == pytest.approx(torch.tensor(2.0).log().item() + 6 * expected)


def test_parity_torch_kl_and_a_loop():
    logits, moved, y = pair()
    expected = F.kl_div(moved.log_softmax(-1), logits.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(kl_divergences(logits, moved), expected)
    for z, w, c, ours in zip(logits, moved, y, gap_distances(logits, moved, y), strict=True):
        moves = [(w[c] - w[k]) - (z[c] - z[k]) for k in range(len(z)) if k != c]
        torch.testing.assert_close(ours, torch.stack(moves).norm())


def test_limit_nothing_moves():
    """x' = x, or nu = 0, leaves the comp-sum loss; with lambda = 0 TRADES is cross-entropy."""
    logits, moved, y = pair()
    for other, nu in ((logits, 3.0), (moved, 0.0)):
        loss = smooth_adversarial_loss(logits, other, y, 1.5, 1.0, nu)
        torch.testing.assert_close(loss, comp_sum_loss(logits, y, 1.5))
    torch.testing.assert_close(trades_loss(logits, moved, y, 0.0), F.cross_entropy(logits, y))
    torch.testing.assert_close(trades_loss(logits, logits, y, 6.0), F.cross_entropy(logits, y))


@pytest.mark.parametrize("tau", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("rho", [0.5, 1.0, 3.0])
def test_limit_bounds_the_loss_at_the_moved_input(tau, rho):
    """nu = 1 / rho: never below the comp-sum loss at x', nor, over Phi_tau(1), below its zero-one loss."""
    coin = comp_sum_loss(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), tau)
    tight = 0.0
    for seed, move in itertools.product(range(40), (0.01, 1.0, 5.0)):
        logits, moved, y = pair(seed=seed, move=move)
        for z, w, c in zip(logits, moved, y, strict=True):
            ours = smooth_adversarial_loss(z[None], w[None], c[None], tau, rho, 1 / rho)
            there = comp_sum_loss(w / rho, c, tau)
            assert ours >= there - 1e-12
            assert ours / coin >= float(w.argmax() != c) - 1e-12
            tight = max(tight, (there / ours).item())
    assert tight > 0.9  # the bound is near somewhere, so the test could fail


def test_limit_below_one_the_bound_needs_more():
    """For tau = 0.5 the gradient by the gaps is not bounded by 1 / rho: a counterexample."""
    logits, moved = torch.tensor([[-4.0, 4.0]]), torch.tensor([[-6.0, 6.0]])
    y = torch.tensor([0])
    assert smooth_adversarial_loss(logits, moved, y, 0.5, 1.0, 1.0) < comp_sum_loss(moved, y, 0.5)


@pytest.mark.parametrize("rho", [0.3, 2.0])
def test_invariance_only_the_product_of_rho_and_nu_matters(rho):
    """L(rho z; rho, nu) = L(z; 1, nu rho): rho sets the scale of the logits and nothing else."""
    logits, moved, y = pair()
    ours = smooth_adversarial_loss(rho * logits, rho * moved, y, 1.5, rho, 0.4)
    torch.testing.assert_close(ours, smooth_adversarial_loss(logits, moved, y, 1.5, 1.0, 0.4 * rho))


def test_invariance_shift_of_the_logits():
    logits, moved, y = pair()
    torch.testing.assert_close(gap_distances(logits + 3, moved - 5, y), gap_distances(logits, moved, y))
    torch.testing.assert_close(kl_divergences(logits + 3, moved - 5), kl_divergences(logits, moved))


def test_gradcheck():
    logits, moved, y = pair(n=4)
    assert torch.autograd.gradcheck(
        lambda z, w: smooth_adversarial_loss(z, w, y, 1.5, 0.7, 0.5), (logits.requires_grad_(), moved.requires_grad_())
    )
    assert torch.autograd.gradcheck(lambda z, w: trades_loss(z, w, y, 2.0), (logits, moved))


def test_gradcheck_of_the_gaps_is_no_longer_than_one_over_rho():
    """|| d Phi_tau / dD || <= 1 / rho for tau >= 1; the class y has no gap, so its share is left out."""
    logits, _, y = pair(n=200)
    others = torch.ones_like(logits).scatter(1, y[:, None], 0.0)
    for tau, rho in itertools.product((1.0, 1.5, 2.0), (0.5, 2.0)):
        slope = grad(lambda z, tau=tau, rho=rho: comp_sum_loss(z / rho, y, tau, "sum"))(logits) * others
        assert slope.norm(dim=1).max() <= 1 / rho


def test_degenerate_no_move_has_no_gradient():
    logits, _, y = pair()
    slope = grad(lambda w: gap_distances(logits, w, y).sum())(logits)
    assert (slope == 0).all()
    with_nan = logits.clone()
    with_nan[0, 0] = torch.nan
    assert gap_distances(logits, with_nan, y).isnan().tolist() == [True] + [False] * 15


def test_degenerate_arguments():
    logits, moved, y = pair()
    with pytest.raises(ValueError, match="rho"):
        SmoothAdversarialCompSum(rho=0.0)
    with pytest.raises(ValueError, match="nu"):
        SmoothAdversarialCompSum(nu=-1.0)
    with pytest.raises(ValueError, match="tau"):
        SmoothAdversarialCompSum(tau=-1.0)
    with pytest.raises(ValueError, match="lam"):
        trades_loss(logits, moved, y, -1.0)
    for loss in (trades_loss, smooth_adversarial_loss):
        with pytest.raises(ValueError, match="one shape"):
            loss(logits, moved[:3], y)


def test_value_by_hand_search_on_a_linear_network():
    """Logits (w x, 0): the gap moves by w (x' - x), so the worst x' is at a corner and the distance eps |w|_1."""
    w = torch.tensor([2.0, -1.0, 0.5])
    x, y = torch.full((4, 3), 0.5), torch.tensor([0, 1, 0, 1])

    def net(inputs):
        return torch.stack([inputs @ w, torch.zeros(len(inputs))], dim=1)

    criterion = SmoothAdversarialCompSum(nu=2.0, eps=0.1, steps=20)
    loss = criterion(net, x, y, torch.Generator().manual_seed(0))
    expected = F.cross_entropy(net(x), y) + 2.0 * 0.1 * w.abs().sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    still = SmoothAdversarialCompSum(nu=2.0, eps=0.0)(net, x, y)
    torch.testing.assert_close(still, F.cross_entropy(net(x), y))


def test_invariance_search_leaves_no_gradient_behind():
    """Both terms are differentiated by the weights, x' is not; the search adds nothing to their gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        x, y = torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    criterion = SmoothAdversarialCompSum(nu=0.5, eps=0.1)
    criterion(net, x, y, torch.Generator().manual_seed(1)).backward()
    first = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    criterion(net, x, y, torch.Generator().manual_seed(1)).backward()
    for before, parameter in zip(first, net.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, before)
        assert before.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_device(dtype):
    logits, moved, y = pair()
    exact = smooth_adversarial_loss(logits, moved, y, 1.5, 0.7, 0.5)
    loss = smooth_adversarial_loss(logits.to(dtype), moved.to(dtype), y, 1.5, 0.7, 0.5)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert trades_loss(logits.to(dtype), moved.to(dtype), y).dtype == dtype
