import math

import pytest
import torch
import torch.nn.functional as F

from lib.losses.margin_losses import binary_focal_loss, exponential_loss, hinge_loss, logistic_loss, signed_margins
from lib.losses.registry import registered_losses

LOSSES = [logistic_loss, hinge_loss, exponential_loss, binary_focal_loss]


def batch(n=40, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    return 2 * torch.randn(n, generator=random, dtype=dtype), torch.randint(2, (n,), generator=random)


def test_value_by_hand():
    """Margins 0 and -2: log 2 and log(1 + e^2); 1 and 3; 1 and e^2; log(2)/4 and sigmoid(2)^2 log(1 + e^2)."""
    output, y = torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.tensor([1, 0])
    assert signed_margins(output, y).tolist() == [0, -2]
    lost = math.log1p(math.exp(2))
    assert logistic_loss(output, y).item() == pytest.approx((math.log(2) + lost) / 2)
    assert hinge_loss(output, y).item() == pytest.approx(2)
    assert exponential_loss(output, y).item() == pytest.approx((1 + math.exp(2)) / 2)
    miss = 1 / (1 + math.exp(-2))
    assert binary_focal_loss(output, y).item() == pytest.approx((math.log(2) / 4 + miss**2 * lost) / 2)


def test_parity_torch():
    output, y = batch()
    torch.testing.assert_close(logistic_loss(output, y), F.binary_cross_entropy_with_logits(output, y.double()))
    torch.testing.assert_close(hinge_loss(output, y), F.multi_margin_loss(torch.stack([-output, output], 1) / 2, y) * 2)
    both = torch.stack([torch.zeros_like(output), output], 1)
    torch.testing.assert_close(logistic_loss(output, y), F.cross_entropy(both, y))


def test_limit_focal_without_focus_is_logistic():
    output, y = batch()
    torch.testing.assert_close(binary_focal_loss(output, y, 0.0), logistic_loss(output, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_invariance_calibrated_slope_at_zero_is_negative(loss):
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(zero, torch.ones(1)), zero)
    assert slope < 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss):
    output, y = batch(10)
    assert torch.autograd.gradcheck(lambda f: loss(f, y), (output.requires_grad_(),))


def test_degenerate():
    for loss in LOSSES:
        assert loss(torch.zeros(0), torch.zeros(0)).isnan()
        assert loss(torch.tensor([torch.nan]), torch.ones(1)).isnan()
        with pytest.raises(ValueError, match="outputs"):
            loss(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="gamma"):
        binary_focal_loss(*batch(), -1.0)


def test_registered_for_two_classes():
    """Listed with defaults that train: the loss of a linear model falls."""
    entries = {entry.name: entry for entry in registered_losses("binary")}
    assert {"Logistic", "Hinge", "Exponential", "Binary focal"} <= set(entries)
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=random), torch.arange(60) % 2
    x[:, 0] += 2 * y
    for name in ("Logistic", "Hinge", "Exponential", "Binary focal"):
        entry, weights = entries[name], torch.zeros(4, requires_grad=True)
        losses = []
        for _ in range(20):
            loss = entry.function(x @ weights, y, **entry.defaults)
            (slope,) = torch.autograd.grad(loss, weights)
            weights = (weights - 0.1 * slope).detach().requires_grad_()
            losses.append(loss.item())
        assert losses[-1] < 0.95 * losses[0]
