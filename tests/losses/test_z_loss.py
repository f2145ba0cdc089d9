import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from lib.losses import SphericalOutputLayer, ZLoss, spherical_softmax_loss, taylor_softmax_loss
from lib.losses.textbook import brier_loss
from lib.losses.z_loss import (
    SphericalStatistics,
    spherical_softmax_of,
    spherical_statistics,
    squared_error_of,
    taylor_softmax_of,
    z_loss,
    z_loss_of,
    z_score,
)
from lib.metrics import count_operations

FAMILY = {
    "z": z_loss_of,
    "taylor": taylor_softmax_of,
    "spherical": spherical_softmax_of,
    "squared": squared_error_of,
}


def batch(n=16, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return outputs, torch.randint(classes, (n,), generator=generator)


def layer(d=6, classes=30):
    torch.manual_seed(0)
    return SphericalOutputLayer(d, classes).double()


# --- by hand ------------------------------------------------------------------


def test_value_by_hand():
    """o = (1, 2, 3): mu = 2, sigma = sqrt(2/3), so z = 1.22474 for the last class and softplus(1 - z) = 0.58708."""
    outputs, last = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2])
    assert z_score(spherical_statistics(outputs, last)).item() == pytest.approx(1.5**0.5)
    assert z_loss(outputs, last).item() == pytest.approx(0.58708, abs=5e-6)
    assert ZLoss(2.0, 3.0)(outputs, last).item() == pytest.approx(math.log1p(math.exp(2 * (3 - 1.5**0.5))) / 2)


def test_value_by_hand_family():
    """o = (1, -2): squared error 0 + 4, Taylor terms 2.5 and 1, spherical terms 1.5 and 4.5 at epsilon = 1/2."""
    outputs, first = torch.tensor([[1.0, -2.0]]), torch.tensor([0])
    assert squared_error_of(spherical_statistics(outputs, first)).item() == pytest.approx(4)
    assert taylor_softmax_loss(outputs, first).item() == pytest.approx(-math.log(2.5 / 3.5))
    assert spherical_softmax_loss(outputs, first, 0.5).item() == pytest.approx(-math.log(1.5 / 6))


@pytest.mark.parametrize("classes", [2, 5, 101])
def test_value_by_hand_largest_score(classes):
    """A one-hot output has the largest z-score there is, sqrt(C - 1)."""
    at = spherical_statistics(torch.eye(classes, dtype=torch.float64)[:1], torch.tensor([0]))
    assert z_score(at).item() == pytest.approx((classes - 1) ** 0.5)
    outputs, y = batch(200, classes)
    assert (z_score(spherical_statistics(outputs, y)) <= (classes - 1) ** 0.5 + 1e-12).all()


# --- the fast path and other routes to the same numbers --------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_parity_fast_path(name):
    """Statistics from W^T 1 and W^T W give the loss and both gradients of the dense outputs, to 1e-10."""
    last, y = layer(), torch.randint(30, (8,))
    h = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    dense = FAMILY[name](spherical_statistics(last(h), y)).mean()
    fast = FAMILY[name](last.statistics(h, y)).mean()
    cached = FAMILY[name](last.statistics(h, y, last.summary())).mean()
    expected = torch.autograd.grad(dense, (h, last.weight), retain_graph=True)
    for loss in (fast, cached):
        assert abs(loss - dense) < 1e-10
        for found, true in zip(torch.autograd.grad(loss, (h, last.weight)), expected, strict=True):
            torch.testing.assert_close(found, true, rtol=0, atol=1e-10)


def test_parity_dense_forms():
    outputs, y = batch()
    at = spherical_statistics(outputs, y)
    torch.testing.assert_close(z_loss(outputs, y, 3.0, 2.0), z_loss_of(at, 3.0, 2.0).mean())
    one_hot = F.one_hot(y, 7).double()
    torch.testing.assert_close(squared_error_of(at), (outputs - one_hot).square().sum(-1))
    taylor = 1 + outputs + outputs**2 / 2
    torch.testing.assert_close(taylor_softmax_loss(outputs, y), F.nll_loss((taylor / taylor.sum(-1, True)).log(), y))
    square = outputs**2 + 0.1
    torch.testing.assert_close(spherical_softmax_loss(outputs, y), F.nll_loss((square / square.sum(-1, True)).log(), y))


