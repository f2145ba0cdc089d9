import math

import pytest
import torch
import torch.nn.functional as F

from lib.regularisers import MbLS, margin_penalty, mbls_loss


def batch(n=32, classes=5, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def test_value_by_hand():
    """(3, 1, -1) with margin 1: the distances 0, 2 and 4 exceed it by 0, 1 and 3, on average 4/3."""
    z = torch.tensor([[3.0, 1.0, -1.0]], dtype=torch.float64)
    assert margin_penalty(z, 1.0).tolist() == pytest.approx([4 / 3])
    ce = F.cross_entropy(z, torch.tensor([2])).item()
    assert mbls_loss(z, torch.tensor([2]), 0.3, 1.0).item() == pytest.approx(ce + 0.4)


def test_parity_loop():
    logits, y = batch()
    penalty = [sum(max(0.0, z.max().item() - v - 2.0) for v in z.tolist()) / 5 for z in logits]
    expected = F.cross_entropy(logits, y).item() + 0.1 * sum(penalty) / 32
    assert MbLS(0.1, 2.0)(logits, y).item() == pytest.approx(expected)


def test_limit_margin():
    """No margin is label smoothing where the prediction is right; a margin beyond all distances is cross-entropy."""
    logits, y = batch()
    right = logits.argmax(-1)
    torch.testing.assert_close(mbls_loss(logits, right, 0.2, 0.0), F.cross_entropy(logits, right, label_smoothing=0.2))
    torch.testing.assert_close(mbls_loss(logits, y, 0.2, 1e3), F.cross_entropy(logits, y))
    torch.testing.assert_close(mbls_loss(logits, y, 0.0, 1.0), F.cross_entropy(logits, y))


def test_invariance_shift_and_shape():
    logits, y = batch(n=6)
    shift = torch.linspace(-50, 50, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(margin_penalty(logits + shift, 2.0), margin_penalty(logits, 2.0))
    torch.testing.assert_close(mbls_loss(logits.view(2, 3, 5), y.view(2, 3)), mbls_loss(logits, y))


def test_gradcheck():
    logits, y = batch(n=4)
    logits.requires_grad_()
    margin = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, m: mbls_loss(z, y, 0.3, m), (logits, margin))


def test_degenerate():
    logits, y = batch()
    with pytest.raises(ValueError, match=r"\(32, 5\)"):
        mbls_loss(logits, y[:3])
    with pytest.raises(ValueError, match="C >= 2"):
        margin_penalty(logits[:, :1])
    for wrong in ((-1.0, 1.0), (0.1, math.nan)):
        with pytest.raises(ValueError, match="negative"):
            MbLS(*wrong)
    assert mbls_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()
    assert margin_penalty(torch.tensor([[0.0, math.nan], [1.0, 0.0]]), 1.0).isnan().tolist() == [True, False]
    assert "margin=10.0" in repr(MbLS())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_device(dtype):
    logits, y = batch()
    loss = mbls_loss(logits.to(dtype), y, 0.2, 2.0)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(mbls_loss(logits, y, 0.2, 2.0).item(), rel=10 * torch.finfo(dtype).eps)
