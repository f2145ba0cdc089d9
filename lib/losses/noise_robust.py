"""Two classical losses for wrong labels: generalised cross-entropy and bootstrapping, the baselines of the part.

`generalised_cross_entropy`: Zhang and Sabuncu 2018, arXiv:1805.07836.  `bootstrapping_loss`: Reed et al. 2014,
arXiv:1412.6596.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.losses.registry import Range, register_loss

__all__ = ["bootstrapping_loss", "generalised_cross_entropy"]


def generalised_cross_entropy(logits: Tensor, y: Tensor, q: float | Tensor = 0.7) -> Tensor:
    """``mean (1 - p_y^q) / q``: cross-entropy for q -> 0, mean absolute error (1 - p_y) for q = 1 (eq. 6).

    Its gradient is that of cross-entropy times p_y^q, so labels that the network finds unlikely pull less.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        q: in (0, 1]; a tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: q is a number outside (0, 1].
    """
    if isinstance(q, (int, float)) and not 0 < q <= 1:
        raise ValueError(f"q must lie in (0, 1], got {q}")
    # expm1 keeps the digits of 1 - p^q where p is near 1 or q is small.
    return (-torch.expm1(-q * F.cross_entropy(logits, y, reduction="none")) / q).mean()


def bootstrapping_loss(logits: Tensor, y: Tensor, beta: float | Tensor = 0.8, hard: bool = True) -> Tensor:
    """Cross-entropy against ``beta onehot(y) + (1 - beta) r``, r the network's own belief, held constant.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).
        beta: weight of the given label, in [0, 1]; 1 is cross-entropy.  A tensor is not inspected.
        hard: r is the one-hot most probable class (eq. 7 of the paper), else the probabilities (eq. 6).

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: beta is a number outside [0, 1].
    """
    if isinstance(beta, (int, float)) and not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1], got {beta}")
    log_p = logits.log_softmax(-1)
    own = -log_p.amax(-1) if hard else -(log_p.detach().exp() * log_p).sum(-1)
    return (beta * F.cross_entropy(logits, y, reduction="none") + (1 - beta) * own).mean()


register_loss("GCE", generalised_cross_entropy, defaults={"q": 0.7}, tunable={"q": Range(0.05, 1.0)})
register_loss("Bootstrapping", bootstrapping_loss, defaults={"beta": 0.8}, tunable={"beta": Range(0.5, 1.0)})
