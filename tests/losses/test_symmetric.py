"""Symmetric losses: their sum over the labels, their relations, and what uniform noise does to their risk."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from lib.losses import (
    comp_sum_loss,
    generalised_cross_entropy,
    mae_loss,
    nce_rce_loss,
    normalised_cross_entropy,
    reverse_cross_entropy,
)

LOSSES = {
    mae_loss: 3.0,
    normalised_cross_entropy: 1.0,
    reverse_cross_entropy: 3 * 9.210340,
    nce_rce_loss: 1 + 3 * 9.210340,
}
"""Loss -> its sum over the four labels."""


def batch(n=12, classes=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (n,), generator=generator)


def test_value_by_hand():
    """p = (0.7, 0.2, 0.1), y = 0: NCE = 0.35667 / 4.26870, MAE 0.3, RCE 9.21034 * 0.3."""
    z, y = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([0])
    assert normalised_cross_entropy(z, y).item() == pytest.approx(0.083556, abs=1e-6)
    assert mae_loss(z, y).item() == pytest.approx(0.3, abs=1e-6)
    assert reverse_cross_entropy(z, y).item() == pytest.approx(2.76310, abs=1e-5)
    assert nce_rce_loss(z, y, 2.0, 0.5).item() == pytest.approx(2 * 0.083556 + 0.5 * 2.76310, abs=1e-5)


def test_parity_definitions():
    """MAE is half the l1 distance and ends the GCE family; RCE is cross-entropy of the clamped label under p."""
    logits, y = batch()
    p, one_hot = logits.softmax(-1), F.one_hot(y, 4).double()
    torch.testing.assert_close(mae_loss(logits, y), (p - one_hot).abs().sum(-1).mean() / 2)
    torch.testing.assert_close(reverse_cross_entropy(logits, y), -(p * one_hot.clamp(1e-4).log()).sum(-1).mean())
    torch.testing.assert_close(mae_loss(logits, y), generalised_cross_entropy(logits, y, 1.0))
    torch.testing.assert_close(mae_loss(logits, y), comp_sum_loss(logits, y, 2.0))
    torch.testing.assert_close(nce_rce_loss(logits, y, 1.0, 0.0), normalised_cross_entropy(logits, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_invariance_sum_over_labels_is_constant(loss):
    logits, _ = batch()
    for z in logits:
        total = sum(loss(z[None], torch.tensor([k])).item() for k in range(4))
        assert total == pytest.approx(LOSSES[loss], rel=1e-6)
    sums = [sum(F.cross_entropy(z[None], torch.tensor([k])).item() for k in range(4)) for z in logits]
    assert max(sums) - min(sums) > 1  # cross-entropy is not symmetric


@pytest.mark.parametrize("loss", LOSSES)
def test_invariance_uniform_noise_only_scales_the_risk(loss):
    """All flips enumerated: noisy risk = (1 - eta C / (C - 1)) clean risk + eta / (C - 1) times the constant."""
    logits, y = batch(n=3)
    eta, noisy = 0.3, 0.0
    for flips in itertools.product(range(4), repeat=3):
        chance = 1.0
        for given, true in zip(flips, y.tolist(), strict=True):
            chance *= 1 - eta if given == true else eta / 3
        noisy += chance * loss(logits, torch.tensor(flips)).item()
    clean = loss(logits, y).item()
    assert noisy == pytest.approx((1 - eta * 4 / 3) * clean + eta / 3 * LOSSES[loss], rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss):
    logits, y = batch(n=4)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (logits.requires_grad_(),))


@pytest.mark.parametrize("loss", LOSSES)
def test_degenerate(loss):
    """Certain and right costs nothing; certain and wrong is finite; no samples are NaN; NaN spreads."""
    z = torch.tensor([[1e4, 0.0, 0.0]])
    assert loss(z, torch.tensor([0])).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(z, torch.tensor([1])).isfinite()
    assert loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()
    assert loss(torch.tensor([[torch.nan, 0.0]]), torch.tensor([0])).isnan()


def test_degenerate_weights():
    for weights in ({"alpha": -1.0}, {"beta": -0.1}):
        with pytest.raises(ValueError, match="must be at least 0"):
            nce_rce_loss(*batch(), **weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    logits, y = batch(dtype=dtype)
    assert nce_rce_loss(logits, y, torch.tensor(2.0, dtype=dtype)).dtype == dtype
