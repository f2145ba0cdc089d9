import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, stack_module_state, vmap

from lib._torchvision import torchvision
from lib.losses import PolyLoss, drop_front, series_coefficients, sigmoid_poly_loss, truncated_series
from lib.losses.poly_loss import poly_loss

REDUCTIONS = ("mean", "sum", "none")


def batch(n=32, classes=5, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def p_true(logits, target):
    return logits.softmax(-1).gather(-1, target[..., None]).squeeze(-1)


# --- by hand -----------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "expected"), [(0.0, 0.40761), (1.0, 0.74237), (2.0, 1.07712), (-1.0, 0.07285)])
def test_value_by_hand(epsilon, expected):
    """p_t = e^2 / (e^2 + e + 1) = 0.66524 and CE = 0.40761, so L = 0.40761 + 0.33476 epsilon."""
    loss = poly_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), epsilon)
    assert loss.item() == pytest.approx(expected, abs=6e-6)


def test_value_by_hand_focal_and_two_coefficients():
    """One even guess among two classes: p_t = 1/2, so every power of 1 - p_t is a power of one half."""
    logits, target = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])
    log2 = math.log(2)
    assert poly_loss(logits, target, 3.0, gamma=2.0).item() == pytest.approx(log2 / 4 + 3 / 8)
    assert poly_loss(logits, target, [1.0, 4.0]).item() == pytest.approx(log2 + 1 / 2 + 4 / 4)
    assert poly_loss(logits, target, [1.0, 4.0], gamma=1.0).item() == pytest.approx(log2 / 2 + 1 / 4 + 4 / 8)


def test_value_by_hand_label_smoothing():
    """Uniform prediction over four classes: p_t = 1/4 whatever the smoothed target, so 1 - p_t = 3/4."""
    loss = poly_loss(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([2]), 2.0, label_smoothing=0.3)
    assert loss.item() == pytest.approx(math.log(4) + 2 * 3 / 4)


def test_value_by_hand_alpha_weighs_both_terms():
    """p_t = 1/2 for both labels; positives count 1/4, negatives 3/4."""
    loss = sigmoid_poly_loss(torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0]), 1.0, 2.0, 0.25, "none")
    whole = math.log(2) / 4 + 1 / 8
    assert loss.tolist() == pytest.approx([whole / 4, 3 * whole / 4])


def test_value_by_hand_coefficients():
    assert series_coefficients(4, [2.0, -0.25]).tolist() == pytest.approx([3, 1 / 4, 1 / 3, 1 / 4])
    assert drop_front(3) == pytest.approx((-1, -1 / 2, -1 / 3))
    assert series_coefficients(4, drop_front(2)).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])


