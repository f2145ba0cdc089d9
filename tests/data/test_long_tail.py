"""Long-tailed training data with balanced held-out parts."""

import os

import pytest
import torch

from lib.data import long_tail_counts, long_tailed


def test_value_by_hand_counts():
    """100 * 50^(-k/9): the ends are 100 and 2, the middle (k = 4.5) would be 100 / sqrt(50) = 14.1."""
    counts = long_tail_counts(100, 50, 10)
    assert counts == [100, 65, 42, 27, 18, 11, 7, 5, 3, 2]
    assert counts[4] > 14.1 > counts[5]
    assert long_tail_counts(64, 4, 3) == [64, 32, 16]


def test_value_by_hand_parts():
    split = long_tailed(seed=5, head=80, imbalance=20, val=7, test=11)
    assert split.train.y.bincount().tolist() == long_tail_counts(80, 20, 10)
    assert split.val.y.bincount().tolist() == [7] * 10
    assert split.test.y.bincount().tolist() == [11] * 10
    taken = torch.cat([split.train.index, split.val.index, split.test.index])
    assert len(taken.unique()) == len(taken)
    assert torch.equal(split.train.y, split.train.y.sort().values)  # class by class
    assert abs(split.train.x.mean().item()) < 1e-5
    assert split.train.x.std().item() == pytest.approx(1, abs=1e-5)


def test_invariance_labels_are_ranks_of_whole_classes():
    """Within a seed a rank is one digit; over seeds every rank is more than one digit."""
    from sklearn.datasets import load_digits

    target = torch.from_numpy(load_digits().target)
    of_tail = set()
    for seed in range(6):
        split = long_tailed(seed=seed)
        for part in (split.train, split.val, split.test):
            pairs = {(int(rank), int(target[i])) for rank, i in zip(part.y, part.index, strict=True)}
            assert len(pairs) == 10
            of_tail |= {digit for rank, digit in pairs if rank == 9}
    assert len(of_tail) > 2


def test_invariance_held_out_parts_do_not_depend_on_the_tail():
    first, second = long_tailed(seed=1, imbalance=50), long_tailed(seed=1, head=60, imbalance=5)
    assert torch.equal(first.test.index, second.test.index)
    assert torch.equal(first.val.index, second.val.index)
    assert not torch.equal(first.test.index, long_tailed(seed=2).test.index)


def test_limit_imbalance_of_one_is_balanced():
    split = long_tailed(head=30, imbalance=1, val=0, standardise=False)
    assert split.train.y.bincount().tolist() == [30] * 10
    assert len(split.val) == 0
    assert split.train.x.min() >= 0
    assert split.train.x.max() <= 1


def test_degenerate():
    assert long_tail_counts(5, 1000, 3) == [5, 1, 1]
    assert long_tail_counts(5, 10, 1) == [5]
    for wrong in [(0, 10, 3), (5, 0.5, 3), (5, 10, 0), (5, float("nan"), 3)]:
        with pytest.raises(ValueError, match="at least 1"):
            long_tail_counts(*wrong)
    with pytest.raises(ValueError, match="needs 270 samples of a class that has"):
        long_tailed(head=200)


@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="COMPANION_DATA is not set")
def test_value_by_hand_fashion_mnist():
    split = long_tailed("fashion-mnist", head=300, imbalance=100, val=10, test=20)
    assert split.train.y.bincount().tolist() == long_tail_counts(300, 100, 10)
    assert split.test.y.bincount().tolist() == [20] * 10
    assert split.train.x.shape[1] == 784
