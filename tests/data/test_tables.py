"""Tables: sizes, classes, standardisation, splits."""

import numpy as np
import pytest
import torch

from lib.data import REGRESSION_TABLES, TABLES, table

SHAPES = {
    "breast_cancer": (569, 30, 2),
    "wine": (178, 13, 3),
    "iris": (150, 4, 3),
    "fair": (6366, 8, 2),
    "digits": (1797, 64, 10),
    "diabetes": (442, 10, 0),
    "friedman": (800, 10, 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_shapes_and_standardisation(name: str) -> None:
    if name == "fair":
        pytest.importorskip("statsmodels")
    rows, columns, classes = SHAPES[name]
    split = table(name, seed=1, sizes=(0.5, 0.2, 0.3))
    assert split.classes == classes
    assert sum(map(len, (split.train, split.val, split.test))) == rows
    assert sorted(torch.cat([split.train.index, split.val.index, split.test.index]).tolist()) == list(range(rows))
    x = split.train.x.double()
    assert x.shape[1] == columns
    varies = x.std(0) > 0
    torch.testing.assert_close(x.mean(0), torch.zeros(columns, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0)[varies], torch.ones(int(varies.sum()), dtype=torch.float64))
    if classes:
        shares = [part.y.bincount(minlength=classes) / len(part) for part in (split.train, split.test)]
        assert (shares[0] - shares[1]).abs().max() < 0.02
    else:
        assert name in REGRESSION_TABLES
        assert split.train.y.dtype == torch.float32
        assert abs(split.train.y.mean().item()) < 1e-5


def test_value_by_hand_friedman() -> None:
    """The formula explains all but the noise: residual deviation 1."""
    split = table("friedman", sizes=(0.5, 0.5))
    rng = np.random.default_rng(0)
    x = rng.random((800, 10))
    signal = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = np.concatenate([split.train.y, split.test.y])
    rows = np.concatenate([split.train.index, split.test.index])
    slope, offset = np.polyfit(y, signal[rows], 1)
    assert np.std(slope * y + offset - signal[rows]) == pytest.approx(1.0, abs=0.1)


def test_fair_shares() -> None:
    """2,053 of 6,366 answered that there was an affair (statsmodels' documentation)."""
    pytest.importorskip("statsmodels")
    split = table("fair", sizes=(0.5, 0.5))
    assert int(split.train.y.sum() + split.test.y.sum()) == 2053


def test_degenerate() -> None:
    with pytest.raises(ValueError, match="name"):
        table("titanic")
    with pytest.raises(ValueError, match="sizes"):
        table("iris", sizes=(0.5,))
    with pytest.raises(ValueError, match="cannot take"):
        table("iris", sizes=(140, 20))
