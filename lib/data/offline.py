"""The data set that needs no download: the 8x8 digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib import runtime

__all__ = ["Part", "Split", "digits", "stratified"]


@dataclass(frozen=True)
class Part:
    """Inputs x (float32, sample first), labels y (int64, (N,)), and the position of each sample in the source."""

    x: Tensor
    y: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor) -> Part:
        return Part(self.x[rows], self.y[rows], self.index[rows])


@dataclass(frozen=True)
class Split:
    """A data set in disjoint, stratified parts; `val` is empty where two parts were asked for."""

    train: Part
    val: Part
    test: Part
    classes: int


def stratified(y: NDArray[np.int64] | Tensor, sizes: Sequence[float], seed: int) -> list[NDArray[np.int64]]:
    """Positions of disjoint parts with the class shares of the whole, in random order.

    Args:
        y: labels, shape (N,).
        sizes: of the parts: all counts (ints), or all fractions of N that sum to at most 1.
        seed: of the shuffle.

    Raises:
        ValueError: sizes exceed the data, or a size is not positive.
    """
    labels = np.asarray(y)
    n = len(labels)
    if all(isinstance(size, (int, np.integer)) for size in sizes):
        counts = [int(size) for size in sizes]
    else:
        if sum(sizes) > 1 + 1e-9:
            raise ValueError(f"fractions sum to {sum(sizes):g}, more than 1")
        edges = np.rint(np.cumsum([0.0, *sizes]) * n).astype(int)
        counts = np.diff(edges).tolist()
    if min(counts) < 1 or sum(counts) > n:
        raise ValueError(f"cannot take parts of {counts} from {n} samples")
    rng = np.random.default_rng(seed)
    # Sorted by relative rank within the class, every prefix has the class shares of the whole.
    order = rng.permutation(n)
    rank = np.empty(n)
    present = np.unique(labels)
    for i, label in enumerate(present):  # offsets that do not depend on the seed: neither do the counts a class
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + (i + 0.5) / len(present)) / len(members)
    ranked = order[np.argsort(rank[order], kind="stable")]
    parts = np.split(ranked, np.cumsum(counts))[: len(counts)]
    return [rng.permutation(part).astype(np.int64) for part in parts]


@cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    runtime.note_data("digits")
    bunch = load_digits()
    return bunch.data.astype(np.float32), bunch.target.astype(np.int64)


def digits(seed: int = 0, sizes: Sequence[float] = (0.6, 0.4), standardise: bool = True) -> Split:
    """The 1,797 handwritten digits of scikit-learn (8x8 pixels, values 0 to 16), split at random by class.

    Args:
        seed: of the split.
        sizes: (train, test) or (train, val, test), as fractions or as counts.
        standardise: subtract each pixel's mean and divide by the standard deviation of the training part
            (constant pixels become 0); otherwise values are divided by 16.

    Returns:
        Parts with x of shape (N, 64), 10 classes.

    Raises:
        ValueError: not two or three sizes, or sizes that exceed the data.
    """
    if len(sizes) not in (2, 3):
        raise ValueError(f"sizes: (train, test) or (train, val, test), got {len(sizes)}")
    x, y = _digits()
    rows = stratified(y, sizes, seed)
    if len(rows) == 2:
        rows.insert(1, np.empty(0, dtype=np.int64))
    if standardise:
        mean, deviation = x[rows[0]].mean(axis=0), x[rows[0]].std(axis=0)
        x = np.where(deviation > 0, (x - mean) / np.where(deviation > 0, deviation, 1), 0).astype(np.float32)
    else:
        x = x / np.float32(16)
    train, val, test = (Part(torch.from_numpy(x[r]), torch.from_numpy(y[r]), torch.from_numpy(r)) for r in rows)
    return Split(train, val, test, classes=10)