def test_parity_standard_scaler():
    """z_y is the true class's entry of the outputs standardised by scikit-learn."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    outputs, y = batch()
    scaled = torch.from_numpy(preprocessing.scale(outputs.numpy(), axis=1))
    torch.testing.assert_close(z_score(spherical_statistics(outputs, y)), scaled[torch.arange(16), y])


def test_parity_squared_error_of_probabilities_is_brier():
    outputs, y = batch()
    at = spherical_statistics(outputs.softmax(-1), y)
    torch.testing.assert_close(squared_error_of(at).mean(), brier_loss(outputs, y))


def test_parity_logistic_loss_of_the_score():
    """With a = 1 and b = 0 the Z-loss is binary cross-entropy of the logit z_y against a positive label."""
    outputs, y = batch()
    z = z_score(spherical_statistics(outputs, y))
    torch.testing.assert_close(z_loss(outputs, y, 1.0, 0.0), F.binary_cross_entropy_with_logits(z, torch.ones_like(z)))


# --- limits -----------------------------------------------------------------------


def test_limit_sharp_is_a_hinge():
    outputs, y = batch()
    hinge = (1.5 - z_score(spherical_statistics(outputs, y))).clamp_min(0).mean()
    torch.testing.assert_close(z_loss(outputs, y, 1e6, 1.5), hinge, rtol=0, atol=1e-6)


def test_limit_soft_is_linear():
    """For a -> 0, L - log(2)/a -> (b - z)/2: every sample pulls alike."""
    outputs, y = batch()
    linear = (1.5 - z_score(spherical_statistics(outputs, y))).mean() / 2
    torch.testing.assert_close(z_loss(outputs, y, 1e-5, 1.5) - math.log(2) / 1e-5, linear, rtol=0, atol=1e-4)


def test_limit_taylor_softmax_of_small_outputs():
    """Up to the second order the Taylor softmax is the softmax: the difference falls with the third power."""
    outputs, y = batch()
    gaps = [(taylor_softmax_loss(t * outputs, y) - F.cross_entropy(t * outputs, y)).abs().item() for t in (1e-2, 1e-3)]
    assert gaps[0] / gaps[1] == pytest.approx(1000, rel=0.2)


def test_limit_spherical_softmax_of_a_large_epsilon():
    outputs, y = batch()
    assert spherical_softmax_loss(outputs, y, 1e9).item() == pytest.approx(math.log(7))


# --- invariances ------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-100, 100), st.sampled_from([0.3, 1.0, 5.0]))
def test_invariance_shift_and_scale(log_scale, shift, a):
    outputs, y = batch()
    moved = z_loss(10**log_scale * outputs + shift, y, a, 2.0)
    torch.testing.assert_close(moved, z_loss(outputs, y, a, 2.0), rtol=1e-8, atol=1e-8)


def test_invariance_gradient():
    """Hence the gradient sums to zero and is orthogonal to the outputs; that of the squared error is not."""
    outputs, y = batch()
    for loss, expected in ((z_loss, True), (lambda o, y: squared_error_of(spherical_statistics(o, y)).mean(), False)):
        slope = grad(loss)(outputs, y)
        flat = torch.stack([slope.sum(-1), (slope * outputs).sum(-1)]).abs().max() < 1e-12
        assert bool(flat) is expected


def test_invariance_negative_scale_is_not_one():
    outputs, y = batch()
    assert not torch.isclose(z_loss(-outputs, y), z_loss(outputs, y))
    torch.testing.assert_close(spherical_softmax_loss(-outputs, y), spherical_softmax_loss(outputs, y))


def test_invariance_class_order():
    outputs, y = batch()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(z_loss(outputs[:, order], order.argsort()[y]), z_loss(outputs, y))


def test_invariance_vmap_carries_hyperparameters():
    outputs, y = batch()
    a, b = torch.tensor([0.3, 1.0, 4.0]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    stacked = vmap(grad(z_loss), in_dims=(None, None, 0, 0))(outputs, y, a, b)
    for row, first, second in zip(stacked, a.tolist(), b.tolist(), strict=True):
        torch.testing.assert_close(row, grad(z_loss)(outputs, y, first, second))


def test_invariance_cost_of_the_fast_path_to_classes():
    """The same operations for 100 and for 10,000 classes, where the dense way takes about 100 times as many."""

    def operations(classes, fast):
        last = SphericalOutputLayer(8, classes).to("meta").requires_grad_(False)
        summary, y = last.summary(), torch.empty(4, dtype=torch.long, device="meta")
        h = torch.empty(4, 8, device="meta", requires_grad=True)
        if fast:
            return count_operations(lambda: z_loss_of(last.statistics(h, y, summary)).mean().backward())
        return count_operations(lambda: z_loss(last(h), y).backward())

    assert operations(100, True) == operations(10_000, True)
    assert operations(10_000, False) > 90 * operations(100, False)


# --- gradients --------------------------------------------------------------------


@pytest.mark.parametrize("loss", [z_loss, taylor_softmax_loss, spherical_softmax_loss])
def test_gradcheck(loss):
    outputs, y = batch(5, 4)
    assert torch.autograd.gradcheck(lambda o: loss(o, y), (outputs.requires_grad_(),))


def test_gradcheck_fast_path():
    last = layer(3, 5)
    h, y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda h, w: z_loss_of(last.statistics(h, y)), (h, last.weight))


# --- degenerate input -------------------------------------------------------------


def test_degenerate_two_classes_have_no_gradient():
    """z_y = 1 or -1 whatever the outputs: nothing to learn from."""
    outputs, y = batch(6, 2)
    values = -F.logsigmoid(torch.where(outputs.argmax(-1) == y, 1.0, -1.0) - 1)
    torch.testing.assert_close(z_loss(outputs, y), values.double().mean())
    torch.testing.assert_close(grad(z_loss)(outputs, y), torch.zeros_like(outputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_equal_and_huge_outputs(dtype):
    y = torch.tensor([0, 1])
    equal = torch.full((2, 3), 5.0, dtype=dtype)
    assert z_loss(equal, y).item() == pytest.approx(math.log1p(math.e))  # z = 0
    huge = torch.tensor([[1e15, 0, -1e15], [1e15, 0, -1e15]], dtype=dtype, requires_grad=True)
    loss = z_loss(huge, y)
    loss.backward()
    assert torch.isfinite(loss)
    assert huge.grad is not None
    assert torch.isfinite(huge.grad).all()


@pytest.mark.parametrize("loss", [z_loss, taylor_softmax_loss, spherical_softmax_loss])
@pytest.mark.filterwarnings("ignore:var_mean")
def test_degenerate_nan_and_empty(loss):
    outputs, y = batch(3, 4)
    outputs[1, 2] = torch.nan
    assert loss(outputs, y).isnan()
    assert loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()
    one, label = batch(1, 4)
    assert torch.isfinite(loss(one, label))


def test_degenerate_arguments():
    outputs, y = batch()
    for call in (
        lambda: z_loss(outputs, y, 0.0),
        lambda: ZLoss(-1.0),
        lambda: z_loss(outputs[:, :1], 0 * y),
        lambda: z_loss(outputs, y[:3]),
        lambda: spherical_softmax_loss(outputs, y, 0.0),
        lambda: SphericalOutputLayer(0, 3),
        lambda: SphericalOutputLayer(3, 1),
    ):
        with pytest.raises(ValueError):
            call()


# --- dtypes and devices -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    outputs, y = batch()
    loss = ZLoss(1.0, 2.0)(outputs.to(dtype), y)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(z_loss(outputs, y, 1.0, 2.0).item(), rel=20 * torch.finfo(dtype).eps)
    assert isinstance(spherical_statistics(outputs.to(dtype), y), SphericalStatistics)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    outputs, y = batch()
    torch.testing.assert_close(ZLoss()(outputs.cuda(), y.cuda()).cpu(), z_loss(outputs, y))
