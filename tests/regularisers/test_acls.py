import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, stack_module_state, vmap

from lib.losses import registered_losses
from lib.regularisers import ACLS, acls_loss, acls_penalty, margin_penalty


def batch(n=32, classes=5, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


# --- by hand -------------------------------------------------------------------


def test_value_by_hand():
    """(3, 1, -1) with margin 1: (3 - 1)^2 + 0.1 ((2 - 1)^2 + (4 - 1)^2) / 2 = 4.5."""
    z = torch.tensor([[3.0, 1.0, -1.0]], dtype=torch.float64)
    assert acls_penalty(z, 1.0).tolist() == pytest.approx([4.5])
    assert acls_penalty(z, 1.0, neg_lambda=0.0).tolist() == pytest.approx([4.0])
    assert acls_penalty(z, 1.0, power=1.0).tolist() == pytest.approx([2 + 0.1 * 4 / 2])
    ce = F.cross_entropy(z, torch.tensor([1])).item()
    assert acls_loss(z, torch.tensor([1]), 0.2, 1.0).item() == pytest.approx(ce + 0.9)


def test_value_by_hand_equal_top_logits_both_count():
    assert acls_penalty(torch.tensor([3.0, 3.0, 0.0]), 1.0).item() == pytest.approx(4 + 4 + 0.1 * 4 / 2)


def test_parity_loop():
    """Class by class, with weights and power of its own."""
    logits, y = batch()
    losses = []
    for z, label in zip(logits.tolist(), y.tolist(), strict=True):
        top = max(z)
        rest = sum(max(0.0, top - v - 2.0) ** 2 for v in z if v < top)
        losses.append(0.7 * max(0.0, top - 2.0) ** 2 + 0.3 * rest / 4)
        losses[-1] = 0.2 * losses[-1] + math.log(sum(math.exp(v) for v in z)) - z[label]
    assert acls_loss(logits, y, 0.2, 2.0, 0.7, 0.3).item() == pytest.approx(sum(losses) / 32)


# --- what it becomes ----------------------------------------------------------------


def test_limit_cross_entropy():
    logits, y = batch()
    expected = F.cross_entropy(logits, y)
    torch.testing.assert_close(acls_loss(logits, y, 0.0, 1.0), expected)
    torch.testing.assert_close(acls_loss(logits, y, 0.5, 1e3), expected)


def test_limit_margin_smoothing():
    """A linear hinge on the other classes alone is MbLS, in value and in the gradient of every logit but the top."""
    logits, _ = batch()
    z = logits.clone().requires_grad_()
    ours, theirs = acls_penalty(z, 2.0, 0.0, 4 / 5, 1.0), margin_penalty(z, 2.0)
    torch.testing.assert_close(ours, theirs)
    (of_ours,), (of_theirs,) = (torch.autograd.grad(penalty.sum(), z) for penalty in (ours, theirs))
    top = F.one_hot(logits.argmax(-1), 5).bool()
    torch.testing.assert_close(of_ours[~top], of_theirs[~top])
    assert (of_ours[top] == 0).all()
    assert (of_theirs[top] > 0).any()


def test_limit_smoothing_function():
    """Beyond cross-entropy a logit feels nothing within the margin, and twice its weighted excess outside."""
    logits, y = batch(200)
    z = logits.clone().requires_grad_()
    with_penalty, without = (torch.autograd.grad(200 * acls_loss(z, y, a, 2.0, 0.8, 0.3), z)[0] for a in (0.5, 0.0))
    top = logits.amax(-1, keepdim=True)
    above, below = (logits - 2).clamp_min(0), (top - logits - 2).clamp_min(0)
    expected = torch.where(logits == top, 2 * 0.5 * 0.8 * above, -2 * 0.5 * 0.3 / 4 * below)
    torch.testing.assert_close(with_penalty - without, expected)
    assert 0.1 < (expected == 0).double().mean() < 0.9


# --- invariances and gradients --------------------------------------------------------


def test_invariance_shift_of_one_term_only():
    logits, _ = batch()
    torch.testing.assert_close(acls_penalty(logits + 7, 2.0, 0.0), acls_penalty(logits, 2.0, 0.0))
    assert (acls_penalty(logits - 1e3, 2.0, 1.0, 0.0) == 0).all(), "the first term is evaded by a shift"
    assert (acls_penalty(logits, 2.0, 1.0, 0.0) > 0).any()


def test_invariance_order_and_shape():
    logits, y = batch(n=6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        acls_loss(logits[:, order], order.argsort()[y], 0.2, 1.0), acls_loss(logits, y, 0.2, 1.0)
    )
    torch.testing.assert_close(acls_loss(logits.view(2, 3, 5), y.view(2, 3)), acls_loss(logits, y))
    torch.testing.assert_close(ACLS(0.7, 0.3, 0.2, 2.0)(logits, y), acls_loss(logits, y, 0.2, 2.0, 0.7, 0.3))


def test_invariance_vmap_carries_one_setting_a_model():
    models = [torch.nn.Linear(4, 3, dtype=torch.float64) for _ in range(3)]
    parameters, _ = stack_module_state(models)
    margins, powers = torch.tensor([0.0, 0.1, 0.3]).double(), torch.tensor([2.0, 1.0, 2.0]).double()
    x, y = 3 * torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))

    def loss(p, margin, power):
        return acls_loss(torch.func.functional_call(models[0], p, (x,)), y, 0.3, margin, 1.0, 0.5, power)

    batched = vmap(grad(loss))(parameters, margins, powers)
    for i, model in enumerate(models):
        acls_loss(model(x), y, 0.3, float(margins[i]), 1.0, 0.5, float(powers[i])).backward()
        torch.testing.assert_close(batched["weight"][i], model.weight.grad)


