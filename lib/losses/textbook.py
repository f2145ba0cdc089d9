"""Losses that every chapter compares with, listed for leaderboards; torch computes them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lib.losses.poly_loss import poly_loss
from lib.losses.registry import Range, register_loss

__all__ = ["brier_loss", "focal_loss", "label_smoothing_loss"]


def label_smoothing_loss(logits: Tensor, y: Tensor, alpha: float | Tensor = 0.1) -> Tensor:
    """Cross-entropy against ``(1 - alpha) onehot(y) + alpha / C`` (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Unlike ``F.cross_entropy(label_smoothing=alpha)``, alpha may be a tensor, one for each model of a stack.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        alpha: in [0, 1], not inspected; 0 is cross-entropy.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.
    """
    log_p = logits.log_softmax(-1)
    return (1 - alpha) * F.nll_loss(log_p, y) - alpha * log_p.mean(-1).mean()


def brier_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Squared error of the probabilities, ``mean_i sum_k (p_ik - 1[y_i = k])^2`` (Brier 1950).

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.
    """
    p = logits.softmax(-1)
    return (p.square().sum(-1) - 2 * p.gather(-1, y.unsqueeze(-1)).squeeze(-1) + 1).mean()


def focal_loss(logits: Tensor, y: Tensor, gamma: float | Tensor = 2.0) -> Tensor:
    """``-mean (1 - p_y)^gamma log p_y`` (Lin et al. 2017, arXiv:1708.02002, eq. 4); gamma = 0 is cross-entropy.

    Args:
        logits: shape (N, C), C >= 2.
        y: class indices, shape (N,).
        gamma: >= 0; a tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes do not fit, or gamma is a negative number.
    """
    return poly_loss(logits, y, 0.0, gamma)


register_loss("Cross-entropy", F.cross_entropy)
register_loss(
    "Label smoothing", label_smoothing_loss, defaults={"alpha": 0.1}, tunable={"alpha": Range(0.01, 0.5, log=True)}
)
register_loss("Focal", focal_loss, defaults={"gamma": 2.0}, tunable={"gamma": Range(0.25, 5.0, log=True)})
register_loss("Brier", brier_loss)
