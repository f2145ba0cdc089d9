import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, stack_module_state, vmap

from lib.losses import label_smoothing_loss, registered_losses
from lib.regularisers import (
    MaxSup,
    maxsup_loss,
    maxsup_penalty,
    mbls_loss,
    one_sided_smoothing_loss,
    smoothing_terms,
)


def batch(n=32, classes=5, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


# --- by hand -------------------------------------------------------------------


@pytest.mark.parametrize(("label", "ce", "ls", "ms"), [(0, 0.40761, 0.50761, 0.50761), (1, 1.40761, 1.40761, 1.50761)])
def test_value_by_hand(label, ce, ls, ms):
    """z = (2, 1, 0) with mean 1: the true logit stands 1 or 0 above it, the top logit always 1."""
    z, y = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([label])
    assert maxsup_loss(z, y, 0.0).item() == pytest.approx(ce, abs=6e-6)
    assert label_smoothing_loss(z, y, 0.1).item() == pytest.approx(ls, abs=6e-6)
    assert maxsup_loss(z, y, 0.1).item() == pytest.approx(ms, abs=6e-6)


def test_value_by_hand_terms():
    """z = (2, 1, 0): below and above the second class stands one class each, one logit away."""
    terms = smoothing_terms(torch.tensor([2.0, 1.0, 0.0]).expand(3, 3), torch.arange(3))
    torch.testing.assert_close(terms.regularisation, torch.tensor([1.0, 1 / 3, 0.0]))
    torch.testing.assert_close(terms.error_enhancement, torch.tensor([0.0, -1 / 3, -1.0]))


def test_value_by_hand_gradient_of_the_penalty():
    """e_top - 1/K; equal top logits share it."""
    z = torch.tensor([[2.0, 1.0, 0.0, -1.0], [3.0, 3.0, 0.0, 0.0]], requires_grad=True)
    maxsup_penalty(z).sum().backward()
    expected = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0.25, 0.25, -0.25, -0.25]])
    torch.testing.assert_close(z.grad, expected)


def test_value_by_hand_schedule():
    loss = MaxSup(0.1, 0.3, epochs=4)
    seen = []
    for epoch in range(5):
        loss.set_epoch(epoch)
        seen.append(loss.strength)
    assert seen == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3])
    logits, y = batch()
    torch.testing.assert_close(loss(logits, y), maxsup_loss(logits, y, 0.3))
    assert "end_lambda=0.3" in repr(loss)


# --- what the two losses have in common -----------------------------------------


@pytest.mark.parametrize("a", [0.05, 0.1, 0.7])
def test_parity_label_smoothing_is_a_penalty_on_the_true_logit(a):
    """The identity of the paper, with torch's own label smoothing as the reference."""
    logits, y = batch()
    regularisation, enhancement = smoothing_terms(logits, y)
    expected = F.cross_entropy(logits, y, label_smoothing=a)
    torch.testing.assert_close(F.cross_entropy(logits, y) + a * (regularisation + enhancement).mean(), expected)
    torch.testing.assert_close(one_sided_smoothing_loss(logits, y, a) + a * enhancement.mean(), expected)


def test_parity_maxsup_is_label_smoothing_where_the_prediction_is_right():
    logits, _ = batch()
    y = logits.argmax(-1)
    expected = F.cross_entropy(logits, y, label_smoothing=0.2)
    torch.testing.assert_close(maxsup_loss(logits, y, 0.2), expected)
    torch.testing.assert_close(one_sided_smoothing_loss(logits, y, 0.2), expected)


def test_parity_maxsup_is_label_smoothing_plus_the_perceptron_loss():
    """On any sample, right or wrong; so MaxSup is never below label smoothing."""
    logits, y = batch(200)
    perceptron = torch.stack([max(z[k] - z[label] for k in range(5)) for z, label in zip(logits, y, strict=True)])
    smoothed = F.cross_entropy(logits, y, label_smoothing=0.3)
    torch.testing.assert_close(maxsup_loss(logits, y, 0.3), smoothed + 0.3 * perceptron.mean())
    assert (perceptron > 0).any()


def test_parity_maxsup_is_margin_smoothing_without_a_margin():
    logits, y = batch()
    z = logits.clone().requires_grad_()
    (ours,) = torch.autograd.grad(maxsup_loss(z, y, 0.3), z)
    (theirs,) = torch.autograd.grad(mbls_loss(z, y, 0.3, 0.0), z)
    torch.testing.assert_close(maxsup_loss(logits, y, 0.3), mbls_loss(logits, y, 0.3, 0.0))
    torch.testing.assert_close(ours, theirs)


