"""LDR and ALDR against the game that defines them, their limits, and the update of the temperatures."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.func import grad, vmap

from lib.losses import ALDRLoss, LDRLoss, aldr_loss, crammer_singer_loss, ldr_margins, unit_scores
from lib.losses.ldr_loss import ldr_loss

LOG5 = math.log(5)


def batch(n=16, classes=5, scale=2.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def raw(logits, y, lam, margin=0.0, reduction="none"):
    return ldr_loss(logits, y, lam, margin, normalise=False, reduction=reduction)


def objective(p, d, lam):
    """What the adversary gets for the distribution p, in numpy."""
    return p @ d - lam * np.sum(p * np.log(len(p) * np.maximum(p, 1e-300)))


# --- by hand -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "margin", "expected"), [(1.0, 0.0, -0.37989), (0.5, 0.0, -0.28311), (1.0, 0.1, -0.35199)]
)
def test_value_by_hand(lam, margin, expected):
    """d = (0, margin - 1): L = lam log((1 + e^((margin - 1) / lam)) / 2)."""
    loss = raw(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), lam, margin)
    assert loss.item() == pytest.approx(expected, abs=6e-6)


def test_value_by_hand_normalised():
    """Scores (3, -1, 0) have mean absolute value 4/3; softplus of zeros is log 2 for each class."""
    scores = unit_scores(torch.tensor([[3.0, -1.0, 0.0]]), softplus=False)
    torch.testing.assert_close(scores, torch.tensor([[2.25, -0.75, 0.0]]))
    torch.testing.assert_close(unit_scores(torch.zeros(1, 3)), torch.ones(1, 3))
    assert ldr_loss(torch.zeros(1, 4), torch.tensor([2]), 1.0, 0.0).item() == pytest.approx(0.0)
    margins = ldr_margins(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([2]), 0.5)
    assert margins.tolist() == [[-0.5, 2.5, 0.0]]


def test_value_by_hand_temperature_update():
    """Scores (1, 0) are (2, 0) in units; p = softmax(2, 0) = (0.8808, 0.1192), KL = log 2 - 0.3654 = 0.3278."""
    _, lam = aldr_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), torch.ones(1), lam0=1.0, alpha=2.0)
    assert lam.item() == pytest.approx(1 - 0.3278 / (2 * math.log(2)), abs=1e-4)


# --- the game ----------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.2, 1.0, 5.0])
def test_parity_worst_distribution_by_search(lam):
    """A constrained search over the simplex finds the closed form."""
    logits, y = batch(n=5)
    d = ldr_margins(logits, y, 0.3).numpy()
    for row, closed in zip(d, raw(logits, y, lam, 0.3), strict=True):
        found = minimize(
            lambda p, row=row: -objective(p, row, lam),
            np.full(5, 0.2),
            bounds=[(1e-9, 1)] * 5,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert -found.fun == pytest.approx(closed.item(), abs=1e-5)


@given(st.integers(0, 1000), st.floats(0.05, 20))
def test_limit_no_distribution_does_better(seed, lam):
    logits, y = batch(n=1, seed=seed)
    d = ldr_margins(logits, y, 0.1)[0].numpy()
    p = np.random.default_rng(seed).dirichlet(np.ones(5))
    assert objective(p, d, lam) <= raw(logits, y, lam, 0.1).item() + 1e-9


def test_limit_temperature_is_the_top_of_the_objective():
    """At the p of the update, the objective in lambda has derivative 0, found by differences."""
    logits, y = batch()
    lam0, alpha = 0.7, 3.0
    before = torch.full((16,), 0.5, dtype=torch.float64)
    _, lam = aldr_loss(logits, y, before, lam0, alpha, margin=0.0)
    p = (unit_scores(logits, softplus=False) / before[:, None]).softmax(-1) + 1e-5
    p = p / p.sum(-1, keepdim=True)
    d = ldr_margins(unit_scores(logits, softplus=False), y, 0.0)

    def value(price):
        kl = (p * (5 * p).log()).sum(-1)
        return (p * d).sum(-1) - price * kl - alpha * LOG5 / (2 * lam0) * (price - lam0) ** 2

    for step in (1e-3, -1e-3):
        assert (value(lam + step) < value(lam)).all()
    slope = (value(lam + 1e-5) - value(lam - 1e-5)) / 2e-5
    assert slope.abs().max() < 1e-8


def test_limit_temperatures_stay_in_their_interval():
    """lam0 for a uniform prediction, nearly lam0 (1 - 1/alpha) for a certain one, never outside."""
    certain = torch.zeros(2, 50, dtype=torch.float64)
    certain[:, 0] = 1.0  # 50 in units: e^50 against 49
    flat = torch.ones(2, 50, dtype=torch.float64)
    y, ones = torch.tensor([0, 3]), torch.ones(2, dtype=torch.float64)
    assert aldr_loss(flat, y, ones, 1.0, 2.0)[1].tolist() == pytest.approx([1.0, 1.0])
    assert aldr_loss(certain, y, ones, 1.0, 2.0)[1].tolist() == pytest.approx([0.5, 0.5], abs=2e-3)
    logits, y = batch(n=200, scale=20.0)
    _, lam = aldr_loss(logits, y, torch.full((200,), 3.0, dtype=torch.float64), 3.0, 1.5)
    assert ((lam >= 1.0) & (lam <= 3.0)).all()


# --- known losses in its limits ------------------------------------------------


def test_limit_cross_entropy():
    """lam = 1 without margin: CE - log K; any lam: CE at that temperature; with margin: additive-margin softmax."""
    logits, y = batch()
    plain = F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(raw(logits, y, 1.0), plain - LOG5)
    for lam in (0.2, 3.0):
        tempered = F.cross_entropy(logits / lam, y, reduction="none")
        torch.testing.assert_close(raw(logits, y, lam), lam * (tempered - LOG5))
    reduced = logits - 0.4 * F.one_hot(y, 5)
    shifted = F.cross_entropy(reduced / 2, y, reduction="none")
    torch.testing.assert_close(raw(logits, y, 2.0, 0.4), 2 * (shifted - LOG5))


def test_limit_hinge_and_mean():
    logits, y = batch(n=500)
    d = ldr_margins(logits, y, 0.3)
    assert (raw(logits, y, 1e-4, 0.3) - d.amax(-1)).abs().max() < 1e-3
    assert (raw(logits, y, 1e5, 0.3) - d.mean(-1)).abs().max() < 1e-3
    torch.testing.assert_close(crammer_singer_loss(logits, y, 0.3), d.amax(-1).mean())


def test_limit_of_a_stiff_price_is_ldr():
    """alpha -> infinity pins every temperature to lam0, and ALDR to LDR without softplus."""
    logits, y = batch()
    loss, lam = aldr_loss(logits, y, torch.zeros(16, dtype=torch.float64), 0.7, 1e9)
    torch.testing.assert_close(lam, torch.full((16,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(loss, ldr_loss(logits, y, 0.7, softplus=False), rtol=1e-6, atol=1e-7)


def test_limit_symmetric_at_high_temperature():
    """The mean of the d_k, summed over all labels, is constant: margin (K - 1); LDR at lam = 1 is not."""
    logits, _ = batch()
    for lam, constant in ((1e6, True), (1.0, False)):
        sums = sum(raw(logits, torch.full((16,), k), lam, 0.1) for k in range(5))
        assert bool(((sums - 0.4).abs() < 1e-3).all()) is constant


def test_parity_crammer_singer_loop():
    logits, y = batch()
    expected = [max(0.0, *(1 + z[k] - z[c] for k in range(5) if k != c)) for z, c in zip(logits, y, strict=True)]
    assert crammer_singer_loss(logits, y).item() == pytest.approx(float(np.mean(expected)))


# --- invariances --------------------------------------------------------------


@given(st.floats(0.01, 100))
def test_invariance_scale_without_softplus(scale):
    logits, y = batch(n=4)
    loss = ldr_loss(scale * logits, y, softplus=False, reduction="none")
    torch.testing.assert_close(loss, ldr_loss(logits, y, softplus=False, reduction="none"))


def test_invariance_fails_with_softplus():
    logits, y = batch()
    assert (ldr_loss(3 * logits, y, reduction="none") - ldr_loss(logits, y, reduction="none")).abs().max() > 0.1


def test_invariance_class_order_and_shape():
    logits, y = batch(n=6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(ldr_loss(logits[:, order], order.argsort()[y]), ldr_loss(logits, y))
    grid = ldr_loss(logits.view(2, 3, 5), y.view(2, 3), reduction="none")
    torch.testing.assert_close(grid.flatten(), ldr_loss(logits, y, reduction="none"))


def test_invariance_vmap_carries_one_temperature_a_model():
    logits, y = batch()
    lams = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    stacked = vmap(grad(lambda z, lam: ldr_loss(z, y, lam)), in_dims=(None, 0))(logits, lams)
    for row, lam in zip(stacked, lams.tolist(), strict=True):
        torch.testing.assert_close(row, grad(lambda z, lam=lam: ldr_loss(z, y, lam))(logits))
    many = vmap(lambda lam: aldr_loss(logits, y, torch.zeros(16, dtype=torch.float64), lam)[0])(lams)
    torch.testing.assert_close(many[1], aldr_loss(logits, y, torch.zeros(16, dtype=torch.float64), 1.0)[0])


def test_invariance_module_keeps_temperatures_by_index():
    """Two visits of the module are two calls of the function; other samples are not touched, evaluation none."""
    logits, y = batch(n=3)
    module, index = ALDRLoss(6, lam0=1.0).double(), torch.tensor([4, 0, 2])
    assert module.lam.tolist() == [1.0] * 6
    first, lam = aldr_loss(logits, y, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(module(logits, y, index), first)
    torch.testing.assert_close(module.lam[index], lam)
    assert module.lam[[1, 3, 5]].tolist() == [1.0] * 3
    second, _ = aldr_loss(2 - logits, y, lam)
    torch.testing.assert_close(module.eval()(2 - logits, y, index), second)
    torch.testing.assert_close(module.lam[index], lam)
    assert "lam" in module.state_dict()
    torch.testing.assert_close(LDRLoss(0.5, reduction="sum")(logits, y), ldr_loss(logits, y, 0.5, reduction="sum"))


# --- gradients ----------------------------------------------------------------


@pytest.mark.parametrize("softplus", [True, False])
def test_gradcheck(softplus):
    logits, y = batch(n=4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ldr_loss(z, y, 0.5, 0.1, softplus), (logits,))


def test_gradcheck_temperatures_are_constant_in_the_gradient():
    logits, y = batch(n=4)
    lam = torch.full((4,), 0.8, dtype=torch.float64)
    _, new = aldr_loss(logits, y, lam)
    assert not new.requires_grad
    ours = grad(lambda z: aldr_loss(z, y, lam)[0])(logits)
    held = grad(lambda z: ldr_loss(z, y, new, 0.1, softplus=False))(logits)
    torch.testing.assert_close(ours, held)


# --- degenerate input ---------------------------------------------------------


def test_degenerate_huge_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    for lam in (0.1, 1.0, 10.0):
        loss = ldr_loss(logits, torch.tensor([0, 0]), lam)
        loss.backward()
        assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_degenerate_zero_scores_empty_and_nan():
    y = torch.tensor([0, 0])
    assert ldr_loss(torch.zeros(2, 3), y, softplus=False).isnan()
    assert ldr_loss(torch.zeros(2, 3), y).isfinite()
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert ldr_loss(empty, none, reduction="none").shape == (0,)
    assert ldr_loss(empty, none).isnan()
    logits = torch.ones(2, 3)
    logits[0, 1] = torch.nan
    assert ldr_loss(logits, y, reduction="none").isnan().tolist() == [True, False]
    loss, lam = aldr_loss(torch.ones(1, 3), torch.tensor([1]), torch.zeros(1))
    assert loss.item() == pytest.approx(math.log((1 + 2 * math.exp(0.1)) / 3))
    assert lam.item() == pytest.approx(1.0)


def test_degenerate_arguments():
    logits, y = batch()
    for lam in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="lam must be positive"):
            LDRLoss(lam=lam)
    with pytest.raises(ValueError, match="lam0"):
        ALDRLoss(5, lam0=0.0)
    with pytest.raises(ValueError, match="alpha"):
        ALDRLoss(5, alpha=1.0)
    with pytest.raises(ValueError, match="'avg'"):
        ldr_loss(logits, y, reduction="avg")
    with pytest.raises(ValueError, match="K >= 2"):
        ldr_loss(logits, y[:3])
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        ldr_loss(logits, y + 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    logits, y = batch()
    loss = ldr_loss(logits.to(dtype), y.to(torch.int32), torch.tensor(0.5, dtype=dtype))
    assert loss.dtype == dtype
    exact = ldr_loss(logits.to(dtype).double(), y, 0.5)
    assert loss.item() == pytest.approx(exact.item(), abs=30 * torch.finfo(dtype).eps)
    adaptive, lam = aldr_loss(logits.to(dtype), y, torch.zeros(16, dtype=dtype))
    assert adaptive.dtype == lam.dtype == dtype
