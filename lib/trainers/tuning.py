"""The same tuning effort for every loss: equally many settings, chosen on validation data, then fresh seeds.

Settings are the points of a Halton sequence in the logarithm of the learning rate and in the hyperparameters that the
loss declares (`lib.losses.registry`); the first has the default hyperparameters and the middle learning rate.  A loss
without hyperparameters spends all its settings on the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.data.offline import Split
from lib.losses.registry import LossEntry, Range
from lib.trainers.optimisers import Optimiser
from lib.trainers.paired import Method, Trained, train_paired

__all__ = ["Trial", "Tuned", "balanced_accuracy", "trials", "tune_and_train"]

BASES = (2, 3, 5, 7)
"""Of the Halton sequence: the learning rate, then the hyperparameters."""
Head = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Trial:
    """One setting: a learning rate and all hyperparameters of the loss."""

    lr: float
    hyper: Mapping[str, float]


@dataclass(frozen=True)
class Tuned:
    """What came out for one loss.

    Attributes:
        tried: the settings.
        scores: of each on validation data, mean over the tuning seeds, (trials,).
        best: position of the setting that was chosen.
        output: of the networks of the final seeds on their test data, (S, N, C).
    """

    tried: tuple[Trial, ...]
    scores: Tensor
    best: int
    output: Tensor


def halton(index: int, base: int) -> float:
    """The `index`-th number (from 1) of the van der Corput sequence: the digits of the index behind the point.

    >>> [halton(k, 2) for k in (1, 2, 3, 4)]
    [0.5, 0.25, 0.75, 0.125]
    """
    value, share = 0.0, 1.0
    while index:
        share /= base
        value += share * (index % base)
        index //= base
    return value


def trials(entry: LossEntry, count: int, lr: Range) -> tuple[Trial, ...]:
    """`count` settings of a loss.

    Raises:
        ValueError: no setting, or more tunable hyperparameters than the sequence has dimensions.
    """
    if count < 1 or len(entry.tunable) >= len(BASES):
        raise ValueError(f"{entry.name}: {count} settings of {len(entry.tunable)} hyperparameters")
    found = [Trial(lr.at(halton(1, BASES[0])), dict(entry.defaults))]
    for index in range(2, count + 1):
        own = {
            name: wide.at(halton(index - 1, base))
            for (name, wide), base in zip(entry.tunable.items(), BASES[1:], strict=False)
        }
        found.append(Trial(lr.at(halton(index, BASES[0])), {**entry.defaults, **own}))
    return tuple(found)


def balanced_accuracy(output: Tensor, y: Tensor) -> Tensor:
    """Mean over the classes present of the share that is recognised: scalar for output (N, C) and y (N,)."""
    right = (output.argmax(-1) == y).to(output.dtype)
    count = torch.bincount(y, minlength=output.shape[-1])
    hits = torch.zeros(output.shape[-1], dtype=output.dtype, device=output.device).index_add(0, y, right)
    return hits[count > 0].div(count[count > 0]).mean()


def tune_and_train(
    entry: LossEntry,
    network: Callable[[Head], nn.Module],
    data: Callable[[int], Split],
    *,
    count: int,
    lr: Range,
    tuning_seeds: Sequence[int],
    seeds: Sequence[int],
    optimiser: Optimiser,
    steps: int,
    batch_size: int,
    schedule: Callable[[float], float] | None = None,
    score: Callable[[Tensor, Tensor], Tensor] = balanced_accuracy,
    device: str = "auto",
) -> Tuned:
    """Try `count` settings on the tuning seeds' validation data, then train the best one on the final seeds.

    Args:
        entry: the loss.
        network: ``network(head)`` builds an untrained network whose last layer is ``head(features, classes)``.
        data: ``data(seed)``: training, validation and test part, of the same sizes for every seed.
        count: settings to try.
        lr: range of the learning rate.
        tuning_seeds: of the runs that choose.
        seeds: of the runs that count; they should not be among the others.
        optimiser: its learning rate is replaced.
        steps: of each run, rounded to whole passes over the training part.
        batch_size: at most the training part.
        schedule: factor of the learning rate by the share of training done.
        score: of outputs and labels, larger is better.
        device: see `lib.runtime.device`.
    """

    def fit(settings: Sequence[Trial], seeds: Sequence[int]) -> tuple[Trained, list[Split]]:
        splits = [data(seed) for seed in seeds]
        train = {seed: (split.train.x, split.train.y) for seed, split in zip(seeds, splits, strict=True)}
        counts = torch.stack([split.train.y.bincount(minlength=split.classes) for split in splits]).double().mean(0)
        loss = entry.bind(counts.clamp(min=1).float())
        size = len(splits[0].train)
        batch = min(batch_size, size)
        trained = train_paired(
            lambda: network(entry.head or nn.Linear),
            [Method(str(k), loss, one.hyper, lr=one.lr) for k, one in enumerate(settings)],
            train.__getitem__,
            seeds=seeds,
            optimiser=optimiser,
            epochs=max(1, round(steps / (size // batch))),
            batch_size=batch,
            schedule=schedule,
            device=device,
            on_nonfinite="stop",
        )
        return trained, splits

    tried = trials(entry, count, lr)
    trained, splits = fit(tried, tuning_seeds)
    x = torch.stack([split.val.x for split in splits])
    scores = torch.stack(
        [
            torch.stack([score(out, split.val.y) for out, split in zip(trained.logits(str(k), x), splits, strict=True)])
            for k in range(count)
        ]
    ).mean(1)
    best = int(scores.argmax())  # of equals the first
    trained, splits = fit([tried[best]], seeds)
    return Tuned(tried, scores, best, trained.logits("0", torch.stack([split.test.x for split in splits])))
