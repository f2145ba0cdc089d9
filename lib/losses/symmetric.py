"""Symmetric losses, whose sum over all labels is constant: robust to uniform label noise (Ghosh et al. 2017).

`mae_loss`: Ghosh, Kumar, Sastry 2017, arXiv:1712.09482.  `normalised_cross_entropy`, `reverse_cross_entropy` and their
sum: Ma et al. 2020, arXiv:2006.13554, eqs. 4 and 8, after Wang et al. 2019, arXiv:1908.06112.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lib.losses.registry import Range, register_loss

__all__ = ["mae_loss", "nce_rce_loss", "normalised_cross_entropy", "reverse_cross_entropy"]

LOG_ZERO = -9.210340371976182
"""log 1e-4: what reverse cross-entropy takes for the logarithm of a label's zero."""


def mae_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error ``mean 1 - p_y`` (half the l1 distance to the one-hot label).

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar in [0, 1].  NaN for a NaN logit and for no samples.
    """
    return -F.cross_entropy(logits, y, reduction="none").neg().expm1().mean()


def normalised_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy over its sum over all labels, ``mean log p_y / sum_k log p_k``.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar in [0, 1].  NaN for a NaN logit and for no samples.
    """
    log_p = logits.log_softmax(-1)
    return (log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1) / log_p.sum(-1)).mean()


def reverse_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with prediction and label exchanged, ``- sum_k p_k log q_k`` with log 0 := log 1e-4.

    Equal to 9.2103 times `mae_loss`.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.
    """
    return -LOG_ZERO * mae_loss(logits, y)


def nce_rce_loss(logits: Tensor, y: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 1.0) -> Tensor:
    """Active and passive loss, ``alpha NCE + beta RCE``.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        alpha: weight of `normalised_cross_entropy`, >= 0.
        beta: weight of `reverse_cross_entropy`, >= 0.  Tensors are not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: a weight is a negative number.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if isinstance(value, (int, float)) and not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    return alpha * normalised_cross_entropy(logits, y) + beta * reverse_cross_entropy(logits, y)


register_loss("MAE", mae_loss)
register_loss(
    "NCE + RCE",
    nce_rce_loss,
    defaults={"alpha": 1.0, "beta": 1.0},
    tunable={"alpha": Range(0.1, 10.0, log=True), "beta": Range(0.1, 10.0, log=True)},
)
