"""GML: hand values, brute force, logit adjustment as a special case, the number of keys, and the bound."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from lib.losses import (
    GMLLoss,
    class_scores,
    gml_contrastive_loss,
    gml_loss,
    logit_adjusted_loss,
    mutual_information_bound,
)

COUNTS = torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64)


def units(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def one_hot(labels):
    return F.one_hot(labels, 3).double()


def batch():
    """Five queries, nine keys of three classes."""
    return units(5, 4), torch.tensor([0, 1, 2, 0, 0]), units(9, 4, seed=1), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_value_by_hand():
    """T = 1, keys of class 0 at similarity 1 and 0, of class 1 at 1/2, prior (3/4, 1/4), label 0.

    s = (log((e + 1) / 2), 1/2), so L = log(1 + e^(1/2) / (3 (e + 1) / 2)) = 0.258980.
    """
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    classes = F.one_hot(torch.tensor([0, 0, 1])).double()
    counts = torch.tensor([3.0, 1.0], dtype=torch.float64)
    loss = gml_contrastive_loss(query, torch.tensor([0]), keys, classes, counts, 1.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(0.5) / (1.5 * (math.e + 1))))
    assert loss.item() == pytest.approx(0.25898, abs=5e-6)


@pytest.mark.parametrize("divide", [1.0, 0.0])
def test_parity_with_double_loops(divide):
    query, labels, keys, of_key = batch()
    expected = []
    for q, label in zip(query, labels, strict=True):
        weights = []
        for k in range(3):
            own = [math.exp(float(q @ key) / 0.2) for key, c in zip(keys, of_key, strict=True) if c == k]
            weights.append(float(COUNTS[k]) * sum(own) / len(own) ** divide)
        expected.append(-math.log(weights[label] / sum(weights)))
    loss = gml_contrastive_loss(query, labels, keys, one_hot(of_key), COUNTS, 0.2, divide=divide)
    assert loss.item() == pytest.approx(sum(expected) / 5)


def test_limit_one_key_a_class_is_the_classifier():
    """Keys equal to the class vectors and T_c = T_s: L_con is L_sup, logit adjustment."""
    query, labels, vectors = units(5, 4), torch.tensor([0, 1, 2, 0, 0]), units(3, 4, seed=2)
    contrast = gml_contrastive_loss(query, labels, vectors, torch.eye(3, dtype=torch.float64), COUNTS, 0.1)
    torch.testing.assert_close(contrast, logit_adjusted_loss(query @ vectors.T / 0.1, labels, COUNTS))


def test_limit_beta_zero_and_uniform_prior():
    query, labels, keys, of_key = batch()
    cosines = query @ units(3, 4, seed=3).T
    loss = gml_loss(cosines, query, labels, keys, one_hot(of_key), COUNTS, t_s=0.1, beta=0.0)
    torch.testing.assert_close(loss, logit_adjusted_loss(cosines / 0.1, labels, COUNTS))
    uniform = torch.ones(3, dtype=torch.float64)
    plain = F.cross_entropy(class_scores(query @ keys.T / 0.1, one_hot(of_key))[0], labels)
    torch.testing.assert_close(gml_contrastive_loss(query, labels, keys, one_hot(of_key), uniform), plain)


def test_invariance_duplicated_keys():
    """The keys of one class twice: nothing changes for the mean, the sum favours that class."""
    query, labels, keys, of_key = batch()
    again = torch.cat([torch.arange(9), torch.tensor([0, 1, 2, 3])])

    def loss(rows, divide):
        return gml_contrastive_loss(query, labels, keys[rows], one_hot(of_key[rows]), COUNTS, 0.1, divide=divide)

    torch.testing.assert_close(loss(again, 1.0), loss(torch.arange(9), 1.0), rtol=1e-12, atol=0)
    assert abs(loss(again, 0.0) - loss(torch.arange(9), 0.0)) > 1e-3


def test_invariance_rotation_and_order():
    query, labels, keys, of_key = batch()
    value = gml_contrastive_loss(query, labels, keys, one_hot(of_key), COUNTS)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))[0]
    p, r = torch.tensor([4, 1, 0, 3, 2]), torch.tensor([8, 3, 1, 0, 2, 7, 6, 5, 4])
    moved = gml_contrastive_loss((query @ turn)[p], labels[p], (keys @ turn)[r], one_hot(of_key[r]), COUNTS)
    torch.testing.assert_close(moved, value)


def test_invariance_the_two_contrasts_train_different_things():
    """Features see a constant temperature; the temperature sees constant features and no pair of one image."""
    query, labels, keys, of_key = batch()
    cosines, classes = query @ units(3, 4, seed=3).T, one_hot(of_key)
    same = torch.zeros(5, 9, dtype=torch.float64)
    same[0, 0] = same[1, 4] = 1

    def loss(q, t):
        return gml_loss(cosines, q, labels, keys, classes, COUNTS, t_c=t, gamma=0.0, same_image=same)

    t = torch.tensor(0.3, dtype=torch.float64)
    by_q, by_t = grad(loss, (0, 1))(query, t)
    plain = grad(lambda q: gml_contrastive_loss(q, labels, keys, classes, COUNTS, 0.3))(query)
    torch.testing.assert_close(by_q, plain)
    apart = grad(lambda t: gml_contrastive_loss(query, labels, keys, classes, COUNTS, t, 1 - same))(t)
    torch.testing.assert_close(by_t, apart)
    assert abs(apart - grad(lambda t: gml_contrastive_loss(query, labels, keys, classes, COUNTS, t))(t)) > 1e-4


def test_gradcheck():
    query, labels, keys, of_key = batch()
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, t: gml_contrastive_loss(q, labels, k, one_hot(of_key), COUNTS, t),
        (query.requires_grad_(), keys.requires_grad_(), t),
    )


def test_limit_of_the_information_bound():
    """Separate classes give all of H(Y); queries that know nothing give none."""
    counts, classes = torch.tensor([1.0, 1.0, 2.0]), torch.eye(3)
    labels = torch.tensor([0, 1, 2, 2])
    entropy = 0.5 * math.log(4) + 0.5 * math.log(2)
    known = mutual_information_bound(torch.eye(3)[labels], labels, torch.eye(3), classes, counts, 0.03)
    assert known.item() == pytest.approx(entropy, abs=1e-5)
    lost = F.normalize(torch.ones(4, 3), dim=-1)
    assert mutual_information_bound(lost, labels, torch.eye(3), classes, counts, 0.03).item() == pytest.approx(
        0, abs=1e-6
    )


def test_degenerate():
    query, labels, keys, of_key = batch()
    rows = of_key != 2  # no key of class 2: it leaves the softmax, and its query does not count
    loss = gml_contrastive_loss(query, labels, keys[rows], one_hot(of_key[rows]), COUNTS, 0.2)
    two = F.one_hot(of_key[rows], 2).double()
    keep = labels != 2
    torch.testing.assert_close(loss, gml_contrastive_loss(query[keep], labels[keep], keys[rows], two, COUNTS[:2], 0.2))
    gradient = grad(lambda q: gml_contrastive_loss(q, labels, keys[rows], one_hot(of_key[rows]), COUNTS, 0.2))(query)
    assert gradient.isfinite().all()
    assert (gradient[2] == 0).all()
    assert gml_contrastive_loss(query, labels, keys[:0], one_hot(of_key[:0]), COUNTS).item() == 0
    assert gml_contrastive_loss(query[:0], labels[:0], keys, one_hot(of_key), COUNTS).item() == 0
    assert gml_contrastive_loss(query * torch.nan, labels, keys, one_hot(of_key), COUNTS).isnan()
    with pytest.raises(ValueError, match="temperatures"):
        GMLLoss([1, 2], t_c=0.0)


def test_invariance_class_forwards():
    torch.manual_seed(0)
    query, labels, keys, of_key = (v.float() if v.is_floating_point() else v for v in batch())
    cosines = query @ F.normalize(torch.randn(3, 4), dim=-1).T
    module = GMLLoss([6, 3, 1], alpha=1.0)
    classes, counts = F.one_hot(of_key, 3).float(), COUNTS.float()
    expected = gml_loss(cosines, query, labels, keys, classes, counts, t_c=torch.tensor(0.1))
    torch.testing.assert_close(module(cosines, query, labels, keys, of_key), expected)
    taught = module(cosines, query, labels, keys, of_key, teacher=cosines * 30)
    torch.testing.assert_close(taught, expected, rtol=1e-5, atol=1e-5)  # a teacher that agrees adds nothing
    assert module(cosines, query, labels, keys, of_key, teacher=-cosines * 30) > expected + 0.1
    module(cosines, query, labels, keys, of_key).backward()
    assert module.log_t_c.grad != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    query, labels, keys, of_key = batch()
    exact = gml_contrastive_loss(query, labels, keys, one_hot(of_key), COUNTS, 0.05)
    loss = gml_contrastive_loss(query.to(dtype), labels, keys.to(dtype), one_hot(of_key).to(dtype), COUNTS, 0.05)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    stacked = vmap(lambda t: gml_contrastive_loss(query, labels, keys, one_hot(of_key), COUNTS, t))(
        torch.tensor([0.05, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(stacked[0], exact)
