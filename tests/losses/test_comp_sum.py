"""The comp-sum family: its members are known losses, its gradient is that of cross-entropy with a weight."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from lib.losses import CompSumLoss, comp_sum_loss, generalised_cross_entropy, phi_tau


def batch(n=32, classes=5, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def sums(logits, y):
    """u by its definition, over the wrong classes one by one."""
    return torch.stack(
        [sum((z[k] - z[c]).exp() for k in range(len(z)) if k != c) for z, c in zip(logits, y, strict=True)]
    )


@pytest.mark.parametrize(
    ("tau", "expected"), [(0.0, 0.50321), (0.5, 0.45211), (1.0, 0.40761), (1.7, 0.35461), (2.0, 0.33476)]
)
def test_value_by_hand(tau, expected):
    """u = e^-1 + e^-2 = 0.50321, and 1 / (1 + u) = 0.66524."""
    loss = comp_sum_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), tau)
    assert loss.item() == pytest.approx(expected, abs=6e-6)


def test_value_by_hand_tie_of_two_classes():
    """u = 1: Phi_tau(1) = (2^(1 - tau) - 1) / (1 - tau)."""
    zeros, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])
    for tau in (0.0, 0.5, 1.5, 2.0, 3.0):
        assert comp_sum_loss(zeros, y, tau).item() == pytest.approx((2 ** (1 - tau) - 1) / (1 - tau))
    assert comp_sum_loss(zeros, y, 1.0).item() == pytest.approx(math.log(2))


def test_parity_members():
    """tau = 0, 1, 1.7 and 2 are the sum of exponentials, cross-entropy, GCE with q = 0.7, and 1 - p_y."""
    logits, y = batch()
    p_y = logits.softmax(-1).gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(comp_sum_loss(logits, y, 0.0, "none"), sums(logits, y))
    torch.testing.assert_close(comp_sum_loss(logits, y, 1.0), F.cross_entropy(logits, y))
    torch.testing.assert_close(comp_sum_loss(logits, y, 1.7, "none"), (1 - p_y**0.7) / 0.7)
    torch.testing.assert_close(comp_sum_loss(logits, y, 1.7), generalised_cross_entropy(logits, y, 0.7))
    torch.testing.assert_close(comp_sum_loss(logits, y, 2.0, "none"), 1 - p_y)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.9, 1.2, 2.0, 2.5])
def test_parity_definition(tau):
    logits, y = batch()
    expected = ((1 + sums(logits, y)) ** (1 - tau) - 1) / (1 - tau)
    torch.testing.assert_close(comp_sum_loss(logits, y, tau, "none"), expected)
    torch.testing.assert_close(comp_sum_loss(logits, y, tau, "sum"), expected.sum())


@pytest.mark.parametrize("step", [1e-6, -1e-6, 1e-9])
def test_limit_at_cross_entropy(step):
    logits, y = batch()
    assert abs(comp_sum_loss(logits, y, 1 + step) - comp_sum_loss(logits, y, 1.0)) < 1e-5
    as_tensor = comp_sum_loss(logits, y, torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(as_tensor, F.cross_entropy(logits, y))


def test_limit_derivative_by_tau_at_one():
    """d/dtau Phi_tau at tau = 1 is -CE^2 / 2, in the branch for exactly 1 and beside it."""
    ce = torch.tensor(1.3, dtype=torch.float64)
    for tau in (1.0, 1 + 1e-7):
        slope = grad(lambda t: phi_tau(ce, t))(torch.tensor(tau, dtype=torch.float64))
        assert slope.item() == pytest.approx(-(1.3**2) / 2, rel=1e-5)


@given(st.floats(0, 3), st.floats(0, 3))
def test_invariance_order_in_tau(first, second):
    """The larger tau, the smaller the loss of every sample."""
    logits, y = batch(n=8)
    low, high = sorted((first, second))
    assert (comp_sum_loss(logits, y, high, "none") <= comp_sum_loss(logits, y, low, "none") + 1e-9).all()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_invariance_gradient_is_weighted_cross_entropy(tau):
    """dL/dz = p_y^(tau - 1) dCE/dz, sample by sample, found by autograd on both sides."""
    logits, y = batch()
    p_y = logits.softmax(-1).gather(1, y[:, None])
    ours = grad(lambda z: comp_sum_loss(z, y, tau, "sum"))(logits)
    plain = grad(lambda z: F.cross_entropy(z, y, reduction="sum"))(logits)
    torch.testing.assert_close(ours, p_y ** (tau - 1) * plain)


def test_invariance_vmap_carries_one_tau_a_model():
    logits, y = batch()
    taus = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    stacked = vmap(grad(lambda z, tau: comp_sum_loss(z, y, tau)), in_dims=(None, 0))(logits, taus)
    for row, tau in zip(stacked, taus.tolist(), strict=True):
        torch.testing.assert_close(row, grad(lambda z, tau=tau: comp_sum_loss(z, y, tau))(logits))


def test_invariance_class_forwards_and_shift():
    logits, y = batch()
    module = CompSumLoss(tau=1.3, reduction="sum")
    torch.testing.assert_close(module(logits, y), comp_sum_loss(logits + 7, y, 1.3, "sum"))
    assert "tau=1.3" in repr(module)
    grid = comp_sum_loss(logits.view(4, 8, 5), y.view(4, 8), 1.3, "none")
    torch.testing.assert_close(grid.flatten(), comp_sum_loss(logits, y, 1.3, "none"))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_gradcheck(tau):
    logits, y = batch(n=4)
    logits.requires_grad_()
    index = torch.tensor(tau, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: comp_sum_loss(z, y, index), (logits,))


def test_degenerate_huge_logits():
    """Certain and right: 0. Certain and wrong: the bound 1 / (tau - 1) above 1, CE at 1, infinite below."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    y = torch.tensor([0, 0])
    for tau, worst in ((1.5, 2.0), (2.0, 1.0), (1.0, 2e4), (0.5, math.inf)):
        loss = comp_sum_loss(logits, y, tau, "none")
        assert loss.tolist() == pytest.approx([0.0, worst])
    comp_sum_loss(logits, y, 1.5).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_degenerate_confident_sample_keeps_precision():
    """At margin 30 float32 holds p_y = 1; the loss is still u = e^-30 for every tau."""
    for tau in (0.0, 0.7, 1.5, 2.0):
        double = comp_sum_loss(torch.tensor([[30.0, 0.0]], dtype=torch.float64), torch.tensor([0]), tau)
        assert double.item() == pytest.approx(math.exp(-30), rel=1e-2)


