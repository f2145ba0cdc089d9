"""Which samples make up the batches."""

import pytest
import torch

from lib.runtime import generator
from lib.trainers import class_balanced, shuffled


def test_value_by_hand_shuffled():
    y = torch.zeros(10)
    batches = shuffled(4)(y, generator(0))
    assert batches.shape == (2, 4)
    assert torch.equal(batches.flatten(), torch.randperm(10, generator=generator(0))[:8])


def test_degenerate_shuffled():
    assert shuffled(64)(torch.zeros(10), generator(0)).shape == (1, 10)
    with pytest.raises(ValueError, match="at least 1"):
        shuffled(0)


def test_invariance_shuffled_drops_other_samples_each_epoch():
    source, y = generator(0), torch.zeros(10)
    dropped = {frozenset(range(10)) - frozenset(shuffled(4)(y, source).flatten().tolist()) for _ in range(20)}
    assert len(dropped) > 5


def test_value_by_hand_class_balanced():
    y = torch.tensor([0] * 5 + [1] * 5 + [2] * 5 + [7] * 5)
    batches = class_balanced(classes=3, samples=4, steps=30)(y, generator(0))
    assert batches.shape == (30, 12)
    seen = set()
    for batch in batches:
        labels = y[batch].view(3, 4)
        assert (labels == labels[:, :1]).all()
        assert len(labels[:, 0].unique()) == 3
        assert len(batch.unique()) == 12
        seen |= set(batch.tolist())
    assert seen == set(range(20))


def test_degenerate_class_balanced():
    y = torch.tensor([0, 0, 0, 0, 1])
    batch = class_balanced(classes=2, samples=3, steps=1)(y, generator(0))[0]
    assert sorted(y[batch].tolist()) == [0, 0, 0, 1, 1, 1]
    assert len(batch[y[batch] == 0].unique()) == 3
    with pytest.raises(ValueError, match="3 classes from 2"):
        class_balanced(classes=3, samples=1, steps=1)(y, generator(0))
