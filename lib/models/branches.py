"""An encoder with several heads side by side, e.g. a classifier and a projector on the same features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Branches"]


class Branches(nn.Module):
    """Features and what every head makes of them: ``(r, head_1(r), head_2(r), ...)``.

    (`Stages` is the same for modules one *after* the other.)

    Args:
        encoder: inputs -> features r.
        heads: each takes r.
        scalars: starting values of further trained numbers, e.g. the logarithm of a temperature, which come last as one
            more output, the same row for every sample (a loss averages it, or takes the first).

    Shape:
        (N, ...) -> tuple of (N, ...), with `scalars` the last one (N, number of scalars).
    """

    def __init__(self, encoder: nn.Module, *heads: nn.Module, scalars: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleList(heads)
        self.scalars = nn.Parameter(torch.tensor(scalars)) if scalars else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features, outputs of the heads, scalars."""
        r = self.encoder(x)
        outputs = (r, *(head(r) for head in self.heads))
        return outputs if self.scalars is None else (*outputs, self.scalars.expand(len(r), -1))
