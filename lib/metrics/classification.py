"""Scores of classification from logits (N, C) and labels (N,): of decisions, and of one-against-rest rankings.

Means over classes leave out those without a sample (for rankings: without a positive or without a negative).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "pr_auc", "roc_auc"]


def _check(logits: Tensor, y: Tensor) -> None:
    if logits.ndim != 2 or y.shape != logits.shape[:1]:
        raise ValueError(f"need logits (N, C) and y (N,), got {tuple(logits.shape)} and {tuple(y.shape)}")


def _counts(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, predicted and labelled samples of each class, (C,) float64."""
    _check(logits, y)
    guess, classes = logits.argmax(-1), logits.shape[-1]
    hits, guessed, labelled = (torch.bincount(part, minlength=classes).double() for part in (y[guess == y], guess, y))
    return hits, guessed, labelled


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of samples whose largest logit is that of their class; NaN for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    _check(logits, y)
    return (logits.argmax(-1) == y).double().mean()


def balanced_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean recall of the classes, ``mean_k TP_k / n_k``.

    Raises:
        ValueError: shapes do not fit.
    """
    hits, _, labelled = _counts(logits, y)
    return (hits / labelled)[labelled > 0].mean()


def macro_precision(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over labelled classes of ``TP_k`` over the predictions of k; 0 for a class that is never predicted.

    Raises:
        ValueError: shapes do not fit.
    """
    hits, guessed, labelled = _counts(logits, y)
    return (hits / guessed.clamp(min=1))[labelled > 0].mean()


def macro_f1(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over labelled classes of ``2 TP_k / (labels of k + predictions of k)``.

    Raises:
        ValueError: shapes do not fit.
    """
    hits, guessed, labelled = _counts(logits, y)
    return (2 * hits / (labelled + guessed))[labelled > 0].mean()


def _one_against_rest(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and truth (K, N) of the classes that have positives and negatives: probabilities, or for C = 2 class 1."""
    _check(logits, y)
    p = logits.double().softmax(-1).T
    truth = y == torch.arange(len(p), device=y.device)[:, None]
    if len(p) == 2:
        p, truth = p[1:], truth[1:]
    both = truth.any(1) & ~truth.all(1)
    return p[both], truth[both]


def roc_auc(logits: Tensor, y: Tensor) -> Tensor:
    """Probability that a random positive scores above a random negative, ties half (Mann and Whitney).

    One class against the rest, mean over classes; for two classes that of class 1.  O(positives x negatives) memory a
    class.

    Raises:
        ValueError: shapes do not fit.
    """
    scores, truth = _one_against_rest(logits, y)
    areas = []
    for score, positive in zip(scores, truth, strict=True):
        gap = score[positive, None] - score[~positive]
        areas.append(((gap > 0).double() + 0.5 * (gap == 0)).mean())
    return torch.stack(areas).mean() if areas else scores.new_tensor(torch.nan)


def pr_auc(logits: Tensor, y: Tensor) -> Tensor:
    """Average precision ``sum_t (R_t - R_{t-1}) P_t`` over the distinct scores as thresholds, without interpolation.

    One class against the rest, mean over classes; for two classes that of class 1.

    Raises:
        ValueError: shapes do not fit.
    """
    scores, truth = _one_against_rest(logits, y)
    areas = []
    for score, positive in zip(scores, truth, strict=True):
        ranked, order = score.sort(descending=True)
        hits = positive[order].double().cumsum(0)
        last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])  # equal scores: one threshold
        precision = (hits / torch.arange(1, len(hits) + 1))[last]
        recall = torch.cat([hits.new_zeros(1), hits[last] / hits[-1]])
        areas.append((recall.diff() * precision).sum())
    return torch.stack(areas).mean() if areas else scores.new_tensor(torch.nan)
