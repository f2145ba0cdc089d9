"""Digits and stratified splits."""

import numpy as np
import pytest
import torch

from lib.data import digits, stratified


def test_value_by_hand_stratified():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    first, second = stratified(y, (50, 20), seed=0)
    assert np.bincount(y[first]).tolist() == [30, 15, 5]
    assert np.bincount(y[second]).tolist() == [12, 6, 2]
    assert not set(first) & set(second)


@pytest.mark.parametrize("sizes", [(0.6, 0.4), (0.5, 0.25, 0.25), (900, 400, 497), (100, 50)])
def test_invariance_digits_parts(sizes):
    split = digits(seed=3, sizes=sizes)
    parts = [split.train, split.val, split.test] if len(sizes) == 3 else [split.train, split.test]
    for part, size in zip(parts, sizes, strict=True):
        expected = size if isinstance(size, int) else size * 1797
        assert len(part) == pytest.approx(expected, abs=1)
        assert part.x.shape == (len(part), 64)
        assert (part.x.dtype, part.y.dtype) == (torch.float32, torch.int64)
        shares = part.y.bincount(minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 1.5 / len(part) + 0.004
    indices = torch.cat([part.index for part in parts])
    assert len(indices.unique()) == len(indices)
    if sizes[0] < 1:
        assert len(indices) == 1797
    assert len(split.val) == (0 if len(sizes) == 2 else len(parts[1]))


def test_parity_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    split = digits(seed=5, standardise=False)
    for part in (split.train, split.test):
        np.testing.assert_allclose(part.x.numpy() * 16, data[part.index], atol=1e-6)
        assert part.y.tolist() == target[part.index].tolist()


def test_value_by_hand_standardised():
    split = digits(seed=5)
    raw = digits(seed=5, standardise=False)
    mean, deviation = raw.train.x.mean(0), raw.train.x.std(0, unbiased=False)
    expected = torch.where(deviation > 0, (raw.test.x - mean) / deviation.clamp(min=1e-9), 0)
    torch.testing.assert_close(split.test.x, expected, rtol=1e-4, atol=1e-4)
    assert split.train.x.isfinite().all()
    assert (split.train.x[:, raw.train.x.std(0) == 0] == 0).all()


def test_invariance_seeds():
    first = digits(seed=1)
    torch.manual_seed(99)
    again, other = digits(seed=1), digits(seed=2)
    assert torch.equal(first.train.index, again.train.index)
    assert not torch.equal(first.train.index, other.train.index)
    again.train.x.zero_()  # no part shares memory with the next call
    assert digits(seed=1).train.x.abs().max() > 0


def test_part_selects_rows():
    part = digits().train
    some = part[torch.tensor([3, 1])]
    assert torch.equal(some.x, part.x[[3, 1]])
    assert torch.equal(some.index, part.index[[3, 1]])
    assert len(part[part.y == 4]) == int((part.y == 4).sum())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0.7, 0.4), "sum to 1.1"), ((1500, 400), "from 1797"), ((0.5, 0), "parts of"), ((1.0,), "got 1")],
)
def test_degenerate_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        digits(sizes=sizes)