# --- parity with other implementations ---------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_parity_cross_entropy(reduction, smoothing):
    logits, target = batch()
    expected = F.cross_entropy(logits, target, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(poly_loss(logits, target, 0.0, 0.0, smoothing, reduction), expected)


def test_parity_explicit_soft_target():
    """The definition written out: y smoothed, CE = -sum y log p, 1 - p_t = sum y (1 - p)."""
    logits, target = batch()
    soft = 0.8 * F.one_hot(target, 5) + 0.2 / 5
    cross_entropy = -(soft * logits.log_softmax(-1)).sum(-1)
    miss = (soft * (1 - logits.softmax(-1))).sum(-1)
    expected = miss**1.5 * cross_entropy + 2 * miss**2.5
    torch.testing.assert_close(poly_loss(logits, target, 2.0, 1.5, 0.2, "none"), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_parity_torchvision_focal(gamma, alpha):
    logits, _ = batch(scale=6.0)
    target = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    expected = torchvision().ops.sigmoid_focal_loss(logits, target, alpha=-1 if alpha is None else alpha, gamma=gamma)
    torch.testing.assert_close(sigmoid_poly_loss(logits, target, 0.0, gamma, alpha, "none"), expected)


def test_parity_two_class_softmax_is_sigmoid():
    logits, target = batch(classes=2)
    binary = sigmoid_poly_loss(logits[:, 1] - logits[:, 0], target, 1.5, 2.0)
    torch.testing.assert_close(poly_loss(logits, target, 1.5, 2.0), binary)


# --- the series ---------------------------------------------------------------


@given(st.floats(0.2, 0.999), st.floats(-1, 5), st.floats(0, 4))
def test_limit_series(p, epsilon, gamma):
    """400 terms against the closed form; the remainder is below 0.8^401 / (401 * 0.2)."""
    p_t = torch.tensor(p, dtype=torch.float64)
    logits = torch.stack([p_t.log(), (1 - p_t).log()])[None]
    closed = poly_loss(logits, torch.tensor([0]), epsilon, gamma)
    assert truncated_series(p_t, 400, epsilon, gamma).item() == pytest.approx(closed.item(), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("terms", [1, 5, 50])
def test_limit_remainder_bound(terms):
    p_t = torch.linspace(0.05, 0.99, 50, dtype=torch.float64)
    remainder = -p_t.log() - truncated_series(p_t, terms)
    assert (remainder > -1e-15).all()
    assert (remainder <= (1 - p_t) ** (terms + 1) / ((terms + 1) * p_t) + 1e-15).all()


def test_limit_drop_front_leaves_the_tail():
    logits, target = batch()
    q = 1 - p_true(logits, target)
    expected = -(1 - q).log() - q - q**2 / 2 - q**3 / 3
    torch.testing.assert_close(poly_loss(logits, target, drop_front(3), reduction="none"), expected)


def test_limit_gradient_in_p():
    """dL/dp_t = -(1/p_t + epsilon), and with all of the first J terms dropped -(1-p_t)^J / p_t."""
    margin = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    p_t, ones = torch.sigmoid(-margin), torch.ones(9)
    (dp,) = torch.autograd.grad(p_t.sum(), margin, retain_graph=True)
    for epsilon, expected in [
        (2.0, -(1 / p_t + 2)),
        (-0.5, -(1 / p_t - 0.5)),
        (drop_front(2), -((1 - p_t) ** 2) / p_t),
    ]:
        (dl,) = torch.autograd.grad(sigmoid_poly_loss(-margin, ones, epsilon, 0.0, reduction="sum"), margin)
        torch.testing.assert_close(dl / dp, expected.detach())


# --- invariances --------------------------------------------------------------


@given(st.floats(-1e3, 1e3))
def test_invariance_shift(shift):
    logits, target = batch(n=4)
    losses = poly_loss(logits + shift, target, 2.0, 1.0, 0.1, "none")
    torch.testing.assert_close(losses, poly_loss(logits, target, 2.0, 1.0, 0.1, "none"), rtol=1e-9, atol=1e-9)


def test_invariance_class_order_and_shape():
    logits, target = batch(n=6)
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = order.argsort()[target]
    torch.testing.assert_close(poly_loss(logits[:, order], renamed, 2.0), poly_loss(logits, target, 2.0))
    grid = poly_loss(logits.view(2, 3, 5), target.view(2, 3), 2.0, reduction="none")
    torch.testing.assert_close(grid.flatten(), poly_loss(logits, target, 2.0, reduction="none"))


def test_invariance_vmap_carries_one_epsilon_a_model():
    """Many models with their own epsilon and gamma in one call: values and gradients of the plain loop."""
    models = [torch.nn.Linear(4, 3, dtype=torch.float64) for _ in range(5)]
    parameters, _ = stack_module_state(models)
    epsilons, gammas = torch.linspace(-1, 4, 5).double(), torch.tensor([0.0, 0.0, 0.5, 1.0, 2.0]).double()
    x, target = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))

    def loss(p, epsilon, gamma):
        return poly_loss(torch.func.functional_call(models[0], p, (x,)), target, epsilon, gamma)

    batched = vmap(grad(loss))(parameters, epsilons, gammas)
    for i, model in enumerate(models):
        model.zero_grad()
        poly_loss(model(x), target, float(epsilons[i]), float(gammas[i])).backward()
        torch.testing.assert_close(batched["weight"][i], model.weight.grad)


def test_invariance_class_forwards():
    logits, target = batch()
    module = PolyLoss(epsilon=[1.0, -0.2], n=2, gamma=1.0, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(module(logits, target), poly_loss(logits, target, [1.0, -0.2], 1.0, 0.1, "sum"))
    shared = PolyLoss(epsilon=0.5, n=3)
    torch.testing.assert_close(shared(logits, target), poly_loss(logits, target, torch.full((3,), 0.5).double()))
    assert "epsilon=(0.5, 0.5, 0.5)" in repr(shared)


# --- gradients ----------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(gamma, smoothing):
    logits, target = batch(n=4)
    logits.requires_grad_()
    epsilon = torch.tensor([1.0, -0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, e: poly_loss(z, target, e, gamma, smoothing), (logits, epsilon))
    assert torch.autograd.gradgradcheck(lambda z: poly_loss(z, target, 2.0, gamma, smoothing), (logits,))


def test_gradcheck_sigmoid():
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    assert torch.autograd.gradcheck(lambda z: sigmoid_poly_loss(z, target, -0.5, 2.0, 0.25), (logits,))


# --- degenerate input ---------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_huge_logits(gamma, dtype):
    """Finite values and gradients where p_t is 1 or 0 to the last bit; a certain miss costs the margin plus epsilon."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = poly_loss(logits, torch.tensor([0, 0]), 2.0, gamma, reduction="none")
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.0, 2e4 + 2])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0, 0, 0], [-1, 1, 0]], dtype=dtype))


def test_degenerate_confident_sample_keeps_precision():
    """At margin 30 float32 holds p_t = 1, yet loss = (1 + epsilon) e^-30 to seven digits, and its gradient likewise."""
    logits = torch.tensor([[30.0, 0.0]], requires_grad=True)
    loss = poly_loss(logits, torch.tensor([0]), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.exp(-30), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1].item() == pytest.approx(3 * math.exp(-30), rel=1e-6)


def test_degenerate_empty_and_one_sample():
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert poly_loss(empty, none, reduction="none").shape == (0,)
    assert poly_loss(empty, none, reduction="sum").item() == 0
    assert poly_loss(empty, none).isnan()
    logits, target = batch(n=1)
    assert poly_loss(logits, target) == poly_loss(logits[0], target[0]) == poly_loss(logits, target, reduction="sum")


@pytest.mark.parametrize("where", [0, 1])
def test_degenerate_nan_stays_in_its_sample(where):
    logits = torch.zeros(2, 3)
    logits[0, where] = torch.nan
    loss = poly_loss(logits, torch.tensor([0, 0]), 1.0, 2.0, reduction="none")
    assert loss.isnan().tolist() == [True, False]


@pytest.mark.parametrize("label", [-1, 3, -100])
def test_degenerate_label_out_of_range(label):
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        poly_loss(torch.zeros(1, 3), torch.tensor([label]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -1.001}, "epsilon_1 = -1.001"),
        ({"epsilon": math.nan}, "epsilon_1 = nan"),
        ({"epsilon": [0.0, -0.6]}, "epsilon_2 = -0.6"),
        ({"gamma": -0.1}, "gamma must be at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"reduction": "avg"}, "'avg'"),
    ],
)
def test_degenerate_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        poly_loss(*batch(), **arguments)
    with pytest.raises(ValueError, match=message):
        PolyLoss(**{"n": len(arguments["epsilon"]) if isinstance(arguments.get("epsilon"), list) else 1, **arguments})


def test_degenerate_shapes_and_types():
    logits, target = batch()
    for bad in (target[:3], target[:, None]):
        with pytest.raises(ValueError, match=r"logits \(32, 5\)"):
            poly_loss(logits, bad)
    with pytest.raises(ValueError, match="C >= 2"):
        poly_loss(logits[:, :1], target * 0)
    with pytest.raises(TypeError, match="float32"):
        poly_loss(logits, target.float())
    with pytest.raises(ValueError, match="one shape"):
        sigmoid_poly_loss(logits, target)
    with pytest.raises(ValueError, match="alpha"):
        sigmoid_poly_loss(logits, logits > 0, alpha=1.5)
    with pytest.raises(ValueError, match="n must be"):
        PolyLoss(n=0)
    with pytest.raises(ValueError, match="Poly-2 needs 2"):
        PolyLoss(epsilon=[1.0], n=2)
    with pytest.raises(ValueError, match="cannot hold"):
        series_coefficients(1, [0.0, 0.0])


# --- dtypes and devices -------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_device(dtype):
    logits, target = batch()
    exact = poly_loss(logits, target, 2.0, 1.0, 0.1)
    loss = poly_loss(logits.to(dtype), target.to(torch.int32), torch.tensor(2.0, dtype=dtype), 1.0, 0.1)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=10 * torch.finfo(dtype).eps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    logits, target = batch()
    loss = PolyLoss(2.0).to("cuda")(logits.cuda(), target.cuda())
    torch.testing.assert_close(loss.cpu(), poly_loss(logits, target, 2.0))
