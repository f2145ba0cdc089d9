"""What makes data harder: class imbalance and wrong labels, seeded."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

__all__ = ["imbalance", "symmetric_noise"]


def imbalance(y: Tensor, ratio: float, generator: Generator) -> Tensor:
    r"""Positions of a long-tailed subset: class k of C keeps the share :math:`r^{k/(C-1)}` of its samples.

    The exponential profile of Cui et al. (arXiv:1901.05555): the first class keeps all, the last one the share r.

    Args:
        y: labels 0..C-1, shape (N,).
        ratio: r in (0, 1], the size of the last class over the first (for equally large classes).
        generator: draws the samples that stay.

    Returns:
        Sorted positions, int64; every class keeps at least one sample.

    Raises:
        ValueError: ratio outside (0, 1], or no labels.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: in (0, 1], got {ratio}")
    if y.numel() == 0:
        raise ValueError("imbalance: no labels")
    classes = int(y.max()) + 1
    kept = []
    for k in range(classes):
        members = torch.nonzero(y == k).flatten()
        share = ratio ** (k / max(classes - 1, 1))
        count = min(len(members), max(1, round(share * len(members))))
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values


def symmetric_noise(y: Tensor, rate: float, classes: int, generator: Generator) -> Tensor:
    """Labels of which a share is replaced by another class, drawn uniformly from the other C - 1.

    Exactly ``round(rate * N)`` labels are wrong (not only on average), so that arms are comparable.

    Args:
        y: labels 0..classes-1, shape (N,).
        rate: share of wrong labels in [0, 1].
        classes: number of classes C, at least 2.
        generator: draws positions and new labels.

    Raises:
        ValueError: rate outside [0, 1], or fewer than two classes.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: in [0, 1], got {rate}")
    if classes < 2:
        raise ValueError(f"classes: at least 2, got {classes}")
    wrong = torch.randperm(len(y), generator=generator)[: round(rate * len(y))]
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)
    noisy = y.clone()
    noisy[wrong] = (y[wrong] + shift.to(y)) % classes
    return noisy
