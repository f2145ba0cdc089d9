r"""Label-distributionally robust losses LDR-KL and ALDR-KL (arXiv 2112.14869; github.com/Optimization-AI/ICML2023_LDR).

Scores f, label y, margins :math:`d_k = f_k - f_y + c\,1[k \ne y]`.  The worst case over a distribution p on the K
classes, penalised by its divergence from the uniform one, has a closed form:

.. math::

    L_\lambda = \max_p \sum_k p_k d_k - \lambda\, \mathrm{KL}(p \,\|\, 1/K)
              = \lambda \log \frac1K \sum_k e^{d_k / \lambda} .

:math:`\lambda = 1` and c = 0 is cross-entropy minus log K, :math:`\lambda \to 0` the hinge of Crammer and Singer
(:math:`\max_k d_k`), :math:`\lambda \to \infty` the mean of the d_k, which is symmetric in the label.  In general it is
cross-entropy at temperature lambda of scores with an additive margin.  ALDR maximises over lambda as well, one for each
training sample:

.. math::

    L = \max_{p, \lambda} \sum_k p_k d_k - \lambda\, \mathrm{KL}(p \,\|\, 1/K)
        - \frac{\alpha \log K}{2 \lambda_0} (\lambda - \lambda_0)^2 ,
    \qquad \lambda = \lambda_0 - \frac{\lambda_0 \mathrm{KL}(p \,\|\, 1/K)}{\alpha \log K} ,

with lambda updated once a visit.  As in the authors' code the scores are divided by their mean absolute value first
(after softplus in LDR), the gradient passes through that division, p in the update is the softmax of the scores without
margin and label, and lambda is held constant in the gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = ["ALDRLoss", "LDRLoss", "aldr_loss", "crammer_singer_loss", "ldr_loss", "ldr_margins", "unit_scores"]


def unit_scores(logits: Tensor, softplus: bool = True) -> Tensor:
    """Scores of mean absolute value 1, shape (..., K): logits (after softplus) over their mean absolute value.

    Scores that are all zero have no direction: they become NaN (softplus cannot make zeros).
    """
    scores = F.softplus(logits) if softplus else logits
    return scores / scores.abs().mean(-1, keepdim=True)


def ldr_margins(scores: Tensor, y: Tensor, margin: float | Tensor = 0.1) -> Tensor:
    """``d_k = f_k - f_y + margin 1[k != y]`` for scores (..., K) and class indices (...): shape (..., K); d_y is 0.

    Raises:
        ValueError: shapes do not fit, or fewer than two classes.
    """
    if scores.ndim < 1 or scores.shape[-1] < 2 or scores.shape[:-1] != y.shape:
        raise ValueError(f"need scores (..., K), K >= 2, and y (...), got {tuple(scores.shape)} and {tuple(y.shape)}")
    index = y.long().unsqueeze(-1)
    others = torch.arange(scores.shape[-1], device=scores.device) != index
    return scores - scores.gather(-1, index) + margin * others.to(scores.dtype)


def ldr_loss(
    logits: Tensor,
    y: Tensor,
    lam: float | Tensor = 1.0,
    margin: float | Tensor = 0.1,
    softplus: bool = True,
    normalise: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """LDR-KL loss ``lam log mean_k exp(d_k / lam)``.

    Args:
        logits: shape (..., K).
        y: class indices, shape (...).
        lam: temperature > 0 in units of the (normalised) scores; a tensor of shape () or (...) is not inspected.
        margin: added to the scores of the other classes.
        softplus: apply softplus before the normalisation, as the authors' code does.
        normalise: divide the scores by their mean absolute value; without it softplus is not applied either.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or shape (...) for "none"; negative where the label leads by enough.  A NaN logit
        makes the loss of its sample NaN; so is the mean of no samples.

    Raises:
        ValueError: shapes or `reduction` do not fit, or lam is a number that is not positive.
        RuntimeError: a label outside [0, K) (from torch).
    """
    if isinstance(lam, (int, float)) and not lam > 0:
        raise ValueError(f"lam must be positive, got {lam}")
    d = ldr_margins(unit_scores(logits, softplus) if normalise else logits, y, margin)
    return _reduced(_worst_case(d, lam), reduction)


def aldr_loss(
    logits: Tensor,
    y: Tensor,
    lam: Tensor,
    lam0: float | Tensor = 1.0,
    alpha: float | Tensor = 2.0,
    margin: float | Tensor = 0.1,
    softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """ALDR-KL loss of one visit, and the temperatures that it leaves behind.

    Args:
        logits: shape (N, K).
        y: class indices, shape (N,).
        lam: temperatures of these samples so far, shape (N,); 0 stands for a sample that was not seen yet (lam0).
        lam0: initial and largest temperature, > 0.
        alpha: weight of the pull towards lam0, > 1.  Tensors are not inspected.
        margin: see `ldr_loss`.
        softplus: see `ldr_loss`.

    Returns:
        The scalar mean loss, and the new temperatures (N,) in [lam0 (1 - 1/alpha), lam0], without gradient.

    Raises:
        ValueError: shapes do not fit, lam0 is not positive, or alpha is at most 1 (temperatures could reach 0).
    """
    for name, value, least in (("lam0", lam0, 0), ("alpha", alpha, 1)):
        if isinstance(value, (int, float)) and not value > least:
            raise ValueError(f"{name} must be above {least}, got {value}")
    scores = unit_scores(logits, softplus)
    d = ldr_margins(scores, y, margin)
    log_k = math.log(logits.shape[-1])
    before = torch.where(lam > 0, lam, lam0)
    with torch.no_grad():
        p = (scores / before.unsqueeze(-1)).softmax(-1) + 1e-5  # the authors' guard of the logarithm
        p = p / p.sum(-1, keepdim=True)
        divergence = (p * p.log()).sum(-1) + log_k
        lam = (lam0 - lam0 * divergence / (alpha * log_k)).to(logits.dtype)
    pull = alpha * log_k / (2 * lam0) * (lam - lam0).square()
    return (_worst_case(d, lam) - pull).mean(), lam


def crammer_singer_loss(logits: Tensor, y: Tensor, margin: float | Tensor = 1.0) -> Tensor:
    """Multi-class hinge ``mean max_k (z_k - z_y + margin 1[k != y])`` (Crammer and Singer 2001), at least 0.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        margin: that the true class has to lead by.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    return ldr_margins(logits, y, margin).amax(-1).mean()


