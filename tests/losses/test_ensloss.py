import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from lib.losses import EnsLoss, box_cox_schedule, ens_derivatives, inverse_box_cox
from lib.losses.ensloss import FLOOR, ens_loss
from lib.losses.margin_losses import exponential_loss, hinge_loss, logistic_loss

LAMBDAS = [-1.0, -0.3, 0.0, 0.2, 1.0]


def batch(n=64, scale=2.0, dtype=torch.float64, seed=0):
    """Outputs, labels and draws."""
    random = torch.Generator().manual_seed(seed)
    output = scale * torch.randn(n, generator=random, dtype=dtype)
    return output, torch.randint(2, (n,), generator=random), torch.randn(n, generator=random, dtype=dtype)


def slopes(output, y, w, lam=0.0, sort=True):
    """B dL/ds_i."""
    return len(y) * (2 * y - 1) * grad(lambda f: ens_loss(f, y, w, lam, sort))(output)


# --- by hand -----------------------------------------------------------------


def test_value_by_hand():
    """lambda = 1, w = (-2, 0, 1/2): u = (0, 1, 3/2), g = (0, -1, -1); sorted by margins, and the tail halves a zero."""
    w = torch.tensor([-2.0, 0.0, 0.5], dtype=torch.float64)
    assert inverse_box_cox(w, 1.0).tolist() == pytest.approx([0, 1, 1.5])
    margins = torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64)
    assert ens_derivatives(margins, w, 1.0).tolist() == pytest.approx([-FLOOR, -1 - FLOOR, -1 - FLOOR])
    by_chance = ens_derivatives(margins, w, 1.0, sort=False)
    assert by_chance.tolist() == pytest.approx([-FLOOR, -1 - FLOOR, -1 - FLOOR])
    swapped = ens_derivatives(margins, w.flip(0), 1.0, sort=False)
    assert swapped.tolist() == pytest.approx([-1 / 2 - FLOOR, -1 - FLOOR, -FLOOR])


def test_value_by_hand_loss():
    """w = 0 draws u = 1 for every lambda: g = -1, but -1/4 at margin 4; L = (2 - 1) / 2 with margins (-2, 4)."""
    output, y = torch.tensor([2.0, 4.0], dtype=torch.float64), torch.tensor([0, 1])
    for lam in LAMBDAS:
        loss = ens_loss(output, y, torch.zeros(2, dtype=torch.float64), lam)
        assert loss.item() == pytest.approx((2 - 1) / 2, abs=1e-5)


def test_value_by_hand_transform_beyond_its_domain():
    """1 + lambda w <= 0 is continued by the limit: 0 on the left (lambda > 0), infinity on the right (lambda < 0)."""
    assert inverse_box_cox(torch.tensor([-2.0, -3.0]), 0.5).tolist() == [0, 0]
    assert inverse_box_cox(torch.tensor([2.0, 3.0]), -0.5).tolist() == [math.inf, math.inf]
    assert ens_derivatives(torch.tensor([0.0]), torch.tensor([3.0]), -0.5).tolist() == pytest.approx([-1])


def test_value_by_hand_schedule():
    random = torch.Generator().manual_seed(0)
    lam = box_cox_schedule(25, random, 10, (0.5, 1.0))
    assert lam.shape == (25,)
    assert lam[:10].tolist() == [0.0] * 10
    assert len(lam[10:20].unique()) == len(lam[20:].unique()) == 1
    assert lam[10] != lam[20]
    assert 0.5 <= lam[10:].min() <= lam.max() <= 1


# --- limits: fixed losses are special draws -----------------------------------


def test_limit_logistic_loss():
    """At margins up to 1, draws w = log sigmoid(-s) give the derivative of the logistic loss, in order of itself."""
    output, y, _ = batch()
    s = ((2 * y - 1) * output).clamp(max=1)
    output = (2 * y - 1) * s
    expected = grad(lambda f: logistic_loss(f, y))(output)
    torch.testing.assert_close(
        grad(lambda f: ens_loss(f, y, F.logsigmoid(-s)))(output), expected, rtol=0, atol=2 * FLOOR
    )


def test_limit_hinge_loss():
    """Draws that are 0 below margin 1 and minus infinity above give the hinge loss, everywhere."""
    output, y, _ = batch()
    s = (2 * y - 1) * output
    w = torch.where(s < 1, 0.0, -torch.inf)
    for lam in LAMBDAS[2:]:
        found = grad(lambda f, lam=lam: ens_loss(f, y, w, lam))(output)
        torch.testing.assert_close(found, grad(lambda f: hinge_loss(f, y))(output), rtol=0, atol=2 * FLOOR)


def test_limit_exponential_loss_between_zero_and_one():
    """The derivative of exp(-s) lies within [-1, 0) only for s >= 0: there draws w = -s give it."""
    s = torch.linspace(0, 1, 20, dtype=torch.float64)
    ones = torch.ones(20)
    found = grad(lambda f: ens_loss(f, ones, -s))(s)
    torch.testing.assert_close(found, grad(lambda f: exponential_loss(f, ones))(s), rtol=0, atol=2 * FLOOR)


