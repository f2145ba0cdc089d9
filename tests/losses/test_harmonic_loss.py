import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from lib.losses import HarmonicHead, HarmonicLoss, harmonic_logits, harmonic_max
from lib.losses.harmonic_loss import harmonic_loss


def batch(n=12, classes=5, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    w = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    return x, w, torch.randint(classes, (n,), generator=generator)


# --- by hand ------------------------------------------------------------------


def test_value_by_hand():
    """x = 0, w_1 = (1, 0), w_2 = (0, 2), n = 2: p_1 = 1 / (1 + 1/4) = 0.8 and L = 0.22314."""
    x, w = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    assert harmonic_max(torch.tensor([1.0, 2.0]), 2.0).tolist() == pytest.approx([0.8, 0.2])
    assert harmonic_logits(x, w, 2.0).softmax(-1)[0].tolist() == pytest.approx([0.8, 0.2])
    assert HarmonicLoss(2.0)(harmonic_logits(x, w), torch.tensor([0])).item() == pytest.approx(0.22314, abs=5e-6)


def test_value_by_hand_default_exponent():
    assert HarmonicHead(16, 3).n == 4
    assert HarmonicHead(16, 3, 2.5).n == 2.5


# --- other routes to the same numbers --------------------------------------------


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 28.0])
def test_parity_with_explicit_powers(n):
    """The definition, power by power, from distances that scipy computes."""
    distance = pytest.importorskip("scipy.spatial.distance")
    x, w, y = batch()
    d = torch.from_numpy(distance.cdist(x.numpy(), w.numpy()))
    p = d**-n / (d**-n).sum(-1, keepdim=True)
    torch.testing.assert_close(harmonic_logits(x, w, n).softmax(-1), p, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(harmonic_max(d, n), p)
    expected = -p.gather(1, y[:, None]).log().mean()
    torch.testing.assert_close(harmonic_loss(harmonic_logits(x, w), y, n), expected, rtol=1e-6, atol=0)


def test_parity_exponent_in_head_or_in_loss():
    x, w, y = batch()
    torch.testing.assert_close(
        harmonic_loss(harmonic_logits(x, w, 3.0), y), harmonic_loss(harmonic_logits(x, w), y, 3.0)
    )


def test_parity_power_of_the_squared_distance_is_twice_the_exponent():
    x, w, _ = batch()
    square = torch.cdist(x, w).square() + 1e-8
    p = square**-3.0 / (square**-3.0).sum(-1, keepdim=True)
    torch.testing.assert_close(harmonic_logits(x, w, 6.0).softmax(-1), p)


def test_parity_cauchy_kernel():
    """With eps = 1 and n = 2 the probabilities are those of the kernel of t-SNE, 1 / (1 + d^2)."""
    x, w, _ = batch()
    kernel = 1 / (1 + torch.cdist(x, w).square())
    torch.testing.assert_close(harmonic_logits(x, w, 2.0, eps=1.0).softmax(-1), kernel / kernel.sum(-1, keepdim=True))


# --- limits -----------------------------------------------------------------------


def test_limit_at_the_class_vector():
    """p_y tends to 1 at a finite place: L < 1e-3 at x = w_y, where the gradient is finite."""
    _, w, _ = batch()
    x, y = w[:2].clone().requires_grad_(), torch.tensor([0, 1])
    loss = harmonic_loss(harmonic_logits(x, w, 4.0), y)
    loss.backward()
    assert loss.item() < 1e-3
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_limit_of_short_features_is_a_linear_head():
    """Class vectors of one length r and x -> 0: logits -n log d are n x.w / r^2 up to a constant and O(|x|^2)."""
    x, w, y = batch()
    w = 3 * F.normalize(w, dim=-1)
    gaps = []
    for t in (1e-3, 1e-4):
        linear = F.cross_entropy(4.0 * t * x @ w.T / 9, y)
        gaps.append((harmonic_loss(harmonic_logits(t * x, w, 4.0, eps=0.0), y) - linear).abs().item())
    assert gaps[0] < 1e-5
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.1)


