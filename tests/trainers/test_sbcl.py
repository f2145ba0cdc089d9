"""Subclasses: their number, the clusters, the temperatures."""

import pytest
import torch
from torch.nn.functional import normalize

from lib.runtime import generator
from lib.trainers import dynamic_temperature, spherical_kmeans, subclass_assign, subclass_counts, subclass_targets


def bunches(sizes=(8, 8, 8), spread=0.05):
    """Unit vectors around the coordinate axes."""
    random = generator(0)
    of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return normalize(torch.eye(3)[of] + spread * torch.randn(len(of), 3, generator=random), dim=-1), of


def test_value_by_hand_subclass_counts():
    """n = (100, 37, 9): M = max(9, 10) = 10, so 10, 3 and 1; with delta = 1, M = 9: 11, 4, 1."""
    assert subclass_counts([100, 37, 9], delta=10) == [10, 3, 1]
    assert subclass_counts([100, 37, 9], delta=1) == [11, 4, 1]
    assert subclass_counts([5, 5], delta=50) == [1, 1]


def test_value_by_hand_kmeans_finds_separate_bunches():
    x, of = bunches()
    for seed in range(20):  # a start with one sample of each bunch must find them; others may not
        if len(of[torch.randperm(24, generator=generator(seed))[:3]].unique()) == 3:
            found = spherical_kmeans(x, 3, generator(seed))
            assert all(len(found[of == k].unique()) == 1 for k in range(3))
            assert len(found.unique()) == 3
            return
    pytest.fail("no such start")


def test_limit_kmeans_is_a_fixed_point_and_k_of_all():
    x, _ = bunches(spread=0.8)
    found = spherical_kmeans(x, 4, generator(1), iterations=200)
    centres = normalize(torch.stack([x[found == k].sum(0) for k in range(4)]), dim=-1)
    assert torch.equal((x @ centres.T).argmax(-1), found)  # Lloyd has converged
    assert spherical_kmeans(x, 1, generator(1)).tolist() == [0] * 24
    assert sorted(spherical_kmeans(x, 24, generator(1)).tolist()) == list(range(24))


def test_invariance_subclasses_stay_within_their_class():
    x, _ = bunches((40, 20, 6), spread=0.5)
    labels = torch.arange(3).repeat_interleave(torch.tensor([40, 20, 6]))
    parts = subclass_assign(x, labels, 10, generator(0))  # M = 10: 4, 2 and 1 subclasses
    assert {int(part) for part in parts[labels == 0]} <= {0, 1, 2, 3}
    assert {int(part) for part in parts[labels == 1]} <= {4, 5}
    assert parts[labels == 2].tolist() == [6] * 6
    order = torch.randperm(66, generator=generator(5))
    shuffled = subclass_assign(x[order], labels[order], 10, generator(0))
    assert torch.equal(labels[order] == 2, shuffled == 6)


def test_value_by_hand_dynamic_temperature():
    """Classes of 20, 20 and 5 with spreads 1, 3 and 0, a = 1 / log 30: phi = (a, 3a, 0), percentiles 0.4a and 2.2a.

    Clipped (a, 2.2a, 0.4a) with mean 1.2a; the last class is its own subclass (M = 5: 4, 4, 1) and keeps tau1.
    """
    x = torch.tensor([[1.0], [-1.0]] * 10 + [[3.0], [-3.0]] * 10 + [[2.0]] * 5)
    labels = torch.arange(3).repeat_interleave(torch.tensor([20, 20, 5]))
    tau = dynamic_temperature(x, labels, delta=5, tau1=0.1)
    torch.testing.assert_close(tau, torch.tensor([0.1 / 1.2, 0.22 / 1.2, 0.1]))


def test_limit_single_subclasses_keep_tau1():
    x, of = bunches((40, 20, 6), spread=0.5)
    assert dynamic_temperature(x, of, delta=10)[2] == pytest.approx(0.1)
    torch.testing.assert_close(dynamic_temperature(x, of, delta=100), torch.full((3,), 0.1))
    torch.testing.assert_close(dynamic_temperature(torch.ones(66, 3), of, delta=10), torch.full((3,), 0.1))


def test_invariance_targets():
    x, of = bunches((40, 20, 6), spread=0.5)
    warm, clustered = (subclass_targets(x, of, generator(3), delta=d) for d in (None, 10))
    assert torch.equal(warm[:, 0], warm[:, 1])
    assert torch.equal(warm[:, [0, 3]], clustered[:, [0, 3]])  # same classes, same random numbers
    assert len(clustered[:, 1].unique()) == 7
    torch.testing.assert_close(clustered[:, 2], dynamic_temperature(x, of, 10)[of])


def test_degenerate():
    for wrong in ([], [3, 0]):
        with pytest.raises(ValueError, match="samples of every class"):
            subclass_counts(wrong)
    for clusters in (0, 4):
        with pytest.raises(ValueError, match="clusters"):
            spherical_kmeans(torch.ones(3, 2), clusters, generator(0))
    assert spherical_kmeans(torch.ones(3, 2), 2, generator(0)).tolist() == [0, 0, 0]  # an empty cluster is allowed
