"""Small tables for classification and regression that come with installed packages, or from a formula."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from lib import runtime
from lib.data.offline import Part, Split, stratified

__all__ = ["REGRESSION_TABLES", "TABLES", "table"]

TABLES = ("breast_cancer", "wine", "iris", "fair", "digits", "diabetes", "friedman")
"""Names for `table`: 569 x 30 (2 classes), 178 x 13 (3), 150 x 4 (3), 6,366 x 8 (2), 1,797 x 64 (10), and for
regression 442 x 10 and 800 x 10."""
REGRESSION_TABLES = ("diabetes", "friedman")


def table(name: str, seed: int = 0, sizes: Sequence[float] = (0.7, 0.3)) -> Split:
    """One table, split at random (by class where there are classes) and standardised by its training part.

    Args:
        name: one of `TABLES`.  "fair" asks whether a marriage has known an affair (Fair 1978; needs statsmodels);
            "friedman" is ``10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + e``, x in [0, 1]^10, e of deviation 1
            (Friedman 1991, first problem).
        seed: of the split; "friedman" is always the same 800 rows.
        sizes: (train, test) or (train, val, test), as fractions or as counts.

    Returns:
        Columns x float32 (N, D), mean 0 and deviation 1 in the training part (constant columns 0).  y are class
        indices (int64), or with `classes` 0 a target (float32) standardised likewise.

    Raises:
        ValueError: an unknown name, not two or three sizes, or sizes that exceed the data.
    """
    if name not in TABLES:
        raise ValueError(f"name: one of {', '.join(TABLES)}, got {name!r}")
    if len(sizes) not in (2, 3):
        raise ValueError(f"sizes: (train, test) or (train, val, test), got {len(sizes)}")
    x, y = _read(name)
    regression = name in REGRESSION_TABLES
    rows = stratified(np.zeros(len(y), dtype=np.int64) if regression else y.astype(np.int64), sizes, seed)
    if len(rows) == 2:
        rows.insert(1, np.empty(0, dtype=np.int64))
    x = _standardised(x, rows[0])
    y = _standardised(y[:, None], rows[0])[:, 0] if regression else y
    inputs = torch.from_numpy(x.astype(np.float32))
    target = torch.from_numpy(y.astype(np.float32 if regression else np.int64))
    train, val, test = (Part(inputs[at], target[at], at) for at in map(torch.from_numpy, rows))
    return Split(train, val, test, classes=0 if regression else int(target.max()) + 1)


def _standardised(x: NDArray[np.float64], train: NDArray[np.int64]) -> NDArray[np.float64]:
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    return np.where(deviation > 0, (x - mean) / np.where(deviation > 0, deviation, 1), 0)


@cache
def _read(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if name == "friedman":
        rng = np.random.default_rng(0)
        x = rng.random((800, 10))
        y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
        return x, y + rng.standard_normal(800)
    if name == "fair":
        from importlib.resources import files

        runtime.note_data(name)
        # Read as text: importing the package's own loader would take a second.
        lines = (files("statsmodels") / "datasets" / "fair" / "fair.csv").read_text(encoding="utf-8").splitlines()
        values = np.array([line.split(",") for line in lines[1:]], dtype=np.float64)
        return values[:, :-1], (values[:, -1] > 0).astype(np.float64)
    from sklearn import datasets

    runtime.note_data(name.replace("_", "-"))
    bunch = getattr(datasets, f"load_{name}")()
    return bunch.data.astype(np.float64), bunch.target.astype(np.float64)
