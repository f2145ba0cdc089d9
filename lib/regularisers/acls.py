"""Adaptive and conditional label smoothing (ACLS, arXiv 2308.11911): smooth the logits that leave a margin, by how far.

With logits f in R^C, predicted class j* = argmax f, margin M and sg(.) the stop of the gradient, a sample costs::

    R = lambda_1 max(0, f_j* - M)^2 + lambda_2 / (C - 1) sum_{j != j*} max(0, sg(f_j*) - f_j - M)^2
    L = CE(f, y) + alpha * mean R

so that the gradient of L on f_j is p_j - (1[j = y] - s_j) with the smoothing s_j* = 2 alpha lambda_1 (f_j* - M)_+ and
s_j = -2 alpha lambda_2 / (C - 1) (f_j* - f_j - M)_+: zero within the margin (conditional), linear outside (adaptive).
The first term presses the top logit down, the second lifts the others, and neither moves what the other one does.

As in the released code the first term measures the top logit itself, so R is not invariant to a common shift of the
logits, and entries equal to the maximum all count as predicted.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ACLS", "acls_loss", "acls_penalty"]


def acls_penalty(
    logits: Tensor,
    margin: float | Tensor = 10.0,
    pos_lambda: float | Tensor = 1.0,
    neg_lambda: float | Tensor = 0.1,
    power: float | Tensor = 2.0,
) -> Tensor:
    """The penalty R of each sample.

    Args:
        logits: shape (..., C), C >= 2.
        margin: M >= 0, in units of logits.
        pos_lambda: weight of the predicted class.
        neg_lambda: weight of the other classes together.
        power: of the excess, >= 1; 2 is ACLS, 1 drops the adaptivity.  None of the numbers is inspected, so that
            `torch.func.vmap` can carry one a model.

    Returns:
        Shape (...); NaN for a NaN logit.

    Raises:
        ValueError: fewer than two classes.
    """
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise ValueError(f"need logits (..., C) with C >= 2, got {tuple(logits.shape)}")
    top = logits.detach().amax(-1, keepdim=True)
    predicted = (logits.detach() == top).to(logits.dtype)
    above = predicted * F.relu(logits - margin) ** power
    below = (1 - predicted) * F.relu(top - logits - margin) ** power
    return pos_lambda * above.sum(-1) + neg_lambda * below.sum(-1) / (logits.shape[-1] - 1)


def acls_loss(
    logits: Tensor,
    y: Tensor,
    alpha: float | Tensor = 0.1,
    margin: float | Tensor = 10.0,
    pos_lambda: float | Tensor = 1.0,
    neg_lambda: float | Tensor = 0.1,
    power: float | Tensor = 2.0,
) -> Tensor:
    """Cross-entropy plus ``alpha`` times the mean `acls_penalty`.

    Args:
        logits: shape (..., C).
        y: class indices, shape (...).
        alpha: weight, 0 is cross-entropy.
        margin: see `acls_penalty`.
        pos_lambda: see `acls_penalty`.
        neg_lambda: see `acls_penalty`.
        power: see `acls_penalty`.

    Returns:
        Scalar, the mean over all samples.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    if logits.shape[:-1] != y.shape:
        raise ValueError(f"need logits (..., C) and labels (...), got {tuple(logits.shape)} and {tuple(y.shape)}")
    penalty = acls_penalty(logits, margin, pos_lambda, neg_lambda, power).mean()
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1).long()) + alpha * penalty


class ACLS(nn.Module):
    """`acls_loss` as a module.

    Args:
        pos_lambda: weight of the predicted class, >= 0.
        neg_lambda: weight of the other classes, >= 0.
        alpha: weight of both, >= 0.
        margin: M >= 0; the paper takes 6 to 10, for networks with logits of that size.

    Raises:
        ValueError: a negative argument.
    """

    def __init__(
        self, pos_lambda: float = 1.0, neg_lambda: float = 0.1, alpha: float = 0.1, margin: float = 10.0
    ) -> None:
        super().__init__()
        if not (pos_lambda >= 0 and neg_lambda >= 0 and alpha >= 0 and margin >= 0):
            raise ValueError(f"weights and margin must be >= 0, got {pos_lambda}, {neg_lambda}, {alpha} and {margin}")
        self.pos_lambda, self.neg_lambda, self.alpha, self.margin = pos_lambda, neg_lambda, alpha, margin

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (..., C) against class indices (...)."""
        return acls_loss(logits, y, self.alpha, self.margin, self.pos_lambda, self.neg_lambda)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"pos_lambda={self.pos_lambda}, neg_lambda={self.neg_lambda}, alpha={self.alpha}, margin={self.margin}"