class LDRLoss(nn.Module):
    """`ldr_loss` as a module.

    Args:
        lam: temperature, > 0.
        margin: added to the scores of the other classes.
        softplus: before the normalisation.
        normalise: divide the scores by their mean absolute value.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: an argument that `ldr_loss` refuses.

    >>> loss = LDRLoss(lam=1.0, margin=0.0, normalise=False)
    >>> round(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item(), 5)
    -0.37989
    """

    def __init__(
        self,
        lam: float = 1.0,
        margin: float = 0.1,
        softplus: bool = True,
        normalise: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.lam, self.margin, self.softplus, self.normalise, self.reduction = (
            lam,
            margin,
            softplus,
            normalise,
            reduction,
        )
        self(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))  # refuse bad arguments now, not in the first step

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (..., K) against class indices (...)."""
        return ldr_loss(logits, y, self.lam, self.margin, self.softplus, self.normalise, self.reduction)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"lam={self.lam}, margin={self.margin}, softplus={self.softplus}, normalise={self.normalise}"


class ALDRLoss(nn.Module):
    """`aldr_loss` with the temperatures of the training samples as a buffer.

    Args:
        n_train: number of training samples.
        lam0: initial temperature, > 0.
        alpha: weight of the pull towards it, > 1.
        margin: added to the scores of the other classes.
        softplus: before the normalisation.

    Attributes:
        lam: temperatures, shape (n_train,).

    Raises:
        ValueError: an argument that `aldr_loss` refuses.
    """

    lam: Tensor

    def __init__(
        self, n_train: int, lam0: float = 1.0, alpha: float = 2.0, margin: float = 0.1, softplus: bool = False
    ) -> None:
        super().__init__()
        self.lam0, self.alpha, self.margin, self.softplus = lam0, alpha, margin, softplus
        self.register_buffer("lam", torch.full((n_train,), float(lam0)))
        aldr_loss(torch.ones(1, 2), torch.zeros(1, dtype=torch.long), torch.ones(1), lam0, alpha, margin, softplus)

    def forward(self, logits: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Loss of logits (N, K), class indices y (N,) of the training samples `index` (N,); updates their lam."""
        lam = self.lam[index]
        loss, new = aldr_loss(logits, y, lam, self.lam0, self.alpha, self.margin, self.softplus)
        if self.training:
            self.lam[index] = new.to(self.lam.dtype)
        return loss

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"n_train={len(self.lam)}, lam0={self.lam0}, alpha={self.alpha}, margin={self.margin}"


def _worst_case(d: Tensor, lam: float | Tensor) -> Tensor:
    """lam log mean_k exp(d_k / lam), shape (...) for d (..., K); lam a number, of shape () or (...)."""
    scale = lam.unsqueeze(-1) if isinstance(lam, Tensor) and lam.ndim else lam
    return lam * ((d / scale).logsumexp(-1) - math.log(d.shape[-1]))


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")
    return loss.mean() if reduction == "mean" else loss.sum()


register_loss(
    "LDR",
    ldr_loss,
    chapter="ldr-loss",
    module=LDRLoss,
    defaults={"lam": 1.0, "margin": 0.1},
    tunable={"lam": Range(0.1, 10.0, log=True), "margin": Range(0.0, 2.0)},
)
register_loss(
    "Crammer-Singer", crammer_singer_loss, defaults={"margin": 1.0}, tunable={"margin": Range(0.1, 10.0, log=True)}
)
