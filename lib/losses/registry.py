"""Which losses there are, by task: what a leaderboard, a search over losses or a reader asks for.

A module registers its losses at import; `registered_losses` imports the room first, so that a loss is listed as soon as
its module exists::

    register_loss(
        "Poly-1", poly_loss, task="classification", chapter="poly-loss", module=PolyLoss,
        defaults={"epsilon": 2.0}, tunable={"epsilon": Range(-1.0, 6.0)},
    )
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

__all__ = ["LossEntry", "Range", "register_loss", "registered_losses"]

TASKS = ("classification", "binary", "multi-label", "regression", "segmentation")


@dataclass(frozen=True)
class Range:
    """Where a hyperparameter is tuned: between `low` and `high`, evenly or (`log`) evenly in its logarithm.

    Raises:
        ValueError: not low < high, or a logarithm of something not positive.

    >>> Range(0.01, 1.0, log=True).at(0.5)
    0.1
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"not a range: {self.low} to {self.high}, log={self.log}")

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the way."""
        if self.log:
            return round(math.exp(math.log(self.low) + share * math.log(self.high / self.low)), 12)
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class LossEntry:
    """A loss that can train a network by itself.

    Attributes:
        name: as shown in tables, unique within the task.
        function: ``function(output, y, **hyper)``, the scalar mean over a batch; output (N, C) for classification,
            y (N,) class indices; hyperparameters may be tensors of shape (), so that `lib.trainers.train_paired` can
            stack runs.
        task: "classification", "binary" (y in {0, 1}, output (N,)), "multi-label" (y (N, C) in {0, 1}), "regression"
            (output and y of one shape) or "segmentation" (output (N, C, H, W), y (N, H, W)).
        chapter: slug of the chapter that explains it; None for a textbook loss.
        module: the same as a class.
        defaults: hyperparameters and their default values.
        tunable: hyperparameters worth tuning and where.
        needs_counts: the function also takes ``class_counts``, shape (C,): training samples of each class.
        head: ``head(features, classes)`` builds what must replace the network's last linear layer; None: nothing.
    """

    name: str
    function: Callable[..., Tensor]
    task: str = "classification"
    chapter: str | None = None
    module: type[nn.Module] | None = None
    defaults: Mapping[str, float] = field(default_factory=dict)
    tunable: Mapping[str, Range] = field(default_factory=dict)
    needs_counts: bool = False
    head: Callable[[int, int], nn.Module] | None = None

    def bind(self, class_counts: Tensor) -> Callable[..., Tensor]:
        """The function of ``(output, y, **hyper)`` alone, for training data with these classes; `class_counts` (C,)."""
        return partial(self.function, class_counts=class_counts) if self.needs_counts else self.function


_ENTRIES: dict[tuple[str, str], LossEntry] = {}


def register_loss(
    name: str,
    function: Callable[..., Tensor],
    *,
    task: str = "classification",
    chapter: str | None = None,
    module: type[nn.Module] | None = None,
    defaults: Mapping[str, float] | None = None,
    tunable: Mapping[str, Range] | None = None,
    needs_counts: bool = False,
    head: Callable[[int, int], nn.Module] | None = None,
) -> LossEntry:
    """Lists a loss; the arguments are the attributes of `LossEntry`.

    Raises:
        ValueError: an unknown task, a name taken by another function, or a tunable hyperparameter without default.
    """
    if task not in TASKS:
        raise ValueError(f"task: one of {', '.join(TASKS)}, got {task!r}")
    entry = LossEntry(
        name, function, task, chapter, module, dict(defaults or {}), dict(tunable or {}), needs_counts, head
    )
    if missing := set(entry.tunable) - set(entry.defaults):
        raise ValueError(f"{name}: tunable without a default: {', '.join(sorted(missing))}")
    known = _ENTRIES.get((task, name))
    if known is not None and known.function.__qualname__ != function.__qualname__:
        raise ValueError(f"{name}: registered twice for {task}")
    _ENTRIES[task, name] = entry
    return entry


def registered_losses(task: str = "classification") -> list[LossEntry]:
    """Every loss of `lib.losses` for a task, by name.

    Raises:
        ValueError: an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"task: one of {', '.join(TASKS)}, got {task!r}")
    room = importlib.import_module("lib.losses")
    for found in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"lib.losses.{found.name}")
    return [entry for key, entry in sorted(_ENTRIES.items()) if key[0] == task]