def test_gradcheck():
    """Finite differences of the loss with the top logit of the second term held, as the detachment means it."""
    logits, y = batch(n=4)
    held = logits.amax(-1, keepdim=True)
    predicted = (logits == held).double()

    def frozen(z):
        above = (predicted * (z - 1.5).clamp_min(0) ** 2).sum(-1)
        below = ((1 - predicted) * (held - z - 1.5).clamp_min(0) ** 2).sum(-1) / 4
        return F.cross_entropy(z, y) + 0.3 * (above + 0.2 * below).mean()

    z = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(frozen, (z,))
    ours, theirs = (torch.autograd.grad(f(z), z)[0] for f in (lambda v: acls_loss(v, y, 0.3, 1.5, 1.0, 0.2), frozen))
    torch.testing.assert_close(ours, theirs)


# --- degenerate input --------------------------------------------------------------------


def test_degenerate_huge_logits_empty_and_nan():
    huge = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    acls_loss(huge, torch.tensor([1])).backward()
    assert huge.grad is not None
    assert huge.grad.isfinite().all()
    assert acls_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()
    assert acls_penalty(torch.zeros(0, 3)).shape == (0,)
    assert acls_penalty(torch.tensor([[0.0, math.nan], [1.0, 0.0]])).isnan().tolist() == [True, False]


def test_degenerate_arguments():
    logits, y = batch()
    with pytest.raises(ValueError, match=r"\(32, 5\)"):
        acls_loss(logits, y[:3])
    with pytest.raises(ValueError, match="C >= 2"):
        acls_penalty(logits[:, :1])
    for name in ("pos_lambda", "neg_lambda", "alpha", "margin"):
        for wrong in (-0.1, math.nan):
            with pytest.raises(ValueError, match=">= 0"):
                ACLS(**{name: wrong})
    assert "margin=10.0" in repr(ACLS())


# --- dtypes, devices, and the list of losses --------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    logits, y = batch()
    loss = acls_loss(logits.to(dtype), y.to(torch.int32), 0.2, 2.0)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(acls_loss(logits, y, 0.2, 2.0).item(), rel=10 * torch.finfo(dtype).eps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    logits, y = batch()
    torch.testing.assert_close(ACLS(margin=2.0)(logits.cuda(), y.cuda()).cpu(), ACLS(margin=2.0)(logits, y))


def test_registered_for_leaderboards():
    assert {entry.name: entry.function for entry in registered_losses()}["ACLS"] is acls_loss
