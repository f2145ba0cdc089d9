"""Max Suppression (MaxSup, arXiv 2502.15798): label smoothing that presses on the top logit, whoever is right.

With logits z in R^K, label y and smoothing a, label smoothing is cross-entropy with a penalty, and the penalty has two
parts (section 3 of the paper)::

    CE(z, (1 - a) e_y + a / K) = CE(z, e_y) + a (z_y - mean_k z_k)
    z_y - mean_k z_k = 1/K sum_{k: z_k < z_y} (z_y - z_k)        regularisation, >= 0
                     + 1/K sum_{k: z_k > z_y} (z_y - z_k)        error enhancement, <= 0, 0 if y is on top

MaxSup replaces the true logit by the largest one::

    L = CE(z, e_y) + lambda (max_k z_k - mean_k z_k)

Where y is on top both are one; elsewhere MaxSup is larger by lambda (max_k z_k - z_y), the loss of the multi-class
perceptron.  Nothing is detached.  Equal top logits share the gradient (the released code gives it to one of them).
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MaxSup", "SmoothingTerms", "maxsup_loss", "maxsup_penalty", "one_sided_smoothing_loss", "smoothing_terms"]


class SmoothingTerms(NamedTuple):
    """The two parts of label smoothing's penalty z_y - mean_k z_k, before it is multiplied by the smoothing.

    Attributes:
        regularisation: >= 0, pulls the true logit towards those below it; shape (...).
        error_enhancement: <= 0, and 0 where no logit exceeds the true one; shape (...).
    """

    regularisation: Tensor
    error_enhancement: Tensor


def maxsup_penalty(logits: Tensor) -> Tensor:
    """``max_k z_k - mean_k z_k`` >= 0 of logits (..., K), shape (...); NaN for a NaN logit.

    Raises:
        ValueError: fewer than two classes.
    """
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise ValueError(f"need logits (..., K) with K >= 2, got {tuple(logits.shape)}")
    return logits.amax(-1) - logits.mean(-1)


def maxsup_loss(logits: Tensor, y: Tensor, lam: float | Tensor = 0.1) -> Tensor:
    """Cross-entropy plus ``lam`` times the mean `maxsup_penalty`.

    Args:
        logits: shape (..., K).
        y: class indices, shape (...).
        lam: strength lambda, 0 is cross-entropy; not inspected (`torch.func.vmap` can carry one a model).  Below 1 the
            loss is bounded from below by label smoothing with that strength.

    Returns:
        Scalar, the mean over all samples.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    _check(logits, y)
    return _cross_entropy(logits, y) + lam * maxsup_penalty(logits).mean()


def smoothing_terms(logits: Tensor, y: Tensor) -> SmoothingTerms:
    """The two parts of label smoothing's penalty for logits (..., K) and class indices (...); see `SmoothingTerms`.

    Raises:
        ValueError: shapes do not fit.
    """
    _check(logits, y)
    above = logits.gather(-1, y.long().unsqueeze(-1)) - logits  # z_y - z_k
    return SmoothingTerms(above.clamp_min(0).mean(-1), above.clamp_max(0).mean(-1))


def one_sided_smoothing_loss(logits: Tensor, y: Tensor, alpha: float | Tensor = 0.1) -> Tensor:
    """Label smoothing without its error enhancement: cross-entropy plus ``alpha`` times the mean regularisation.

    The ablation of the paper.  The sum over lower logits is divided by K as in the decomposition, so that adding
    the other term gives label smoothing; the released code divides by the number of lower logits.

    Args:
        logits: shape (..., K).
        y: class indices, shape (...).
        alpha: smoothing a; 0 is cross-entropy.

    Raises:
        ValueError: shapes do not fit.
    """
    regularisation = smoothing_terms(logits, y).regularisation.mean()
    return _cross_entropy(logits, y) + alpha * regularisation


class MaxSup(nn.Module):
    """`maxsup_loss` with a strength that grows linearly over training, as in the released code.

    ``lambda = begin_lambda + (end_lambda - begin_lambda) * epoch / epochs``; equal ends keep it constant.

    Args:
        begin_lambda: at the first epoch, >= 0.
        end_lambda: after the last one, >= 0.
        epochs: length of the training, at least 1.

    Raises:
        ValueError: a negative strength, or no epochs.

    >>> loss = MaxSup(begin_lambda=0.1, end_lambda=0.2, epochs=10)
    >>> loss.set_epoch(5)
    >>> round(loss.strength, 3)
    0.15
    """

    def __init__(self, begin_lambda: float = 0.1, end_lambda: float = 0.2, epochs: int = 90) -> None:
        super().__init__()
        if not (begin_lambda >= 0 and end_lambda >= 0) or epochs < 1:
            raise ValueError(f"need strengths >= 0 and epochs >= 1, got {begin_lambda}, {end_lambda} and {epochs}")
        self.begin_lambda, self.end_lambda, self.epochs = begin_lambda, end_lambda, epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell the loss which epoch begins, from 0."""
        self.epoch = epoch

    @property
    def strength(self) -> float:
        """Lambda of the current epoch."""
        return self.begin_lambda + (self.end_lambda - self.begin_lambda) * self.epoch / self.epochs

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Loss of logits (..., K) against class indices (...)."""
        return maxsup_loss(logits, y, self.strength)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"begin_lambda={self.begin_lambda}, end_lambda={self.end_lambda}, epochs={self.epochs}"


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1).long())


def _check(logits: Tensor, y: Tensor) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 2 or logits.shape[:-1] != y.shape:
        shapes = f"logits {tuple(logits.shape)}, labels {tuple(y.shape)}"
        raise ValueError(f"need logits (..., K) with K >= 2 and labels (...), got {shapes}")
