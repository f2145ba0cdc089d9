r"""Losses that know how many training samples each class has: re-weighting, margins, and adjusted logits.

With n_k samples of class k, N = sum_k n_k, prior pi_k = n_k / N and logits z, all of them are a weighted cross-entropy
of shifted and scaled logits (the general form is that of Kini et al. 2021)::

    L = sum_i omega_{y_i} l_i / sum_i omega_{y_i},      l_i = -log softmax(s (Delta z - m_y onehot(y)) + iota)_y

- class-balanced cross-entropy (Cui et al. 2019, arXiv:1901.05555): omega_k ~ (1 - beta) / (1 - beta^n_k),
  the inverse effective number of samples.  beta = 0 is cross-entropy, beta -> 1 weighs by 1 / n_k.
- logit adjustment (Menon et al. 2020, arXiv:2007.07314, eq. 10): iota_k = tau log pi_k; by argmax of the plain
  logits Fisher consistent for the balanced error at tau = 1.
- LDAM (Cao et al. 2019, arXiv:1906.07413): m_k ~ n_k^(-1/4), the largest m_k set to `max_margin`; z are
  cosines and s = 30.
- vector scaling, VS (Kini et al. 2021, arXiv:2103.01550): Delta_k = (n_k / n_max)^gamma, iota_k = tau log pi_k.

gamma = 0 makes VS logit adjustment, tau = 0 too cross-entropy.  A margin and an additive shift act from the first step
on, a weight hardly at all once the network separates the classes; therefore weights are often *deferred* (DRW: beta = 0
for most of training, see `lib.trainers.train_deferred`), and each loss here takes beta for that purpose.

The mean is weighted as `torch.nn.CrossEntropyLoss(weight=...)` does it.  Hyperparameters may be tensors of shape ().
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = [
    "CosineHead",
    "VSLoss",
    "class_balanced_loss",
    "effective_number_weights",
    "ldam_loss",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_loss",
    "vs_loss",
    "vs_scales",
]

Number = float | Tensor


def effective_number_weights(class_counts: Tensor, beta: Number = 0.9999) -> Tensor:
    """Weights (1 - beta) / (1 - beta^n_k), scaled to mean 1; shape (C,).

    Args:
        class_counts: n_k >= 1, shape (C,).
        beta: in [0, 1); 0 gives ones, beta -> 1 weights proportional to 1 / n_k.

    Raises:
        ValueError: a number beta outside [0, 1).
    """
    if isinstance(beta, (int, float)) and not 0 <= beta < 1:
        raise ValueError(f"beta: in [0, 1), got {beta}")
    counts = class_counts if class_counts.is_floating_point() else class_counts.to(torch.get_default_dtype())
    log_beta = torch.as_tensor(beta, dtype=counts.dtype, device=counts.device).log()
    weights = 1 / -torch.expm1(counts * log_beta)  # 1 - beta^n without cancellation; beta = 0 gives 1
    return weights / weights.mean()


def log_prior(class_counts: Tensor) -> Tensor:
    """log pi_k = log(n_k / N), shape (C,)."""
    counts = class_counts if class_counts.is_floating_point() else class_counts.to(torch.get_default_dtype())
    return (counts / counts.sum()).log()


def ldam_margins(class_counts: Tensor, max_margin: Number = 0.5) -> Tensor:
    """Margins m_k ~ n_k^(-1/4), that of the rarest class `max_margin`; shape (C,)."""
    return max_margin * (class_counts / class_counts.min()) ** -0.25


def vs_scales(class_counts: Tensor, gamma: Number = 0.3) -> Tensor:
    """Factors Delta_k = (n_k / n_max)^gamma in (0, 1]; shape (C,)."""
    scales: Tensor = (class_counts / class_counts.max()) ** gamma
    return scales


def class_balanced_loss(logits: Tensor, y: Tensor, class_counts: Tensor, beta: Number = 0.9999) -> Tensor:
    """Cross-entropy weighted by the inverse effective number of samples; beta = 0 is cross-entropy.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        class_counts: training samples of each class, shape (C,).
        beta: in [0, 1).

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: counts that do not fit the logits, or a number beta outside [0, 1).
    """
    _check(logits, y, class_counts)
    return _weighted(logits, y, class_counts, beta)


def logit_adjusted_loss(
    logits: Tensor, y: Tensor, class_counts: Tensor, tau: Number = 1.0, beta: Number = 0.0
) -> Tensor:
    """Cross-entropy of ``z + tau log pi``; predict by the argmax of z alone.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        class_counts: shape (C,).
        tau: 0 is cross-entropy, 1 is consistent for the balanced error.
        beta: of the weights, see `class_balanced_loss`.

    Returns:
        Scalar, as `class_balanced_loss`.

    Raises:
        ValueError: as `class_balanced_loss`.
    """
    _check(logits, y, class_counts)
    return _weighted(logits + tau * log_prior(class_counts).to(logits), y, class_counts, beta)


def vs_loss(
    logits: Tensor,
    y: Tensor,
    class_counts: Tensor,
    gamma: Number = 0.3,
    tau: Number = 1.0,
    beta: Number = 0.0,
) -> Tensor:
    """Vector-scaling loss: cross-entropy of ``Delta z + tau log pi``, Delta_k = (n_k / n_max)^gamma.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        class_counts: shape (C,).
        gamma: 0 is logit adjustment.
        tau: of the additive part.
        beta: of the weights, see `class_balanced_loss`.

    Returns:
        Scalar, as `class_balanced_loss`.

    Raises:
        ValueError: as `class_balanced_loss`.
    """
    _check(logits, y, class_counts)
    scales = vs_scales(class_counts, gamma).to(logits)
    return _weighted(scales * logits + tau * log_prior(class_counts).to(logits), y, class_counts, beta)


def ldam_loss(
    cosines: Tensor,
    y: Tensor,
    class_counts: Tensor,
    max_margin: Number = 0.5,
    scale: Number = 30.0,
    beta: Number = 0.0,
) -> Tensor:
    """Label-distribution-aware margin loss: the true class competes with a handicap that grows as it gets rarer.

    Args:
        cosines: of features and class vectors (see `CosineHead`), shape (N, C).
        y: class indices, shape (N,).
        class_counts: shape (C,).
        max_margin: that of the rarest class; 0 is the scaled cosine softmax.
        scale: s.
        beta: of the weights, see `class_balanced_loss`.

    Returns:
        Scalar, as `class_balanced_loss`.

    Raises:
        ValueError: as `class_balanced_loss`.
    """
    _check(cosines, y, class_counts)
    true = (y[:, None] == torch.arange(cosines.shape[-1], device=y.device)).to(cosines)
    margins = ldam_margins(class_counts, max_margin).to(cosines)
    return _weighted(scale * (cosines - margins * true), y, class_counts, beta)


def _check(logits: Tensor, y: Tensor, class_counts: Tensor) -> None:
    if logits.ndim != 2 or class_counts.shape != logits.shape[1:] or y.shape != logits.shape[:1]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (logits, y, class_counts))
        raise ValueError(f"expected logits (N, C), y (N,) and class_counts (C,), got {shapes}")


def _weighted(logits: Tensor, y: Tensor, class_counts: Tensor, beta: Number) -> Tensor:
    weight = effective_number_weights(class_counts, beta).to(logits)[y]
    missed = -logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1)
    return (weight * missed).sum() / weight.sum()


class CosineHead(nn.Module):
    """Last layer without bias whose outputs are cosines of features and class vectors.

    Args:
        features: D.
        classes: C; their vectors start Gaussian, so uniformly distributed in direction.

    Shape:
        (..., D) -> (..., C), in [-1, 1]; a zero feature has cosine 0.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, features))

    def forward(self, x: Tensor) -> Tensor:
        """Cosines."""
        return F.normalize(x, dim=-1) @ F.normalize(self.weight, dim=-1).T


