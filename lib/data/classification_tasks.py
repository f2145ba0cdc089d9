"""Four ways in which one data set is hard to learn: the tasks of the leaderboard of classification losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lib import runtime
from lib.data.corruptions import symmetric_noise
from lib.data.long_tail import long_tail_counts, long_tailed
from lib.data.offline import Part, Split

__all__ = ["classification_tasks"]

NOISE = 30
"""Stream of a seed's generator that draws the wrong labels."""


def classification_tasks(
    name: str = "digits",
    samples: int = 240,
    imbalance: float = 30.0,
    noise: float = 0.4,
    small: float = 0.25,
    val: int = 20,
    test: int = 50,
) -> dict[str, Callable[[int], Split]]:
    """Task -> ``data(seed)``: balanced, long-tailed, noisy labels, few samples.

    The parts of all tasks have the same sizes, so that their runs can train as one stack.  Validation parts are as
    flawed as training parts (but for the long tail, where they are balanced, as that literature has it); test parts
    are clean and balanced.

    Args:
        name: "digits" or a set of `lib.data.vision_dataset`.
        samples: of each training part, a multiple of the number of classes.
        imbalance: of "long-tailed": largest over smallest class; the largest is chosen so that `samples` come out,
            a few of its samples coming twice where they do not come out exactly.
        noise: share of labels that is wrong in "noisy labels", drawn uniformly from the other classes.
        small: share of the samples that is seen in "few samples", each so much the more often.
        val: validation samples of each class.
        test: test samples of each class.

    Raises:
        ValueError: samples that are no multiple of the classes, or too many for the set.
    """

    def even(seed: int, count: int = samples, val: int = val) -> Split:
        classes = 10
        if count % classes:
            raise ValueError(f"{count} samples are no multiple of {classes} classes")
        return long_tailed(name, seed, head=count // classes, imbalance=1.0, val=val, test=test)

    def tail(seed: int) -> Split:
        head = samples
        while sum(long_tail_counts(head, imbalance, 10)) > samples:
            head -= 1
        split = long_tailed(name, seed, head=head, imbalance=imbalance, val=val, test=test)
        return replace(split, train=filled(split.train, samples))

    def noisy(seed: int) -> Split:
        split, draw = even(seed), runtime.generator(seed, stream=NOISE)
        train, held = (
            replace(part, y=symmetric_noise(part.y, noise, split.classes, draw)) for part in (split.train, split.val)
        )
        return replace(split, train=train, val=held)

    def few(seed: int) -> Split:
        count = max(10, round(small * samples / 10) * 10)
        split = even(seed, count, max(1, round(small * val)))
        return replace(split, train=filled(split.train, samples), val=filled(split.val, 10 * val))

    return {"balanced": even, "long-tailed": tail, "noisy labels": noisy, "few samples": few}


def filled(part: Part, size: int) -> Part:
    """The samples of a part again and again until there are `size`."""
    return part[torch.arange(size) % len(part)]
