import pytest
import torch
from torch.func import grad, vmap
from torch.nn.functional import normalize

from lib.losses import TripletLoss, semi_hard_negatives, triplet_loss


def batch(n=24, d=6, classes=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (n,), generator=generator)


def masks(labels):
    negative = labels[:, None] != labels
    return ~negative & ~torch.eye(len(labels), dtype=torch.bool), negative


def by_search(s, a, p, negative):
    """The rule in words: the most similar negative that is strictly less similar than p, else the least similar one."""
    others = [j for j in range(len(s)) if negative[a, j]]
    farther = [j for j in others if s[a, j] < s[a, p]]
    return max(farther, key=lambda j: s[a, j]) if farther else min(others, key=lambda j: s[a, j])


def gradient(x, labels, margin):
    x = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(triplet_loss(x, labels, margin), x)
    return result


def test_value_by_hand():
    """Angles 0, 60 | 90, 180 degrees: squared distances 1 in the first class, 2 in the second."""
    degrees = torch.tensor([0.0, 60.0, 90.0, 180.0], dtype=torch.float64)
    x = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], 1) * torch.tensor([[1], [2], [3], [4]])
    labels = torch.tensor([0, 0, 1, 1])
    # (0,1): next farther negative at 90 degrees: 1 - 2; (1,0): at 180 (120 apart): 1 - 3;
    # (2,3): all are at most as far, the farthest at 0: 2 - 2; (3,2): next farther at 60: 2 - 3.
    expected = [1 - 2 + 1.5, 0.0, 2 - 2 + 1.5, 2 - 3 + 1.5]
    assert triplet_loss(x, labels, 1.5).item() == pytest.approx(sum(expected) / 4)


@pytest.mark.parametrize("seed", range(4))
def test_parity_search(seed):
    x, labels = batch(seed=seed)
    x[5], x[7] = x[3], x[4]  # ties
    s = normalize(x, dim=1) @ normalize(x, dim=1).T
    s = (s + s.T) / 2
    positive, negative = masks(labels)
    chosen = semi_hard_negatives(s, positive, negative)
    for a, p in positive.nonzero().tolist():
        assert s[a, chosen[a, p]] == s[a, by_search(s, a, p, negative)]


def test_parity_pytorch_metric_learning():
    """Our triplets in the peer's loss: the mean over the violated ones, which is ours scaled by their share."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    x, labels = batch(dtype=torch.float32)
    s = normalize(x, dim=1) @ normalize(x, dim=1).T
    positive, negative = masks(labels)
    a, p = positive.nonzero().T
    n = semi_hard_negatives(s, positive, negative)[a, p]
    peer = losses.TripletMarginLoss(margin=0.2, distance=distances.LpDistance(power=2))
    violated = (2 * s[a, n] - 2 * s[a, p] + 0.2 > 0).float().mean()
    torch.testing.assert_close(triplet_loss(x, labels, 0.2), peer(x, labels, (a, p, n)) * violated)


def test_limit_large_margin_is_linear():
    """When every triplet violates the margin, the hinge is gone: raising it by 1 raises the loss by 1."""
    x, labels = batch()
    assert (triplet_loss(x, labels, 11.0) - triplet_loss(x, labels, 10.0)).item() == pytest.approx(1.0)
    assert triplet_loss(x, labels, -5.0) == 0


def test_invariance():
    x, labels = batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    expected = triplet_loss(x, labels)
    for other, names in ((x[order], labels[order]), (3 * x, labels), (x, 5 - labels)):
        torch.testing.assert_close(triplet_loss(other, names), expected)


def test_invariance_vmap():
    stacked = [torch.stack(column) for column in zip(*(batch(seed=i) for i in range(3)), strict=True)]
    margins = torch.tensor([0.1, 0.2, 0.4]).double()
    together = vmap(grad(triplet_loss))(*stacked, margins)
    for i in range(3):
        torch.testing.assert_close(together[i], gradient(stacked[0][i], stacked[1][i], margins[i].item()))


def test_gradcheck():
    x, labels = batch(8, 3, 3)
    assert torch.autograd.gradcheck(lambda x: triplet_loss(x, labels, 0.7), x.requires_grad_())


@pytest.mark.parametrize("labels", [[], [0], [0, 0], [0, 1, 2]])
def test_degenerate_no_triplet(labels):
    x = batch(len(labels))[0].requires_grad_()
    loss = triplet_loss(x, torch.tensor(labels, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_degenerate_errors_and_nan():
    x, labels = batch()
    with pytest.raises(ValueError, match="labels of shape"):
        triplet_loss(x, labels[1:])
    x[0, 0] = torch.nan
    assert triplet_loss(x, labels).isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(dtype):
    x, labels = batch(dtype=torch.float32)
    x = x.to(dtype).requires_grad_()
    loss = TripletLoss(0.3)(x, labels)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.grad.dtype == dtype
    assert loss.item() == pytest.approx(triplet_loss(x.detach().double(), labels, 0.3).item(), rel=1e-5)
