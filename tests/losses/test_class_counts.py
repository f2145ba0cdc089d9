"""Losses that know the class sizes: hand values, torch as a peer, the chain of special cases, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from lib.losses import (
    CosineHead,
    VSLoss,
    class_balanced_loss,
    effective_number_weights,
    ldam_loss,
    ldam_margins,
    logit_adjusted_loss,
    vs_loss,
    vs_scales,
)

COUNTS = torch.tensor([100.0, 16.0, 1.0], dtype=torch.float64)
LOSSES = [class_balanced_loss, logit_adjusted_loss, vs_loss, ldam_loss]
BOTH = pytest.mark.parametrize("loss", LOSSES, ids=[loss.__name__ for loss in LOSSES])


def batch(n=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator, dtype=dtype), torch.randint(3, (n,), generator=generator)


def test_value_by_hand_logit_adjustment():
    """Equal logits, priors (3/4, 1/4): the loss of the rare class is log 4, of the frequent one log 4/3."""
    counts, z = torch.tensor([3.0, 1.0]), torch.zeros(1, 2)
    assert logit_adjusted_loss(z, torch.tensor([1]), counts).item() == pytest.approx(math.log(4))
    assert logit_adjusted_loss(z, torch.tensor([0]), counts).item() == pytest.approx(math.log(4 / 3))


def test_value_by_hand_vector_scaling():
    """n = (4, 1), gamma = 1/2: Delta = (1, 1/2); z = (0, 2) becomes (log 0.8, 1 + log 0.2)."""
    counts, z = torch.tensor([4.0, 1.0], dtype=torch.float64), torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(vs_scales(counts, 0.5), torch.tensor([1, 0.5], dtype=torch.float64))
    expected = math.log(0.8 + 0.2 * math.e) - (1 + math.log(0.2))
    assert vs_loss(z, torch.tensor([1]), counts, 0.5, 1.0).item() == pytest.approx(expected)


def test_value_by_hand_ldam():
    """Margins n^(-1/4) of (16, 1) are (1/4, 1/2); with cosines (1, 0), s = 2: log(1 + e^(2 (0 - 3/4)))."""
    counts = torch.tensor([16.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(ldam_margins(counts), torch.tensor([0.25, 0.5], dtype=torch.float64))
    z = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert ldam_loss(z, torch.tensor([0]), counts, scale=2.0).item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_value_by_hand_effective_numbers():
    """beta = 1/2: effective numbers of 1 and 2 samples are 1 and 3/2, so the weights are as 3 to 2."""
    weights = effective_number_weights(torch.tensor([1.0, 2.0], dtype=torch.float64), 0.5)
    torch.testing.assert_close(weights, torch.tensor([1.2, 0.8], dtype=torch.float64))


def test_parity_with_weighted_cross_entropy_of_torch():
    z, y = batch()
    weights = (1 - 0.99) / (1 - 0.99**COUNTS)
    expected = F.cross_entropy(z, y, weight=weights)
    torch.testing.assert_close(class_balanced_loss(z, y, COUNTS, 0.99), expected)


def test_parity_ldam_is_the_margin_cosine_loss_of_a_peer_for_equal_classes():
    """Equal counts give one margin for all: CosFace (Wang et al. 2018) on the same class vectors."""
    from lib._torchvision import torchvision

    torchvision()
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(0)
    head, features, y = CosineHead(4, 3), torch.randn(10, 4), torch.randint(3, (10,))
    peer = losses.CosFaceLoss(num_classes=3, embedding_size=4, margin=0.5, scale=30)
    peer.W.data = head.weight.data.T.clone()
    ours = ldam_loss(head(features), y, torch.full((3,), 7.0), max_margin=0.5, scale=30.0)
    torch.testing.assert_close(ours, peer(features, y))


def test_limit_chain_of_special_cases():
    """VS at gamma = 0 is logit adjustment, at tau = 0 too cross-entropy; beta = 0 and equal counts likewise."""
    z, y = batch()
    ce = F.cross_entropy(z, y)
    torch.testing.assert_close(vs_loss(z, y, COUNTS, 0.0, 0.7), logit_adjusted_loss(z, y, COUNTS, 0.7))
    torch.testing.assert_close(vs_loss(z, y, COUNTS, 0.0, 0.0), ce)
    torch.testing.assert_close(logit_adjusted_loss(z, y, COUNTS, 0.0), ce)
    torch.testing.assert_close(class_balanced_loss(z, y, COUNTS, 0.0), ce)
    torch.testing.assert_close(ldam_loss(z, y, COUNTS, 0.0, 1.0), ce)
    equal = torch.full((3,), 5.0, dtype=torch.float64)
    for loss in (class_balanced_loss, logit_adjusted_loss, vs_loss):
        torch.testing.assert_close(loss(z, y, equal), ce)


def test_limit_beta_to_one_weighs_by_inverse_frequency():
    inverse = 1 / COUNTS
    weights = effective_number_weights(COUNTS, 1 - 1e-9)
    torch.testing.assert_close(weights, inverse / inverse.mean(), rtol=1e-6, atol=0)
    exact = effective_number_weights(COUNTS, 0.9999)
    single = effective_number_weights(COUNTS.float(), 0.9999)
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=0)


def test_limit_adjusted_logits_of_the_bayes_classifier():
    """Logits log p(x|k) + const have adjusted softmax p(k|x): the loss is then the conditional entropy term itself."""
    likelihood = torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64)
    posterior = likelihood * COUNTS / (likelihood * COUNTS).sum()
    for k in range(3):
        loss = logit_adjusted_loss(likelihood.log() + 3.3, torch.tensor([k]), COUNTS)
        torch.testing.assert_close(loss, -posterior[0, k].log())


@BOTH
def test_invariance(loss):
    """Order of the batch, order of the classes, and (for shifts) a constant added to the logits."""
    z, y = batch()
    value, order = loss(z, y, COUNTS), torch.tensor([2, 0, 1])
    perm = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(z[perm], y[perm], COUNTS), value)
    torch.testing.assert_close(loss(z[:, order], order.argsort()[y], COUNTS[order]), value)
    torch.testing.assert_close(loss(z, y, COUNTS.long()), value, rtol=1e-6, atol=1e-6)
    if loss is not vs_loss:
        torch.testing.assert_close(loss(z + 1.7, y, COUNTS), value)


def test_invariance_of_weights_under_the_size_of_the_batch():
    z, y = batch()
    for loss in LOSSES:
        torch.testing.assert_close(loss(z.repeat(3, 1), y.repeat(3), COUNTS), loss(z, y, COUNTS))


@BOTH
def test_gradcheck(loss):
    z, y = batch(5)
    numbers = {class_balanced_loss: (0.9,), logit_adjusted_loss: (0.7, 0.5), vs_loss: (0.2, 0.7, 0.5)}
    hyper = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in numbers.get(loss, (0.3, 5.0, 0.5))]
    assert torch.autograd.gradcheck(lambda z, *h: loss(z, y, COUNTS, *h), (z.requires_grad_(), *hyper))


def test_gradcheck_vmap_carries_one_beta_a_model():
    z, y = batch()
    betas = torch.tensor([0.0, 0.5, 0.9999], dtype=torch.float64)
    together = vmap(grad(lambda z, beta: class_balanced_loss(z, y, COUNTS, beta)), (None, 0))(z, betas)
    for beta, row in zip(betas.tolist(), together, strict=True):
        torch.testing.assert_close(row, grad(lambda z, b=beta: class_balanced_loss(z, y, COUNTS, b))(z))


@BOTH
def test_degenerate(loss):
    z, y = batch()
    with pytest.raises(ValueError, match="class_counts"):
        loss(z, y, COUNTS[:2])
    with pytest.raises(ValueError, match="class_counts"):
        loss(z, y[:3], COUNTS)
    with pytest.raises(ValueError, match="beta"):
        loss(z, y, COUNTS, beta=1.0)
    assert loss(z[:0], y[:0], COUNTS).isnan()
    assert loss(z.index_fill(0, torch.tensor([0]), torch.nan), y, COUNTS).isnan()
    huge = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.float64)
    assert loss(huge, torch.tensor([1]), COUNTS).isfinite()
    one = loss(z[:1], y[:1], COUNTS)
    assert one.shape == ()


def test_degenerate_classes():
    for wrong in ([[1, 2]], [3, 0]):
        with pytest.raises(ValueError, match="counts"):
            VSLoss(wrong)
    z, y = batch(dtype=torch.float32)
    counts = [100, 16, 1]
    torch.testing.assert_close(VSLoss(counts, 0.2, 0.5)(z, y), vs_loss(z, y, torch.tensor(counts), 0.2, 0.5))
    assert CosineHead(3, 2)(torch.zeros(1, 3)).tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BOTH
def test_dtype_device(loss, dtype):
    z, y = batch()
    value = loss(z.to(dtype), y, COUNTS.to(dtype))
    assert value.dtype == dtype
    assert value.item() == pytest.approx(loss(z, y, COUNTS).item(), rel=1e-4)
