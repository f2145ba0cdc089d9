"""Margin-based label smoothing (MbLS, Liu et al. 2022, arXiv 2111.15430): logits may differ, but only up to a margin.

With logits z in R^C and a margin M (their eq. 7)::

    L = CE(z, y) + alpha * mean_k max(0, max_j z_j - z_k - M)

M = 0 penalises every difference from the top logit, which is `lib.regularisers.maxsup`, and label smoothing wherever
the prediction is right; a large M is cross-entropy.  The top logit is not detached, and the mean is over samples and
classes alike, as in the released code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MbLS", "margin_penalty", "mbls_loss"]


def margin_penalty(logits: Tensor, margin: float | Tensor = 10.0) -> Tensor:
    """``mean_k max(0, max_j z_j - z_k - M)`` of logits (..., C), shape (...); NaN for a NaN logit.

    Raises:
        ValueError: fewer than two classes.
    """
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise ValueError(f"need logits (..., C) with C >= 2, got {tuple(logits.shape)}")
    return F.relu(logits.amax(-1, keepdim=True) - logits - margin).mean(-1)


def mbls_loss(logits: Tensor, y: Tensor, alpha: float | Tensor = 0.1, margin: float | Tensor = 10.0) -> Tensor:
    """Cross-entropy plus ``alpha`` times the mean `margin_penalty`.

    Args:
        logits: shape (..., C).
        y: class indices, shape (...).
        alpha: weight, 0 is cross-entropy; not inspected (`torch.func.vmap` can carry one a model).
        margin: M >= 0, in units of logits; not inspected.

    Returns:
        Scalar, the mean over all samples.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    if logits.shape[:-1] != y.shape:
        raise ValueError(f"need logits (..., C) and labels (...), got {tuple(logits.shape)} and {tuple(y.shape)}")
    penalty = margin_penalty(logits, margin).mean()
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1).long()) + alpha * penalty


class MbLS(nn.Module):
    """`mbls_loss` as a module.

    Args:
        alpha: weight, >= 0.
        margin: M >= 0.

    Raises:
        ValueError: a negative argument.
    """

    def __init__(self, alpha: float = 0.1, margin: float = 10.0) -> None:
        super().__init__()
        if not (alpha >= 0 and margin >= 0):
            raise ValueError(f"alpha and margin must not be negative, got {alpha} and {margin}")
        self.alpha, self.margin = alpha, margin

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (..., C) against class indices (...)."""
        return mbls_loss(logits, y, self.alpha, self.margin)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"alpha={self.alpha}, margin={self.margin}"
