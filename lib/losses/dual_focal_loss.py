"""Dual focal loss (arXiv 2305.13665): a focal weight made of the margin over the next-ranked class.

With p = softmax(z), the probability p_y of the true class y, and the largest probability ranked below it::

    p_j = max { p_k : p_k < p_y }        (0 where there is none)
    L   = -(1 - p_y + p_j)^gamma log p_y

so that gamma = 0 is cross-entropy, and p_j = 0 would be focal loss.  "Below" is strict, as in the authors' code: for a
sample that is classified wrongly p_j is not the top class, and for a true class in the last place it is 0.  Nothing is
detached; the choice of j is not differentiated.  The mean over the batch is the default here, where the authors' code
sums.

Everything is computed in the log domain: log(1 - p_y) = log sigmoid(m) with m = log((1 - p_y) / p_y) keeps its relative
precision where 1 - p_y itself rounds to zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.poly_loss import poly_loss
from lib.losses.registry import Range, register_loss

__all__ = ["DualFocalLoss", "dual_focal_loss", "flsd_loss", "next_ranked_gap"]


def dual_focal_loss(logits: Tensor, target: Tensor, gamma: float | Tensor = 5.0, reduction: str = "mean") -> Tensor:
    """Dual focal loss -(1 - p_y + p_j)^gamma log p_y of softmax predictions.

    Args:
        logits: shape (..., C), C >= 2 classes.
        target: class indices, shape (...).
        gamma: exponent, >= 0; 0 is cross-entropy.  A tensor is not inspected, so that
            `torch.func.vmap` can carry one gamma a model.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or shape (...) for "none".  A NaN logit makes the loss of its sample
        NaN; so is the mean of no samples.

    Raises:
        ValueError: shapes or `reduction` do not fit, or gamma < 0.
        TypeError: `target` is not integer.
        RuntimeError: a label outside [0, C) (from torch).
    """
    if isinstance(gamma, (int, float)) and not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    log_p, log_q, log_next = _ranked(logits, target)
    loss = -torch.exp(gamma * torch.logaddexp(log_q, log_next)) * log_p
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")
    return loss.mean() if reduction == "mean" else loss.sum()


def next_ranked_gap(logits: Tensor, target: Tensor) -> Tensor:
    """The gap p_y - p_j in (0, 1] that the loss widens, for logits (..., C) and class indices (...): shape (...).

    Raises:
        ValueError: shapes do not fit.
        TypeError: `target` is not integer.
    """
    log_p, _, log_next = _ranked(logits, target)
    return log_p.exp() - log_next.exp()


def flsd_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float | Tensor = 3.0,
    gamma_hard: float | Tensor = 5.0,
    threshold: float = 0.2,
) -> Tensor:
    """Focal loss with a sample-dependent exponent, FLSD-53 (arXiv 2002.09437): the mean of -(1 - p_y)^g log p_y.

    The exponent g is `gamma_hard` where p_y < `threshold`, else `gamma`; equal exponents are focal loss.

    Args:
        logits: shape (N, C), C >= 2 classes.
        target: class indices, shape (N,).
        gamma: exponent of the others, >= 0; tensors are not inspected.
        gamma_hard: exponent of samples that are far from learnt, >= 0.
        threshold: on p_y.

    Raises:
        ValueError: shapes do not fit, or an exponent is negative.
        TypeError: `target` is not integer.
    """
    for exponent in (gamma, gamma_hard):
        if isinstance(exponent, (int, float)) and not exponent >= 0:
            raise ValueError(f"gamma must be at least 0, got {exponent}")
    log_p, _, _ = _ranked(logits, target)
    hard = (log_p.detach().exp() < threshold).to(log_p)
    return poly_loss(logits, target, 0.0, gamma + (gamma_hard - gamma) * hard)


class DualFocalLoss(nn.Module):
    """`dual_focal_loss` as a module.

    Args:
        gamma: exponent, >= 0; the paper's choice for most of its networks is 5.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an argument that `dual_focal_loss` refuses.

    >>> loss = DualFocalLoss(gamma=5.0)
    >>> round(loss(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([0])).item(), 6)
    0.011146
    """

    def __init__(self, gamma: float = 5.0, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction
        self(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))  # refuse bad arguments now, not in the first step

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (..., C) against class indices (...)."""
        return dual_focal_loss(logits, target, self.gamma, self.reduction)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"gamma={self.gamma}, reduction={self.reduction!r}"


def _ranked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p_y, log(1 - p_y) and log p_j (-inf where no class ranks below the true one)."""
    if logits.ndim < 1 or logits.shape[-1] < 2 or logits.shape[:-1] != target.shape:
        shapes = f"logits {tuple(logits.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"need logits (..., C) with C >= 2 and target (...), got {shapes}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold class indices, got {target.dtype}")
    index = target.long().unsqueeze(-1)
    true = logits.gather(-1, index)
    margin = (logits.scatter(-1, index, -torch.inf).logsumexp(-1, keepdim=True) - true).squeeze(-1)
    log_p, log_q = F.logsigmoid(-margin), F.logsigmoid(margin)
    # Ranks are those of the logits, which rounding in the softmax cannot make equal.
    below = logits.masked_fill(logits >= true, -torch.inf).amax(-1)
    return log_p, log_q, log_p + (below - true.squeeze(-1))


register_loss(
    "Dual focal",
    dual_focal_loss,
    chapter="dual-focal-loss",
    module=DualFocalLoss,
    defaults={"gamma": 5.0},
    tunable={"gamma": Range(0.5, 8.0)},
)
