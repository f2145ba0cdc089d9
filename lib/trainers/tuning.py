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
from lib.trainers._job import Setting
from lib.trainers.optimisers import Optimiser
from lib.trainers.paired import Method, Trained, train_paired

__all__ = ["Trial", "Tuned", "balanced_accuracy", "trials", "tune_and_train"]

BASES = (2, 3, 5, 7)
"""Of the Halton sequence: the learning rate, then the hyperparameters."""
Head = Callable[[int, int], nn.Module]
Task = Callable[[int], Split]


@dataclass(frozen=True)
class Trial:
    """One setting: a learning rate and all hyperparameters of the loss."""

    lr: float
    hyper: Mapping[str, float]


@dataclass(frozen=True)
class Tuned:
    """What came out for one loss on one task.

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

    @property
    def trial(self) -> Trial:
        """The setting that was chosen."""
        return self.tried[self.best]


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
    tasks: Mapping[str, Task],
    *,
    count: int,
    lr: Range,
    tuning_seeds: Sequence[int],
    seeds: Sequence[int],
    optimiser: Optimiser,
    epochs: int,
    batch_size: int,
    schedule: Callable[[float], float] | None = None,
    score: Callable[[Tensor, Tensor], Tensor] = balanced_accuracy,
    device: str = "auto",
) -> dict[str, Tuned]:
    """For each task, try `count` settings on validation data, then train the best one on the final seeds.

    The runs of all tasks train as one stack, so their parts have the same sizes.

    Args:
        entry: the loss.
        network: ``network(head)`` builds an untrained network whose last layer is ``head(features, classes)``.
        tasks: name -> ``data(seed)``: training, validation and test part.
        count: settings to try.
        lr: range of the learning rate.
        tuning_seeds: of the runs that choose.
        seeds: of the runs that count; they should not be among the others.
        optimiser: its learning rate is replaced.
        epochs: passes over the training part.
        batch_size: samples at once.
        schedule: factor of the learning rate by the share of training done.
        score: of outputs and labels, larger is better.
        device: see `lib.runtime.device`.

    Raises:
        ValueError: as `trials` and `lib.trainers.train_paired`.
    """
    tried = trials(entry, count, lr)
    names = list(tasks)

    def fit(seeds: Sequence[int], settings: Sequence[Sequence[Trial]]) -> tuple[Trained, list[Split]]:
        """Train every setting; a setting is a trial for each task."""
        runs = [(name, seed) for name in names for seed in seeds]
        own = {seed * len(names) + names.index(name): tasks[name](seed) for name, seed in runs}  # a seed for each run
        hyper: list[dict[str, Setting]] = []
        for setting in settings:
            per_run = [trial for trial in setting for _ in seeds]
            hyper.append({key: [trial.hyper[key] for trial in per_run] for key in entry.defaults})
        if entry.needs_counts:
            counts = [split.train.y.bincount(minlength=split.classes).clamp(min=1) for split in own.values()]
            hyper = [{**one, "class_counts": torch.stack(counts).float()} for one in hyper]
        rates = [[trial.lr for trial in setting for _ in seeds] for setting in settings]
        trained = train_paired(
            lambda: network(entry.head or nn.Linear),
            [Method(str(k), entry.function, hyper[k], lr=rates[k]) for k in range(len(settings))],
            lambda run: (own[run].train.x, own[run].train.y),
            seeds=list(own),
            optimiser=optimiser,
            epochs=epochs,
            batch_size=batch_size,
            schedule=schedule,
            device=device,
            on_nonfinite="stop",
        )
        return trained, list(own.values())

    trained, splits = fit(tuning_seeds, [[trial] * len(names) for trial in tried])
    x = torch.stack([split.val.x for split in splits])
    outputs = [trained.logits(str(k), x) for k in range(count)]
    found = [
        torch.stack([score(one, split.val.y) for one, split in zip(output, splits, strict=True)]) for output in outputs
    ]
    scores = torch.stack(found).view(count, len(names), len(tuning_seeds)).mean(-1)  # (trials, tasks)
    best = [int(column.argmax()) for column in scores.T]  # of equals the first
    trained, splits = fit(seeds, [[tried[index] for index in best]])
    output = trained.logits("0", torch.stack([split.test.x for split in splits]))
    return {
        name: Tuned(tried, scores[:, row], best[row], output[row * len(seeds) : (row + 1) * len(seeds)])
        for row, name in enumerate(names)
    }
