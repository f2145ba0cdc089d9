"""Class imbalance and wrong labels."""

import pytest
import torch

from lib.data import imbalance, symmetric_noise
from lib.runtime import generator


def test_value_by_hand_imbalance():
    y = torch.arange(3).repeat_interleave(100)
    kept = imbalance(y, 0.04, generator(0))
    assert y[kept].bincount().tolist() == [100, 20, 4]  # shares 1, 0.04^(1/2), 0.04
    assert torch.equal(kept, kept.sort().values)
    assert len(kept.unique()) == len(kept)


def test_limit_imbalance_of_one_keeps_all():
    y = torch.randint(0, 5, (200,), generator=generator(0))
    assert torch.equal(imbalance(y, 1.0, generator(1)), torch.arange(200))


def test_invariance_imbalance_seeds():
    y = torch.arange(4).repeat_interleave(50)
    first, again, other = (imbalance(y, 0.1, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_degenerate_imbalance():
    assert imbalance(torch.tensor([0, 0, 1]), 0.001, generator(0)).tolist() == [0, 1, 2]  # one of each class stays
    assert imbalance(torch.tensor([0, 2]), 0.5, generator(0)).tolist() == [0, 1]  # a class without samples
    assert imbalance(torch.tensor([0, 0]), 0.5, generator(0)).tolist() == [0, 1]  # one class
    for ratio in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="ratio"):
            imbalance(torch.tensor([0, 1]), ratio, generator(0))
    with pytest.raises(ValueError, match="no labels"):
        imbalance(torch.empty(0, dtype=torch.int64), 0.5, generator(0))


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.4, 1.0])
def test_value_by_hand_symmetric_noise(rate):
    y = torch.arange(10).repeat(200)
    noisy = symmetric_noise(y, rate, 10, generator(0))
    assert int((noisy != y).sum()) == round(rate * 2000)
    assert torch.equal(y, torch.arange(10).repeat(200))
    assert noisy.dtype == y.dtype
    assert int(noisy.min()) >= 0
    assert int(noisy.max()) <= 9


def test_limit_symmetric_noise_is_uniform_over_the_other_classes():
    y = torch.zeros(90_000, dtype=torch.int64)
    counts = symmetric_noise(y, 1.0, 10, generator(0)).bincount(minlength=10)
    assert counts[0] == 0
    expected = 10_000
    chi_square = ((counts[1:] - expected) ** 2 / expected).sum()
    assert chi_square < 26.1  # 0.999 quantile of chi-square with 8 degrees of freedom


def test_invariance_symmetric_noise_seeds():
    y = torch.arange(10).repeat(20)
    first, again, other = (symmetric_noise(y, 0.4, 10, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_degenerate_symmetric_noise():
    assert symmetric_noise(torch.empty(0, dtype=torch.int64), 0.5, 3, generator(0)).shape == (0,)
    assert symmetric_noise(torch.tensor([1]), 1.0, 2, generator(0)).tolist() == [0]
    with pytest.raises(ValueError, match="rate"):
        symmetric_noise(torch.tensor([1]), 1.1, 2, generator(0))
    with pytest.raises(ValueError, match="classes"):
        symmetric_noise(torch.tensor([0]), 0.5, 1, generator(0))