def test_limit_no_strength_is_cross_entropy():
    logits, y = batch()
    torch.testing.assert_close(maxsup_loss(logits, y, 0.0), F.cross_entropy(logits, y))
    torch.testing.assert_close(one_sided_smoothing_loss(logits, y, 0.0), F.cross_entropy(logits, y))


def test_limit_step_on_a_mistake():
    """One step on the penalty alone: the wrong winner gains on the label under label smoothing, loses under MaxSup."""
    logits, _ = batch(100)
    y = logits.argsort(-1)[:, 1]
    z = logits.clone().requires_grad_()

    def lead(z):
        return z.amax(-1) - z.gather(-1, y[:, None]).squeeze(-1)

    (smoothing,) = torch.autograd.grad(sum(smoothing_terms(z, y)).sum(), z)
    (suppression,) = torch.autograd.grad(maxsup_penalty(z).sum(), z)
    torch.testing.assert_close(lead(logits - 0.01 * smoothing), lead(logits) + 0.01)
    torch.testing.assert_close(lead(logits - 0.01 * suppression), lead(logits) - 0.01)


# --- invariances and gradients ----------------------------------------------------


def test_invariance_shift_order_and_shape():
    logits, y = batch(n=6)
    shift = torch.linspace(-50, 50, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(maxsup_penalty(logits + shift), maxsup_penalty(logits))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(maxsup_loss(logits[:, order], order.argsort()[y], 0.2), maxsup_loss(logits, y, 0.2))
    torch.testing.assert_close(maxsup_loss(logits.view(2, 3, 5), y.view(2, 3), 0.2), maxsup_loss(logits, y, 0.2))


def test_invariance_vmap_carries_one_strength_a_model():
    models = [torch.nn.Linear(4, 3, dtype=torch.float64) for _ in range(3)]
    parameters, _ = stack_module_state(models)
    strengths = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))

    def loss(p, lam):
        return maxsup_loss(torch.func.functional_call(models[0], p, (x,)), y, lam)

    batched = vmap(grad(loss))(parameters, strengths)
    for i, model in enumerate(models):
        maxsup_loss(model(x), y, float(strengths[i])).backward()
        torch.testing.assert_close(batched["weight"][i], model.weight.grad)


def test_gradcheck():
    logits, y = batch(n=4)
    logits.requires_grad_()
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, s: maxsup_loss(z, y, s), (logits, lam))
    assert torch.autograd.gradcheck(lambda z, s: one_sided_smoothing_loss(z, y, s), (logits, lam))


# --- degenerate input ---------------------------------------------------------------


def test_degenerate_huge_logits_empty_and_nan():
    huge = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = maxsup_loss(huge, torch.tensor([1]), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(2e4 + 0.1 * 1e4)
    assert huge.grad is not None
    assert huge.grad.isfinite().all()
    none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert maxsup_loss(*none).isnan()
    assert maxsup_penalty(none[0]).shape == (0,)
    assert maxsup_penalty(torch.tensor([[0.0, math.nan], [1.0, 0.0]])).isnan().tolist() == [True, False]


def test_degenerate_arguments():
    logits, y = batch()
    for call in (maxsup_loss, smoothing_terms, one_sided_smoothing_loss):
        with pytest.raises(ValueError, match=r"logits \(32, 5\)"):
            call(logits, y[:3])
    with pytest.raises(ValueError, match="K >= 2"):
        maxsup_penalty(logits[:, :1])
    for wrong in ((-0.1, 0.2, 9), (0.1, math.nan, 9), (0.1, 0.2, 0)):
        with pytest.raises(ValueError, match="strengths"):
            MaxSup(*wrong)


# --- dtypes, devices, and the list of losses ---------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    logits, y = batch()
    loss = maxsup_loss(logits.to(dtype), y.to(torch.int32), 0.2)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(maxsup_loss(logits, y, 0.2).item(), rel=10 * torch.finfo(dtype).eps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    logits, y = batch()
    torch.testing.assert_close(MaxSup()(logits.cuda(), y.cuda()).cpu(), MaxSup()(logits, y))


def test_registered_for_leaderboards():
    assert {entry.name: entry.function for entry in registered_losses()}["MaxSup"] is maxsup_loss
