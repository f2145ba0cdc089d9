"""Scores of semantic segmentation from logits (N, C, H, W) and class maps (N, H, W); class 0 is the background.

Counts are pooled over all pictures (as the benchmarks do), so that a picture without an object is no special case.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["boundary_f1", "foreground_dice", "foreground_iou", "mean_iou", "pixel_accuracy"]


def _guess(logits: Tensor, y: Tensor) -> Tensor:
    if logits.ndim != 4 or logits.shape[:1] + logits.shape[2:] != y.shape:
        raise ValueError(f"need logits (N, C, H, W) and y (N, H, W), got {tuple(logits.shape)}, {tuple(y.shape)}")
    return logits.argmax(1)


def _counts(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of each class in the intersection, and the sum of those predicted and labelled, (C,) float64."""
    guess, classes = _guess(logits, y), logits.shape[1]
    hit, own, true = (torch.bincount(part.flatten(), minlength=classes).double() for part in (y[guess == y], guess, y))
    return hit, own + true


def pixel_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of pixels with the right class.

    Raises:
        ValueError: shapes do not fit.
    """
    return (_guess(logits, y) == y).double().mean()


def mean_iou(logits: Tensor, y: Tensor) -> Tensor:
    """Intersection over union, mean over the classes that are labelled or predicted, the background among them.

    Raises:
        ValueError: shapes do not fit.
    """
    hit, both = _counts(logits, y)
    return (hit / (both - hit))[both > 0].mean()


def foreground_iou(logits: Tensor, y: Tensor) -> Tensor:
    """Intersection over union, mean over the classes from 1 on that are labelled or predicted.

    Raises:
        ValueError: shapes do not fit.
    """
    hit, both = (part[1:] for part in _counts(logits, y))
    return (hit / (both - hit))[both > 0].mean()


def foreground_dice(logits: Tensor, y: Tensor) -> Tensor:
    """``2 |A and B| / (|A| + |B|)``, mean over the classes from 1 on that are labelled or predicted.

    Raises:
        ValueError: shapes do not fit.
    """
    hit, both = (part[1:] for part in _counts(logits, y))
    return (2 * hit / both)[both > 0].mean()


def boundary_f1(logits: Tensor, y: Tensor, tolerance: int = 1) -> Tensor:
    """F1 of foreground outlines, matched within a tolerance (Csurka et al., BMVC 2013): where the edge is.

    The outline of a mask are its pixels with one of the eight neighbours outside (or beyond the picture).  Precision is
    the share of predicted outline pixels with a true one within `tolerance` rows and columns, recall the reverse; both
    pooled over pictures.  Foreground: any class but 0.

    Args:
        logits: (N, C, H, W).
        y: (N, H, W).
        tolerance: pixels, at least 0.

    Returns:
        Scalar in [0, 1]; 1 where neither has an outline, 0 where one has none.

    Raises:
        ValueError: shapes do not fit, or a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance: at least 0, got {tolerance}")

    def grown(mask: Tensor, by: int) -> Tensor:
        return F.max_pool2d(mask, 2 * by + 1, 1, by)

    def outline(mask: Tensor) -> Tensor:
        padded = F.pad(1 - mask, (1, 1, 1, 1), value=1.0)
        return mask * F.max_pool2d(padded, 3, 1)

    guess, true = (outline((part > 0).double().unsqueeze(1)) for part in (_guess(logits, y), y))
    sizes = guess.sum(), true.sum()
    if not (sizes[0] and sizes[1]):
        return guess.new_tensor(float(sizes[0] == sizes[1]))
    precision = (guess * grown(true, tolerance)).sum() / sizes[0]
    recall = (true * grown(guess, tolerance)).sum() / sizes[1]
    return 2 * precision * recall / (precision + recall).clamp(min=1e-12)
