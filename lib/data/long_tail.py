"""Long-tailed training data with balanced validation and test data, and which classes are rare drawn by the seed.

The exponential profile of Cui et al. (arXiv:1901.05555): class k of C has n_k = n_1 r^(-(k-1)/(C-1)) training samples,
r the imbalance, head over tail.  Unlike `lib.data.imbalance`, which thins out labels that exist, the sizes are exact:
they depend neither on the seed nor on how many samples a class happens to have, so that losses which know the class
sizes train as one stack over seeds.

Labels are *ranks*: 0 is the most frequent class, C - 1 the rarest.  Which class of the source gets which rank is drawn
by the seed; otherwise "the tail" would mean the same few classes (8 and 9 for digits) in every run.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lib import runtime
from lib.data.offline import Part, Split, digits
from lib.data.vision import vision_dataset

__all__ = ["long_tail_counts", "long_tailed"]

RANKS, ROWS = 20, 21
"""Streams of a seed's generator that draw which classes are rare, and which samples are taken."""


def long_tail_counts(head: int, imbalance: float, classes: int) -> list[int]:
    """Training samples of each class, most frequent first: ``head * imbalance ** (-k / (classes - 1))``, rounded.

    Args:
        head: samples of the most frequent class.
        imbalance: size of the largest class over that of the smallest, at least 1.
        classes: C.

    Returns:
        C counts, each at least 1.

    Raises:
        ValueError: no sample, no class, or an imbalance below 1.

    >>> long_tail_counts(100, 50, 10)
    [100, 65, 42, 27, 18, 11, 7, 5, 3, 2]
    """
    if head < 1 or classes < 1 or not imbalance >= 1:
        raise ValueError(f"head {head}, classes {classes}: at least 1; imbalance {imbalance}: at least 1")
    return [max(1, round(head * imbalance ** (-k / max(classes - 1, 1)))) for k in range(classes)]


def long_tailed(
    name: str = "digits",
    seed: int = 0,
    head: int = 100,
    imbalance: float = 50.0,
    val: int = 20,
    test: int = 50,
    standardise: bool = True,
) -> Split:
    """A long-tailed training part beside validation and test parts with equally many samples of every class.

    Args:
        name: "digits", or a set of `lib.data.vision_dataset` (its official test part is the source of `test`).
        seed: draws the rank of each class and every sample.
        head: training samples of the most frequent class.
        imbalance: that over the samples of the rarest class.
        val: validation samples of *each* class (may be 0).
        test: test samples of each class.
        standardise: subtract the mean of all training pixels and divide by their deviation; otherwise in [0, 1].

    Returns:
        Parts with x (N, D), y the ranks; training samples come class by class, the head first.  The sizes of the
        classes are `long_tail_counts`.

    Raises:
        ValueError: a class has too few samples, or as `long_tail_counts` and `vision_dataset`.
        DataUnavailable: as `vision_dataset`.

    >>> long_tailed(head=50, imbalance=25).train.y.bincount().tolist()
    [50, 35, 24, 17, 12, 8, 6, 4, 3, 2]
    """
    pool, official = _source(name)
    classes = int(pool.y.max()) + 1
    counts = long_tail_counts(head, imbalance, classes)
    of_rank = torch.randperm(classes, generator=runtime.generator(seed, stream=RANKS))
    draw = runtime.generator(seed, stream=ROWS)
    rows: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    for count, label in zip(counts, of_rank, strict=True):
        held = 0 if official else test
        members = _some(pool.y == label, count + val + held, draw)
        # Balanced parts first: they then do not depend on head and imbalance.
        rows["test"].append(members[:held] if not official else _some(official.y == label, test, draw))
        rows["val"].append(members[held : held + val])
        rows["train"].append(members[held + val :])
    rank = of_rank.argsort()
    sources = {"train": pool, "val": pool, "test": official or pool}
    parts = {key: sources[key][torch.cat(rows[key])] for key in rows}
    mean, deviation = parts["train"].x.mean(), parts["train"].x.std()

    def finished(part: Part) -> Part:
        x = (part.x - mean) / deviation if standardise else part.x
        return Part(x, rank[part.y], part.index)

    return Split(finished(parts["train"]), finished(parts["val"]), finished(parts["test"]), classes)


def _some(member: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """That many random positions among those that are true."""
    positions = torch.nonzero(member).flatten()
    if len(positions) < count:
        raise ValueError(f"long_tailed: needs {count} samples of a class that has {len(positions)}")
    return positions[torch.randperm(len(positions), generator=generator)[:count]]


@lru_cache(maxsize=2)
def _source(name: str) -> tuple[Part, Part | None]:
    """Images (N, D) in [0, 1] to draw from, and those of an official test part where there is one."""
    if name == "digits":
        split = digits(0, (0.5, 0.5), standardise=False)
        both = [torch.cat([getattr(split.train, key), getattr(split.test, key)]) for key in ("x", "y", "index")]
        order = both[2].argsort()  # as in the source: nothing depends on how the halves were drawn
        return Part(*(column[order] for column in both)), None
    parts = (vision_dataset(name, split) for split in ("train", "test"))
    train, test = (Part(part.x.flatten(1), part.y, part.index) for part in parts)
    return train, test