def test_limit_unsorted_is_an_unhinged_loss_with_logarithmic_tail_on_average():
    """Without the sort the mean derivative is c phi'(s), phi = -s up to 1 and -1 - log s beyond: convex, calibrated."""
    s = torch.tensor([-3.0, 0.0, 0.9, 2.0, 5.0], dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    w = torch.randn(40_000, 5, generator=random, dtype=torch.float64)
    for lam in LAMBDAS:
        mean = vmap(lambda draws, lam=lam: ens_derivatives(s, draws, lam, sort=False))(w).mean(0)
        c = inverse_box_cox(w, lam).clamp(max=1).mean()
        torch.testing.assert_close(mean, -c / s.clamp(min=1), rtol=0.02, atol=0)


def test_limit_lambda_to_zero():
    w = batch()[2]
    for lam in (1e-6, -1e-6, torch.tensor(1e-6, dtype=torch.float64)):
        torch.testing.assert_close(inverse_box_cox(w, lam), w.exp(), rtol=1e-5, atol=0)


# --- what makes a loss legitimate ---------------------------------------------


@pytest.mark.parametrize("lam", LAMBDAS)
def test_invariance_convex_and_calibrated(lam):
    """Derivatives are non-decreasing in the margin, also across the tail, and lie in [-1 - floor, -floor]."""
    for seed in range(20):
        output, y, w = batch(seed=seed, scale=3.0)
        g = slopes(output, y, w, lam)
        by_margin = g[((2 * y - 1) * output).argsort()]
        assert (by_margin.diff() >= -1e-12).all()
        assert g.min() >= -1 - 1.001 * FLOOR
        assert g.max() <= -0.999 * FLOOR


@pytest.mark.parametrize("lam", LAMBDAS)
def test_invariance_half_of_a_batch_has_slope_one_whatever_lambda(lam):
    """u >= 1 exactly where w >= 0, so lambda shapes only the other half."""
    w = batch(4000)[2]
    assert torch.equal(inverse_box_cox(w, lam) >= 1, w >= 0)


def test_invariance_order_of_the_batch_and_of_the_draws():
    output, y, w = batch()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    g = slopes(output, y, w)
    torch.testing.assert_close(slopes(output[order], y[order], w[order]), g[order])
    torch.testing.assert_close(slopes(output, y, w[order]), g)  # sorted draws forget where they came from
    assert not torch.allclose(slopes(output, y, w[order], sort=False), slopes(output, y, w, sort=False))


def test_invariance_label_and_output_change_sign_together():
    output, y, w = batch()
    torch.testing.assert_close(ens_loss(-output, 1 - y, w), ens_loss(output, y, w))


@pytest.mark.parametrize("sort", [True, False])
def test_parity_stack_of_runs(sort):
    """Under `vmap`, with a lambda a run, each run gets what it gets alone."""
    runs = [batch(seed=seed) for seed in range(4)]
    output, y, w = (torch.stack(part) for part in zip(*runs, strict=True))
    lam = torch.tensor([-0.7, 0.0, 0.4, 1.0], dtype=torch.float64)
    stacked = vmap(grad(lambda f, *rest: ens_loss(f, *rest, sort=sort)))(output, y, w, lam)
    for row, (own, value) in enumerate(zip(runs, lam.tolist(), strict=True)):
        alone = grad(lambda f, own=own, value=value: ens_loss(f, own[1], own[2], value, sort))(own[0])
        torch.testing.assert_close(stacked[row], alone)


@pytest.mark.parametrize("sort", [True, False])
def test_gradcheck_below_the_tail(sort):
    """Up to margin 1 the derivatives are constants as long as no two margins change places."""
    _, y, w = batch(12)
    spread = torch.linspace(-3, 0.9, 12, dtype=torch.float64)[torch.randperm(12)]
    output = ((2 * y - 1) * spread).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: ens_loss(f, y, w, 0.5, sort), (output,))


# --- the module -----------------------------------------------------------------


def test_value_by_hand_module_counts_epochs():
    loss = EnsLoss(period=3, lam_range=(0.2, 0.4), generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(9):
        seen.append(loss.lam)
        loss.end_epoch()
    assert seen[:3] == [0.0] * 3
    assert len(set(seen[3:6])) == len(set(seen[6:])) == 1
    assert 0.2 <= min(seen[3:]) < max(seen[3:]) <= 0.4


def test_parity_module_and_function():
    output, y, _ = batch()
    w = torch.randn(64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for sort in (True, False):
        loss = EnsLoss(sort=sort, generator=torch.Generator().manual_seed(5))
        assert loss(output[:, None], y) == ens_loss(output, y, w, 0.0, sort)
        assert loss(output, y) != ens_loss(output, y, w, 0.0, sort), "fresh draws"


# --- edges ------------------------------------------------------------------------


def test_degenerate_sizes_and_values():
    one = torch.tensor([0.5]), torch.tensor([1]), torch.tensor([0.0])
    assert ens_loss(*one).item() == pytest.approx(-0.5, abs=1e-5)
    none = torch.zeros(0)
    assert ens_loss(none, none, none).isnan()
    huge = torch.tensor([1e30, -1e30])
    assert ens_derivatives(huge, torch.zeros(2)).tolist() == pytest.approx([-FLOOR, -1], abs=1e-5)
    nan = torch.tensor([torch.nan, 0.0])
    assert ens_loss(nan, torch.ones(2), torch.zeros(2)).isnan()


def test_degenerate_arguments():
    output, y, w = batch()
    with pytest.raises(ValueError, match="labels"):
        ens_loss(output, y[:3], w)
    with pytest.raises(ValueError, match="draws"):
        ens_loss(output, y, w[:3])
    for wrong in ({"period": 0}, {"lam_range": (1.0, -1.0)}):
        with pytest.raises(ValueError, match="period"):
            EnsLoss(**wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    output, y, w = batch()
    loss = ens_loss(output.to(dtype), y, w.to(dtype), 0.3)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(ens_loss(output, y, w, 0.3).item(), abs=4 * torch.finfo(dtype).eps)