def test_limit_large_exponent_is_the_nearest_class():
    x, w, _ = batch()
    p = harmonic_logits(x, w, 1e6).softmax(-1)
    torch.testing.assert_close(p, F.one_hot(torch.cdist(x, w).argmin(-1), 5).double())


# --- invariances ------------------------------------------------------------------


@given(st.floats(-2, 2), st.floats(-5, 5))
def test_invariance_scale_translation_rotation(log_scale, shift):
    """Of features and class vectors together; eps breaks the first, by little."""
    x, w, _ = batch()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    plain = harmonic_logits(x, w, 3.0).softmax(-1)
    moved = harmonic_logits(10**log_scale * x @ rotation + shift, 10**log_scale * w @ rotation + shift, 3.0).softmax(-1)
    torch.testing.assert_close(moved, plain, rtol=1e-3, atol=1e-5)


def test_invariance_gradient_is_orthogonal_to_scaling():
    """Hence sum x.dL/dx + sum w.dL/dw = 0; with a linear head it is not."""
    x, w, y = batch()
    for logits, expected in ((lambda a, b: harmonic_logits(a, b, 3.0, eps=0.0), True), (lambda a, b: a @ b.T, False)):
        dx, dw = grad(lambda a, b: F.cross_entropy(logits(a, b), y), argnums=(0, 1))(x, w)  # noqa: B023
        assert bool(((x * dx).sum() + (w * dw).sum()).abs() < 1e-12) is expected


def test_invariance_vmap_carries_the_exponent():
    x, w, y = batch()
    exponents = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    stacked = vmap(grad(lambda v, n: harmonic_loss(harmonic_logits(x, v), y, n)), (None, 0))(w, exponents)
    for row, n in zip(stacked, exponents.tolist(), strict=True):
        torch.testing.assert_close(row, grad(lambda v: harmonic_loss(harmonic_logits(x, v, n), y))(w))  # noqa: B023


# --- gradients --------------------------------------------------------------------


@pytest.mark.parametrize("n", [0.5, 4.0])
def test_gradcheck(n):
    x, w, y = batch(4)
    inputs = (x.requires_grad_(), w.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: harmonic_loss(harmonic_logits(a, b, n), y), inputs)


# --- degenerate input -------------------------------------------------------------


def test_degenerate_far_features_forget_the_class():
    """Seen from far away all classes are equally far: the loss tends to log C, not to infinity, and stays finite."""
    _, w, y = batch()
    x = torch.full((12, 6), 1e9, dtype=torch.float64, requires_grad=True)
    loss = harmonic_loss(harmonic_logits(x, w, 4.0), y)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_degenerate_equal_class_vectors():
    x, w, y = batch()
    assert harmonic_loss(harmonic_logits(x, w[:1].expand(5, 6), 4.0), y).item() == pytest.approx(math.log(5))


def test_degenerate_nan_and_empty():
    x, w, y = batch(3)
    x[1, 0] = torch.nan
    assert harmonic_logits(x, w).isnan().any(-1).tolist() == [False, True, False]
    assert harmonic_loss(harmonic_logits(x, w), y).isnan()
    assert harmonic_loss(harmonic_logits(x[:0], w), y[:0]).isnan()
    assert HarmonicHead(6, 5).double()(x[0]).shape == (5,)


def test_degenerate_arguments():
    x, w, _ = batch()
    for call in (
        lambda: harmonic_logits(x[:, :3], w),
        lambda: harmonic_logits(x, w, 0.0),
        lambda: HarmonicHead(0, 3),
        lambda: HarmonicHead(3, 1),
        lambda: HarmonicHead(3, 3, -1.0),
        lambda: HarmonicLoss(0.0),
    ):
        with pytest.raises(ValueError):
            call()


# --- dtypes and devices -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    x, w, y = batch()
    loss = harmonic_loss(harmonic_logits(x.to(dtype), w.to(dtype), 2.0), y)
    assert loss.dtype == dtype
    expected = harmonic_loss(harmonic_logits(x, w, 2.0), y).item()
    assert loss.item() == pytest.approx(expected, rel=20 * torch.finfo(dtype).eps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    x, w, _ = batch()
    torch.testing.assert_close(harmonic_logits(x.cuda(), w.cuda(), 4.0).cpu(), harmonic_logits(x, w, 4.0))
