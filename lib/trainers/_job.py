"""What one comparison trains on: methods, networks and batches, the same for the stacked and for the plain way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lib import runtime
from lib.trainers.batches import Sampler
from lib.trainers.optimisers import Optimiser

Parameters = dict[str, Tensor]
GradientRule = Callable[..., tuple[Parameters, Tensor]]
"""``rule(loss_of_params, params, **rule_hyper) -> (gradients, loss)``, pure; e.g. `lib.optim.sam.sam_gradient`.

``loss_of_params(params)`` is the loss of the batch, ``loss_of_params(params, rows)`` that of a slice of its samples.
"""

ORDER = 1
"""Stream of a seed's generator that orders the data (the data themselves usually come from stream 0)."""


Setting = float | Sequence[float] | Tensor
"""A number for all seeds, or one (or one tensor) for each."""


def for_seed(setting: Setting, index: int) -> float | Tensor:
    """What a setting is for the index-th seed."""
    if isinstance(setting, Sequence) or (isinstance(setting, Tensor) and setting.ndim):
        return setting[index]
    return setting


@dataclass(frozen=True)
class Method:
    """One method under comparison: a loss, its hyperparameters, and how the gradient is taken.

    Args:
        name: unique within the comparison.
        loss: ``loss(output, y, **hyper)``, the scalar mean over the batch.
        hyper: numbers handed to the loss (as tensors of shape () in the vectorised run, so that methods
            that differ only in these train as one stack).  A sequence, or a tensor (S, ...), holds one for each seed.
        lr: overrides the optimiser's learning rate; a sequence holds one for each seed.
        weight_decay: overrides the optimiser's weight decay.
        gradient: replaces plain differentiation of the loss.
        rule_hyper: numbers handed to `gradient`.
    """

    name: str
    loss: Callable[..., Tensor]
    hyper: Mapping[str, Setting] = field(default_factory=dict)
    lr: float | Sequence[float] | None = None
    weight_decay: float | None = None
    gradient: GradientRule | None = None
    rule_hyper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """The S runs of one method (see `lib.trainers.paired.Trained`)."""

    parameters: Parameters
    constants: Parameters
    history: Tensor
    checkpoints: list[Parameters]
    diverged: Tensor


@dataclass(frozen=True)
class Job:
    """Settings and data of one comparison; `x` and `y` hold the data sets of all seeds one below the other."""

    model_factory: Callable[[], nn.Module]
    seeds: tuple[int, ...]
    optimiser: Optimiser
    epochs: int
    sampler: Sampler
    schedule: Callable[[float], float]
    device: torch.device
    stop: bool
    checkpoint_every: int | None
    x: Tensor
    y: Tensor
    labels: tuple[Tensor, ...]  # per data set, on the CPU, for the sampler

    def lr(self, method: Method, index: int) -> float:
        """Learning rate of a method for the index-th seed."""
        return self.optimiser.lr if method.lr is None else float(for_seed(method.lr, index))

    def weight_decay(self, method: Method) -> float:
        """Weight decay of a method."""
        return self.optimiser.weight_decay if method.weight_decay is None else method.weight_decay

    def network(self, seed: int) -> nn.Module:
        """The untrained network of a seed."""
        with runtime.isolated(seed):
            return self.model_factory().to(self.device).train()

    def batches(self, index: int) -> Iterator[Tensor]:
        """For the index-th seed, epoch by epoch, the rows of `x` that make up each batch: (steps, B)."""
        data_set = index if len(self.labels) > 1 else 0
        labels = self.labels[data_set]
        generator = runtime.generator(self.seeds[index], stream=ORDER)
        for _ in range(self.epochs):
            yield self.sampler(labels, generator) + data_set * len(labels)

    def keeps(self, epoch: int) -> bool:
        """Whether a checkpoint is taken before this epoch (after the last one: ``epoch == epochs``)."""
        return self.checkpoint_every is not None and epoch % self.checkpoint_every == 0


def unique_names(methods: Sequence[Any]) -> list[str]:
    """Names of the methods under comparison.

    Raises:
        ValueError: none, or a name twice.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"need methods with unique names, got {names}")
    return names


def prepare(
    model_factory: Callable[[], nn.Module],
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    seeds: Sequence[int],
    optimiser: Optimiser,
    epochs: int,
    sampler: Sampler,
    schedule: Callable[[float], float] | None,
    device: str | torch.device,
    checkpoint_every: int | None,
    stop: bool = False,
) -> Job:
    """The job of a comparison, with the data of all seeds on its device.

    Raises:
        ValueError: no epochs or seeds, or what `gather` refuses.
    """
    if epochs < 1 or not seeds:
        raise ValueError(f"need at least one epoch and one seed, got {epochs} and {list(seeds)}")
    where = runtime.device(str(device))
    x, y, labels = gather(data, seeds, where)
    constant = schedule or (lambda share: 1.0)
    return Job(
        model_factory, tuple(seeds), optimiser, epochs, sampler, constant, where, stop, checkpoint_every, x, y, labels
    )


def gather(
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor], seeds: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The data of all seeds in one tensor each for x and y, and the labels per data set.

    Raises:
        ValueError: no samples, x and y of different lengths, or shapes that differ between seeds.
    """
    sets = [data(seed) for seed in seeds] if callable(data) else [data]
    for x, y in sets:
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"data: x has {len(x)} samples, y has {len(y)}")
        if x.shape != sets[0][0].shape or y.shape != sets[0][1].shape:
            raise ValueError(f"data: shapes differ between seeds, {tuple(sets[0][0].shape)} and {tuple(x.shape)}")
    x_all, y_all = (torch.cat(column).to(device) for column in zip(*sets, strict=True))
    return x_all, y_all, tuple(y.cpu() for _, y in sets)
