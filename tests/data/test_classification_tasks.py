"""The tasks of the leaderboard: sizes, what is flawed, and what is not."""

import pytest
import torch

from lib.data.classification_tasks import classification_tasks

TASKS = classification_tasks()


@pytest.mark.parametrize("name", TASKS)
def test_sizes_are_those_of_every_task(name):
    for seed in (1000, 1001):
        split = TASKS[name](seed)
        assert (len(split.train), len(split.val), len(split.test)) == (240, 200, 500)
        assert split.test.y.bincount().tolist() == [50] * 10
        assert not set(split.train.index.tolist()) & set(split.test.index.tolist())
        assert not set(split.val.index.tolist()) & set(split.test.index.tolist())


def test_value_by_hand_long_tail():
    counts = TASKS["long-tailed"](1000).train.y.bincount(minlength=10)
    assert 20 <= counts.max() / counts.min() <= 30
    assert (counts.diff() <= 0).all()


def test_value_by_hand_noise():
    clean, noisy = TASKS["balanced"](1000), TASKS["noisy labels"](1000)
    assert torch.equal(clean.train.x, noisy.train.x)
    assert int((clean.train.y != noisy.train.y).sum()) == 96
    assert int((clean.val.y != noisy.val.y).sum()) == 80
    assert torch.equal(clean.test.y, noisy.test.y)


def test_value_by_hand_few_samples():
    split = TASKS["few samples"](1000)
    assert len(set(split.train.index.tolist())) == 60
    assert len(set(split.val.index.tolist())) == 50
    assert split.train.y.bincount().tolist() == [24] * 10


def test_degenerate():
    with pytest.raises(ValueError, match="no multiple"):
        classification_tasks(samples=245)["balanced"](0)
    with pytest.raises(ValueError, match="needs"):
        classification_tasks(samples=1700)["balanced"](0)
