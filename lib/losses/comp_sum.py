"""Comp-sum losses (arXiv 2304.07288): sum-exponential, cross-entropy, generalised cross-entropy and MAE as one family.

With scores h(x, k), the sum ``u = sum_{k != y} exp(h(x, k) - h(x, y))`` and the softmax probability
``p_y = 1 / (1 + u)``, a loss of the family composes a concave function with that sum (section 2)::

    L = Phi_tau(u),   Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau)   (tau >= 0),   Phi_1(u) = log(1 + u)

tau = 0 is the sum-exponential loss, tau = 1 cross-entropy, tau in (1, 2) generalised cross-entropy with q = tau - 1,
and tau = 2 the mean absolute error 1 - p_y.  All of them have the gradient of cross-entropy up to a weight,
``dL/dh_k = p_y^(tau - 1) (p_k - 1[k = y])``.

Everything is computed from cross-entropy, ``L = expm1((1 - tau) CE) / (1 - tau)``: precise near p_y = 1 and tau = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = ["CompSumLoss", "comp_sum_loss", "phi_tau"]


def comp_sum_loss(logits: Tensor, y: Tensor, tau: float | Tensor = 1.0, reduction: str = "mean") -> Tensor:
    """Comp-sum loss Phi_tau of softmax predictions.

    Args:
        logits: shape (..., C).
        y: class indices, shape (...).
        tau: member of the family, >= 0.  A tensor of shape () is not inspected, so that `torch.func.vmap` can carry one
            tau a model; it may be 1 and may be differentiated there too.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or shape (...) for "none".  Below tau = 1 the loss grows like exp((1 - tau) CE) and overflows to
        infinity where (1 - tau) CE exceeds 88 (float32); above, it is bounded by 1 / (tau - 1).  A NaN logit
        makes the loss of its sample NaN; so is the mean of no samples.

    Raises:
        ValueError: shapes or `reduction` do not fit, or tau is a negative number.
        RuntimeError: a label outside [0, C) (from torch).
    """
    if logits.ndim < 1 or logits.shape[:-1] != y.shape:
        raise ValueError(f"need logits (..., C) and y (...), got {tuple(logits.shape)} and {tuple(y.shape)}")
    ce = -logits.log_softmax(-1).gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
    return _reduced(phi_tau(ce, tau), reduction)


def phi_tau(ce: Tensor, tau: float | Tensor) -> Tensor:
    """Phi_tau of the sum whose ``log(1 + u)`` is `ce` (any shape); see `comp_sum_loss`."""
    if isinstance(tau, (int, float)):
        if not tau >= 0:
            raise ValueError(f"tau must be at least 0, got {tau}")
        return ce if tau == 1 else torch.expm1((1 - tau) * ce) / (1 - tau)
    power = 1 - tau
    near = power == 0
    other = torch.where(near, 1.0, power)
    # At tau = 1 the first two terms of the series: value and derivative by tau are then right.
    return torch.where(near, ce + power * ce.square() / 2, torch.expm1(other * ce) / other)


class CompSumLoss(nn.Module):
    """`comp_sum_loss` as a module.

    Args:
        tau: member of the family, >= 0; 1 is cross-entropy.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an argument that `comp_sum_loss` refuses.

    >>> loss = CompSumLoss(tau=2.0)
    >>> round(loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])).item(), 5)
    0.33476
    """

    def __init__(self, tau: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.tau, self.reduction = tau, reduction
        self(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))  # refuse bad arguments now, not in the first step

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (..., C) against class indices (...)."""
        return comp_sum_loss(logits, y, self.tau, self.reduction)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"tau={self.tau}, reduction={self.reduction!r}"


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")
    return loss.mean() if reduction == "mean" else loss.sum()


register_loss(
    "Comp-sum",
    comp_sum_loss,
    chapter="comp-sum-loss",
    module=CompSumLoss,
    defaults={"tau": 1.0},
    tunable={"tau": Range(0.5, 1.9)},
)
