"""Scores of selective prediction: answer what scores high, leave the rest; how much is answered, and how well.

Answering the n samples with the highest scores has coverage n / N and precision (right ones among them) / n.  Samples
of equal score are answered together, as a threshold does it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RiskCoverage", "coverage_at", "risk_coverage", "threshold_at"]


class RiskCoverage(NamedTuple):
    """Points of the curve, from the strictest threshold to none; float64.

    Attributes:
        threshold: distinct scores, falling, (K,): answered is what scores at least as much.
        coverage: rising to 1, (K,).
        precision: (K,).
    """

    threshold: Tensor
    coverage: Tensor
    precision: Tensor


def risk_coverage(score: Tensor, right: Tensor) -> RiskCoverage:
    """Coverage and precision at every threshold.

    Args:
        score: (N,), high means answer.
        right: whether the answer would be right, (N,) bool or zeros and ones.

    Raises:
        ValueError: shapes differ, no samples, or a NaN score.
    """
    if score.ndim != 1 or score.shape != right.shape or not len(score) or bool(score.isnan().any()):
        raise ValueError(f"need scores (N,) without NaN and right (N,), got {tuple(score.shape)}, {tuple(right.shape)}")
    ranked, order = score.double().sort(descending=True)
    last = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])
    answered = torch.arange(1, len(score) + 1, device=score.device).double()
    precision = right[order].double().cumsum(0) / answered
    return RiskCoverage(ranked[last], answered[last] / len(score), precision[last])


def threshold_at(score: Tensor, right: Tensor, precision: float) -> float:
    """The threshold of largest coverage whose precision reaches `precision`; inf where none does.

    Args:
        score: (N,).
        right: (N,).
        precision: in [0, 1].

    Raises:
        ValueError: see `risk_coverage`.
    """
    curve = risk_coverage(score, right)
    fits = (curve.precision >= precision - 1e-12).nonzero()
    return curve.threshold[fits[-1, 0]].item() if len(fits) else torch.inf


def coverage_at(score: Tensor, right: Tensor, precision: float) -> float:
    """The largest coverage whose precision reaches `precision`; 0 where none does (see `threshold_at`)."""
    return (score.double() >= threshold_at(score, right, precision)).double().mean().item()