def test_degenerate_empty_one_sample_and_nan():
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert comp_sum_loss(empty, none, 1.5, "none").shape == (0,)
    assert comp_sum_loss(empty, none, 1.5).isnan()
    logits, y = batch(n=1)
    assert comp_sum_loss(logits, y, 1.5) == comp_sum_loss(logits[0], y[0], 1.5)
    logits = torch.zeros(2, 3)
    logits[0, 1] = torch.nan
    assert comp_sum_loss(logits, torch.tensor([0, 0]), 1.5, "none").isnan().tolist() == [True, False]


def test_degenerate_arguments():
    logits, y = batch()
    for tau in (-0.1, math.nan):
        with pytest.raises(ValueError, match="tau must be"):
            comp_sum_loss(logits, y, tau)
    with pytest.raises(ValueError, match="tau must be"):
        CompSumLoss(tau=-1.0)
    with pytest.raises(ValueError, match="'avg'"):
        comp_sum_loss(logits, y, reduction="avg")
    with pytest.raises(ValueError, match=r"logits \(\.\.\., C\)"):
        comp_sum_loss(logits, y[:3])
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        comp_sum_loss(logits, y + 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    logits, y = batch()
    loss = comp_sum_loss(logits.to(dtype), y.to(torch.int32), torch.tensor(1.5, dtype=dtype))
    assert loss.dtype == dtype
    exact = comp_sum_loss(logits.to(dtype).double(), y, 1.5)
    assert loss.item() == pytest.approx(exact.item(), rel=10 * torch.finfo(dtype).eps)
