"""Two more textbook losses of classification: cross-entropy with class weights, and the multi-class hinge."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lib.losses.registry import register_loss

__all__ = ["weighted_cross_entropy", "weston_watkins_loss"]


def weighted_cross_entropy(logits: Tensor, y: Tensor, class_counts: Tensor) -> Tensor:
    """Mean of ``w_y CE`` with ``w_k = n / (C n_k)``: every class weighs the same in total, and the mean weight is 1.

    The weights come from the training set and not from the batch, so it is a plain mean over samples (unlike
    ``F.cross_entropy(weight=...)``, which divides by the weights of the batch).

    Args:
        logits: shape (N, C) or (N, C, ...).
        y: class indices, shape (N,) or (N, ...).
        class_counts: samples (pixels) of each class in the training set, shape (C,), all above 0, not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.
    """
    weight = class_counts.sum() / (len(class_counts) * class_counts)
    return (weight.to(logits)[y] * F.cross_entropy(logits, y, reduction="none")).mean()


def weston_watkins_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean of ``sum_{k != y} max(0, 1 - z_y + z_k) / C``, the hinge over all wrong classes (Weston and Watkins 1999).

    The same numbers as `torch.nn.functional.multi_margin_loss`, which `torch.func.vmap` cannot batch.

    Args:
        logits: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.
    """
    margin = 1 - logits.gather(-1, y.unsqueeze(-1)) + logits
    return (margin.clamp(min=0).sum(-1) - 1).div(logits.shape[-1]).mean()  # the true class itself contributes 1


register_loss("Class-weighted cross-entropy", weighted_cross_entropy, needs_counts=True)
register_loss("Weston–Watkins hinge", weston_watkins_loss)
