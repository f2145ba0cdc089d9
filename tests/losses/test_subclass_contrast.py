"""SBCL and KCL: double loops, a peer, supervised contrast as a special case, symmetries."""

import math

import pytest
import torch
from torch.func import grad, vmap

from lib.losses import SBCLLoss, kcl_loss, sbcl_loss, supcon_loss

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2])
PARTS = torch.tensor([0, 0, 1, 1, 2, 2, 3])


def features(seed=0, count=7, dtype=torch.float64):
    return torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loops(x, labels, parts, tau1, tau2, beta):
    """The two sums over positives of every anchor, as written in the paper."""
    z = [x[i, v] / x[i, v].norm() for v in range(2) for i in range(len(x))]
    n, y, p = len(x), labels.repeat(2).tolist(), parts.repeat(2).tolist()
    total = 0.0
    for i in range(2 * n):
        s = [float(z[i] @ z[j]) for j in range(2 * n)]
        twin = (i + n) % (2 * n)
        same = [j for j in range(2 * n) if j != i and p[j] == p[i]]
        rest = [j for j in range(2 * n) if p[j] != p[i]] + [twin]
        of_class = [j for j in rest if y[j] == y[i]]
        every = math.log(sum(math.exp(s[j] / tau1) for j in range(2 * n) if j != i))
        outside = math.log(sum(math.exp(s[j] / tau2) for j in rest))
        total -= sum(s[j] / tau1 - every for j in same) / len(same)
        total -= beta * sum(s[j] / tau2 - outside for j in of_class) / len(of_class)
    return total / (2 * n)


def test_value_by_hand():
    """Two samples, one class, two subclasses; views e1, e1 and e2, e2; tau = 1.

    First term: the twin at 1, two others at 0: log(e + 2) - 1.  Second: positives are the twin and the two others, all
    of the denominator too: log(e + 2) - 1/3.
    """
    x = torch.eye(2, dtype=torch.float64)[:, None].expand(2, 2, 2)
    loss = sbcl_loss(x, torch.tensor([0, 0]), torch.tensor([0, 1]), tau1=1.0, beta=0.5)
    full = math.log(math.e + 2)
    assert loss.item() == pytest.approx((full - 1) + 0.5 * (full - 1 / 3))


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
def test_parity_with_double_loops(beta):
    x = features()
    expected = loops(x, LABELS, PARTS, 0.3, 0.5, beta)
    assert sbcl_loss(x, LABELS, PARTS, 0.3, 0.5, beta).item() == pytest.approx(expected)


def test_parity_first_term_with_a_peer():
    """One subclass a class, beta = 0: SupConLoss of pytorch-metric-learning on the 2B views."""
    from lib._torchvision import torchvision

    torchvision()
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    x = features()
    peer = losses.SupConLoss(temperature=0.1)(x.transpose(0, 1).flatten(0, 1), LABELS.repeat(2))
    torch.testing.assert_close(sbcl_loss(x, LABELS, LABELS, beta=0.0), peer)


def test_limit_supcon_of_classes_and_of_subclasses():
    x = features()
    for parts in (LABELS, PARTS):
        torch.testing.assert_close(sbcl_loss(x, LABELS, parts, beta=0.0), supcon_loss(x, parts, 0.1, 0.1))
    torch.testing.assert_close(kcl_loss(x, LABELS, torch.rand(7).double(), k=14), supcon_loss(x, LABELS, 0.1, 0.1))


def test_limit_every_sample_its_own_subclass():
    """Then the first term is SimCLR's loss, and the second SupCon of the classes at the same temperature."""
    x, own = features(), torch.arange(7)
    expected = supcon_loss(x, None, 0.1, 0.1) + 0.25 * supcon_loss(x, LABELS, 0.1, 0.1)
    torch.testing.assert_close(sbcl_loss(x, LABELS, own), expected)


def test_limit_kcl_without_further_positives_is_simclr():
    x = features()
    torch.testing.assert_close(kcl_loss(x, LABELS, torch.rand(7).double(), k=0), supcon_loss(x, None, 0.1, 0.1))


def test_invariance():
    """Order of the batch, rotation and scale of the features, names of classes and subclasses."""
    x, tau2 = features(), torch.tensor([0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.4]).double()
    value = sbcl_loss(x, LABELS, PARTS, tau2=tau2)
    order = torch.tensor([6, 2, 4, 0, 1, 3, 5])
    turn = torch.linalg.qr(features(1)[:5, 0])[0]
    torch.testing.assert_close(sbcl_loss((3 * x @ turn)[order], LABELS[order], PARTS[order], tau2=tau2[order]), value)
    torch.testing.assert_close(sbcl_loss(x, 5 - LABELS, 9 - PARTS.double(), tau2=tau2), value)
    torch.testing.assert_close(sbcl_loss(x.flip(1), LABELS, PARTS, tau2=tau2), value)


def test_invariance_kcl_takes_k_positives_of_the_class():
    """Fewer positives change the loss of a large class, and not that of classes which have no more than k."""
    x, u = features(), torch.rand(7, generator=torch.Generator().manual_seed(2)).double()
    supcon, ours = (grad(f)(x) for f in (lambda x: kcl_loss(x, LABELS, u, k=14), lambda x: kcl_loss(x, LABELS, u, k=2)))
    assert not torch.allclose(supcon, ours)
    many, few = kcl_loss(x[4:], LABELS[4:], u[4:], k=2), kcl_loss(x[4:], LABELS[4:], u[4:], k=14)
    torch.testing.assert_close(many, few)  # classes of at most two samples have two further views


def test_gradcheck():
    x = features(count=4).requires_grad_()
    labels, parts = LABELS[[0, 1, 2, 4]], PARTS[[0, 1, 2, 4]]
    tau2 = torch.tensor([0.3, 0.3, 0.3, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sbcl_loss(x, labels, parts, 0.3, tau2), (x,))
    assert torch.autograd.gradcheck(lambda x: kcl_loss(x, labels, torch.rand(4).double() * 0 + 0.3, 0.3, 1), (x,))


def test_degenerate():
    x = features()
    assert sbcl_loss(x[:0], LABELS[:0], PARTS[:0]).item() == 0
    assert sbcl_loss(x[:1], LABELS[:1], PARTS[:1]).item() == pytest.approx(0)  # one sample: only its twin
    assert sbcl_loss(x * torch.nan, LABELS, PARTS).isnan()
    assert sbcl_loss(1e6 * x, LABELS, PARTS, 0.01).isfinite()
    with pytest.raises(ValueError, match="features"):
        sbcl_loss(x[:, :1], LABELS, PARTS)
    with pytest.raises(ValueError, match="k: at least 0"):
        kcl_loss(x, LABELS, torch.rand(7), k=-1)
    for wrong in ({"tau1": 0.0}, {"beta": -1.0}):
        with pytest.raises(ValueError, match="tau1"):
            SBCLLoss(**wrong)


def test_invariance_class_forwards_and_base_temperature():
    x = features()
    official = SBCLLoss(0.1, 0.25, base_temperature=0.07)(x, LABELS, PARTS)
    first, both = sbcl_loss(x, LABELS, PARTS, beta=0.0), sbcl_loss(x, LABELS, PARTS)
    torch.testing.assert_close(official, first / 0.7 + (both - first))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    x = features()
    loss = sbcl_loss(x.to(dtype), LABELS, PARTS)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(sbcl_loss(x, LABELS, PARTS).item(), rel=1e-5)
    stacked = vmap(lambda beta: sbcl_loss(x, LABELS, PARTS, beta=beta))(torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(stacked[1], sbcl_loss(x, LABELS, PARTS, beta=1.0))