class VSLoss(nn.Module):
    """`vs_loss` as a module; gamma = 0 is logit adjustment.

    Args:
        class_counts: training samples of each class, at least 1; kept as a buffer.
        gamma: of the factors.
        tau: of the shifts.
        beta: of the weights.

    Raises:
        ValueError: counts that are not a vector of numbers of at least 1.

    >>> round(VSLoss([3, 1], gamma=0.0)(torch.zeros(1, 2), torch.tensor([1])).item(), 6)
    1.386294
    """

    class_counts: Tensor

    def __init__(
        self, class_counts: Tensor | Sequence[int], gamma: float = 0.3, tau: float = 1.0, beta: float = 0.0
    ) -> None:
        super().__init__()
        counts = torch.as_tensor(class_counts).to(torch.get_default_dtype())
        if counts.ndim != 1 or not bool((counts >= 1).all()):
            raise ValueError(f"class_counts: a vector of counts of at least 1, got {counts.tolist()}")
        self.register_buffer("class_counts", counts)
        self.gamma, self.tau, self.beta = gamma, tau, beta

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (N, C) with labels (N,): a scalar."""
        return vs_loss(logits, y, self.class_counts, self.gamma, self.tau, self.beta)


register_loss(
    "Class-balanced",
    class_balanced_loss,
    defaults={"beta": 0.9999},
    tunable={"beta": Range(0.9, 0.9999)},
    needs_counts=True,
)
register_loss(
    "Logit adjustment",
    logit_adjusted_loss,
    defaults={"tau": 1.0},
    tunable={"tau": Range(0.25, 2.0)},
    needs_counts=True,
)
register_loss(
    "Vector scaling",
    vs_loss,
    chapter="saddle-longtail-sam",
    module=VSLoss,
    defaults={"gamma": 0.3, "tau": 1.0},
    tunable={"gamma": Range(0.0, 0.5), "tau": Range(0.25, 2.0)},
    needs_counts=True,
)
register_loss(
    "LDAM",
    ldam_loss,
    defaults={"max_margin": 0.5, "scale": 30.0},
    tunable={"max_margin": Range(0.1, 0.8), "scale": Range(5.0, 40.0, log=True)},
    needs_counts=True,
    head=CosineHead,
)
