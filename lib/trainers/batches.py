"""Which samples make up each batch of an epoch: a sampler is ``sampler(y, generator) -> (steps, B)`` positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

__all__ = ["Sampler", "class_balanced", "shuffled"]

Sampler = Callable[[Tensor, Generator], Tensor]


def shuffled(batch_size: int) -> Sampler:
    """Every epoch a new random order, cut into batches; the incomplete last batch is dropped.

    (In the next epoch other samples fall into the dropped rest.)  With fewer samples than `batch_size`
    the batch is the whole set.

    Raises:
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: at least 1, got {batch_size}")

    def sample(y: Tensor, generator: Generator) -> Tensor:
        size = min(batch_size, len(y))
        steps = len(y) // size
        return torch.randperm(len(y), generator=generator)[: steps * size].view(steps, size)

    return sample


def class_balanced(classes: int, samples: int, steps: int) -> Sampler:
    """Batches of P random classes with K random samples each, grouped by class, as pair losses need them.

    Samples within a class are distinct (with repetition only where a class has fewer than K).

    Args:
        classes: P.
        samples: K.
        steps: batches an epoch.
    """

    def sample(y: Tensor, generator: Generator) -> Tensor:
        members = [torch.nonzero(y == label).flatten() for label in torch.unique(y)]
        if len(members) < classes:
            raise ValueError(f"batches of {classes} classes from {len(members)}")
        rows = []
        for _ in range(steps):
            batch = []
            for k in torch.randperm(len(members), generator=generator)[:classes].tolist():
                n = len(members[k])
                order = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-samples // n))])
                batch.append(members[k][order[:samples]])
            rows.append(torch.cat(batch))
        return torch.stack(rows)

    return sample
