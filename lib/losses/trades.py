"""TRADES (Zhang et al. 2019, arXiv:1901.08573): accuracy at the input plus agreement in a ball around it (section 3)::

    L = CE(z(x), y) + lambda max_{|x' - x| <= eps} KL(p(x) || p(x'))

The maximum is searched by projected gradient ascent on `kl_divergences`; x' is then held constant, and both z(x) and
z(x') are differentiated.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["kl_divergences", "trades_loss"]


def kl_divergences(logits: Tensor, moved: Tensor) -> Tensor:
    """``KL(softmax(logits) || softmax(moved))`` of each sample: shapes (N, C), (N, C) -> (N,), in nats."""
    log_p, log_q = logits.log_softmax(-1), moved.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def trades_loss(logits: Tensor, moved: Tensor, y: Tensor, lam: float | Tensor = 6.0) -> Tensor:
    """Cross-entropy of `logits` plus lambda times the mean of `kl_divergences`.

    Args:
        logits: at the inputs, shape (N, C).
        moved: at the moved inputs, shape (N, C).
        y: class indices, shape (N,).
        lam: weight of the agreement, >= 0; a tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes differ, or lambda is a negative number.
    """
    if logits.shape != moved.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and moved {tuple(moved.shape)} must have one shape")
    if isinstance(lam, (int, float)) and not lam >= 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    return F.cross_entropy(logits, y) + lam * kl_divergences(logits, moved).mean()
