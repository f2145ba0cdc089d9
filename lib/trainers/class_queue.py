"""A queue of keys with places for every class: first in, first out within a class.

In a plain queue (MoCo) a rare class is often absent.  Here every class owns places, at least `base` and beyond that in
proportion to its training samples, and new keys overwrite the oldest of their own class (the queue of Suh and Seo 2023,
arXiv:2305.01160).  Without Python decisions on values: works under `torch.func.vmap`, and as the state of a
`lib.trainers.ViewMethod`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = ["ClassQueue"]

State = dict[str, Tensor]


class ClassQueue:
    """Places and labels of the queue; the keys themselves are a state that is handed around.

    Args:
        class_counts: training samples of each class.
        size: of the queue, at least `base` a class.
        dim: of a key.
        base: places that every class gets.

    Attributes:
        places: of each class, shape (C,).
        labels: class that owns each place, shape (size,).

    Raises:
        ValueError: fewer places than `base` a class, or `base` below 1.
    """

    def __init__(self, class_counts: Sequence[int] | Tensor, size: int, dim: int, base: int = 2) -> None:
        counts = torch.as_tensor(class_counts).double()
        if base < 1 or size < base * len(counts):
            raise ValueError(f"{size} places for {len(counts)} classes of at least {base}")
        ends = base * torch.arange(1, len(counts) + 1) + (size - base * len(counts)) * (counts / counts.sum()).cumsum(0)
        edges = torch.cat([torch.zeros(1), ends.round()]).long()
        self.places = edges.diff()
        self.first = edges[:-1]
        self.labels = torch.arange(len(counts)).repeat_interleave(self.places)
        self.dim = dim

    def start(self, generator: Generator | None = None) -> State:
        """An empty queue: keys (size + 1, dim), index (size + 1,) of the sample of a key, and keys seen by class (C,).

        Where there is no key the index is -1.  The last row is where keys without a place go.
        """
        rows = len(self.labels) + 1
        return {
            "keys": torch.zeros(rows, self.dim),
            "index": -torch.ones(rows),
            "seen": torch.zeros(len(self.places)),
        }

    def push(self, state: State, keys: Tensor, labels: Tensor, index: Tensor) -> State:
        """The queue after a batch: the oldest keys of each class are overwritten.

        Args:
            state: of `start` or `push`.
            keys: shape (B, dim); no gradient is kept.
            labels: their classes, shape (B,).
            index: numbers of the samples, shape (B,).

        Returns:
            A new state.  Of more keys of a class than it has places the first ones are kept.
        """
        home = keys.device
        own = (labels[:, None] == torch.arange(len(self.places), device=home)).to(keys.dtype)
        turn = ((own.cumsum(0) - 1) * own).sum(1)  # how many of its class come before it in the batch
        places, first = self.places.to(home)[labels], self.first.to(home)[labels]
        place = first + ((state["seen"][labels] + turn) % places).long()
        place = torch.where(turn < places, place, len(self.labels))
        rows = place[:, None].expand(-1, self.dim)
        return {
            "keys": state["keys"].scatter(0, rows, keys.detach().to(state["keys"])),
            "index": state["index"].scatter(0, place, index.to(state["index"])),
            "seen": state["seen"] + own.sum(0).clamp(max=self.places.to(own)),
        }

    def filled(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (size, dim), index (size,), and 1 where there is a key, else 0 (size,)."""
        index = state["index"][:-1]
        return state["keys"][:-1], index, (index >= 0).to(state["keys"].dtype)
