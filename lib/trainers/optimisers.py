"""SGD, Adam and AdamW as plain formulas over a stack of runs, each run with its own learning rate and weight decay.

The same numbers as `torch.optim` with one optimiser a run (tested), but one set of tensor operations for all runs.
A stack of R runs holds all parameters of a run in one row: shape (R, P).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["SGD", "Adam", "AdamW", "Optimiser"]


class Optimiser(Protocol):
    """Settings of an optimiser, with its update for a stack of runs and its counterpart in torch."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def weight_decay(self) -> float:
        """Weight decay."""

    def state(self, rows: Tensor) -> list[Tensor]:
        """Fresh state for parameters `rows` (R, P)."""

    def update(
        self, rows: Tensor, grad: Tensor, state: list[Tensor], step: int, lr: Tensor, decay: Tensor | None
    ) -> None:
        """Change `rows` and `state` in place; `grad` (R, P) may be overwritten; `lr`, `decay` (R, 1); step from 1."""

    def torch(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """The same optimiser of `torch.optim`, for one run."""


@dataclass(frozen=True)
class SGD:
    r"""Gradient descent with momentum and coupled weight decay, as in `torch.optim.SGD`.

    :math:`g \leftarrow g + \lambda w`, :math:`v \leftarrow \mu v + g`, :math:`w \leftarrow w - \eta v`
    (with `nesterov`: :math:`w \leftarrow w - \eta (g + \mu v)`).
    """

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def state(self, rows: Tensor) -> list[Tensor]:
        """Velocity, where there is momentum."""
        return [torch.zeros_like(rows)] if self.momentum else []

    def update(
        self, rows: Tensor, grad: Tensor, state: list[Tensor], step: int, lr: Tensor, decay: Tensor | None
    ) -> None:
        """One step for all runs, see `Optimiser.update`."""
        if decay is not None:
            grad.addcmul_(rows, decay)
        if self.momentum:
            velocity = torch.add(grad, state[0], alpha=self.momentum, out=state[0])
            grad = grad.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
        rows.addcmul_(grad, lr, value=-1)

    def torch(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """`torch.optim.SGD`."""
        return torch.optim.SGD(
            parameters, lr=lr, momentum=self.momentum, weight_decay=weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True)
class Adam:
    r"""Adam (Kingma and Ba, arXiv:1412.6980) with bias correction and coupled weight decay, as in `torch.optim.Adam`.

    :math:`w \leftarrow w - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)` with
    :math:`\hat m = m / (1 - \beta_1^t)`, :math:`\hat v = v / (1 - \beta_2^t)`.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def state(self, rows: Tensor) -> list[Tensor]:
        """First and second moment."""
        return [torch.zeros_like(rows), torch.zeros_like(rows)]

    def update(
        self, rows: Tensor, grad: Tensor, state: list[Tensor], step: int, lr: Tensor, decay: Tensor | None
    ) -> None:
        """One step for all runs, see `Optimiser.update`."""
        if decay is not None:
            grad.addcmul_(rows, decay)
        self._descend(rows, grad, state, step, lr)

    def _descend(self, rows: Tensor, grad: Tensor, state: list[Tensor], step: int, lr: Tensor) -> None:
        first, second = state
        first.lerp_(grad, 1 - self.beta1)
        second.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        scale = torch.sqrt(second, out=grad).div_((1 - self.beta2**step) ** 0.5).add_(self.eps)
        rows.addcmul_(torch.div(first, scale, out=scale), lr, value=-1 / (1 - self.beta1**step))

    def torch(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """`torch.optim.Adam`."""
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=self.eps, weight_decay=weight_decay)


@dataclass(frozen=True)
class AdamW(Adam):
    r"""Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), as in `torch.optim.AdamW`.

    First :math:`w \leftarrow (1 - \eta\lambda) w`, then the step of `Adam` without decay.
    """

    weight_decay: float = 0.01

    def update(
        self, rows: Tensor, grad: Tensor, state: list[Tensor], step: int, lr: Tensor, decay: Tensor | None
    ) -> None:
        """One step for all runs, see `Optimiser.update`."""
        if decay is not None:
            rows.mul_(1 - lr * decay)
        self._descend(rows, grad, state, step, lr)

    def torch(self, parameters: Iterable[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`."""
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=self.eps, weight_decay=weight_decay)
