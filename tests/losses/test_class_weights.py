"""The multi-class hinge; class weights are tested with the losses of segmentation, which they serve as well."""

import pytest
import torch
import torch.nn.functional as F

from lib.losses.class_weights import weighted_cross_entropy, weston_watkins_loss


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(30, 4, generator=generator, dtype=torch.float64), torch.randint(4, (30,), generator=generator)


def test_value_by_hand() -> None:
    """z = (2, 1.5, 0), class 0: only class 1 is within the margin, by 1/2."""
    assert weston_watkins_loss(torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0])).item() == pytest.approx(0.5 / 3)


def test_parity_with_torch() -> None:
    logits, y = sample()
    torch.testing.assert_close(weston_watkins_loss(logits, y), F.multi_margin_loss(logits, y))


def test_limit_two_classes_is_half_the_binary_hinge() -> None:
    logits, y = sample()[0][:, :2], sample()[1] % 2
    margin = (2 * y - 1) * (logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(weston_watkins_loss(logits, y), (1 - margin).clamp(min=0).mean() / 2)


def test_gradcheck() -> None:
    logits, y = sample()
    counts = y.bincount()
    assert torch.autograd.gradcheck(lambda z: weston_watkins_loss(z, y), (logits.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda z: weighted_cross_entropy(z, y, counts), (logits,))


def test_degenerate() -> None:
    logits, y = sample()
    for loss in (weston_watkins_loss, lambda z, y: weighted_cross_entropy(z, y, torch.ones(4))):
        assert loss(logits * torch.nan, y).isnan()
        assert loss(logits[:0], y[:0]).isnan()
        assert loss(logits * 1e6, y).isfinite()
