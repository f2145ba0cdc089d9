"""Splits by class, for tasks whose test classes were never seen in training."""

from __future__ import annotations

import torch
from torch import Generator

from lib.data.offline import Part, digits

__all__ = ["hold_out_classes", "open_set_digits", "relabelled"]


def relabelled(part: Part) -> Part:
    """The same samples with labels 0 .. C-1 in the order of the old ones."""
    y = part.y.unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
    return Part(part.x, y, part.index)


def hold_out_classes(part: Part, count: int, generator: Generator) -> tuple[Part, Part]:
    """The samples of all but `count` random classes, and those of these classes; both relabelled from 0.

    Raises:
        ValueError: not at least one class on either side.
    """
    classes = part.y.unique()  # type: ignore[no-untyped-call]
    if not 0 < count < len(classes):
        raise ValueError(f"cannot hold out {count} of {len(classes)} classes")
    held = classes[torch.randperm(len(classes), generator=generator)[:count]]
    out = torch.isin(part.y, held)
    return relabelled(part[~out]), relabelled(part[out])


def open_set_digits(swap: bool = False) -> tuple[Part, Part]:
    """The digits of scikit-learn cut by class: 0 to 4 to train on and 5 to 9 never seen, or the other way round.

    Args:
        swap: train on 5 to 9.

    Returns:
        Seen and unseen part: x of shape (N, 64) with values in [0, 1], labels 0 to 4, in the order of the source.
    """
    split = digits(standardise=False)
    both = Part(
        *(torch.cat(pair) for pair in zip(*((p.x, p.y, p.index) for p in (split.train, split.test)), strict=True))
    )
    both = both[both.index.argsort()]
    low = both.y < 5
    seen, unseen = relabelled(both[low]), relabelled(both[~low])
    return (unseen, seen) if swap else (seen, unseen)
