"""Two classes of unit vectors with a known regression function: excess risks are computed, not estimated."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from lib import runtime
from lib.data.vision import vision_dataset

__all__ = ["SphereSample", "excess_risk", "sphere_sample", "unit_images"]


class SphereSample(NamedTuple):
    """Points on a sphere and what is known of their classes.

    Attributes:
        x: unit vectors with non-negative coordinates, float64 (N, d + 1).
        y: labels -1 and 1, float64 (N,).
        eta: probability of the label 1 given x, float64 (N,).
    """

    x: Tensor
    y: Tensor
    eta: Tensor


def sphere_sample(n: int, d: int, generator: Generator, bayes_error: float = 0.15) -> SphereSample:
    r"""n points, uniform where no coordinate of the sphere :math:`S^d` is negative, and their labels.

    :math:`P(y = 1 \mid x) = \sigma(\beta\, g(x))` with :math:`g(x) = \sin 6 x_0 + \cos 6 x_1 - m`, smooth and no
    polynomial; m makes 55 % of the points lie where g is positive, and beta is such that the best classifier, sign g,
    errs on the given share.

    Args:
        n: number of points.
        d: dimension of the sphere, at least 1.
        generator: draws points and labels.
        bayes_error: in (0, 0.45).

    Raises:
        ValueError: d below 1 or bayes_error out of range.
    """
    if d < 1 or not 0 < bayes_error < 0.45:
        raise ValueError(f"need d >= 1 and bayes_error in (0, 0.45), got {d} and {bayes_error}")
    x = _points(n, d, generator)
    shift, beta = _scale(d, bayes_error)
    eta = torch.sigmoid(beta * (_waves(x) - shift))
    y = (torch.rand(n, generator=generator, dtype=torch.float64) < eta).double() * 2 - 1
    return SphereSample(x, y, eta)


def excess_risk(scores: Tensor, sample: SphereSample) -> float:
    """Mean risk of sign(scores), shape (N,), above that of the best classifier; a score of 0 counts as -1."""
    risk = torch.where(scores > 0, 1 - sample.eta, sample.eta)
    return float((risk - torch.minimum(sample.eta, 1 - sample.eta)).mean())


def unit_images(name: str) -> SphereSample:
    """Images of two similar classes as unit vectors of pixels, with their label for eta (so the best risk is 0).

    Args:
        name: "digits" (8x8, from scikit-learn) or "mnist", 3 against 8; or "fashion-mnist", T-shirts against shirts.

    Raises:
        ValueError: another name.
        DataUnavailable: see `lib.data.vision_dataset`.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        x, labels = (torch.from_numpy(values) for values in load_digits(return_X_y=True))
    else:
        part = vision_dataset(name)
        x, labels = part.x.flatten(1).double(), part.y
    first, second = (0, 6) if name == "fashion-mnist" else (3, 8)
    kept = (labels == first) | (labels == second)
    y = (labels[kept] == first).double() * 2 - 1
    return SphereSample(x[kept] / x[kept].norm(dim=1, keepdim=True), y, (y + 1) / 2)


def _points(n: int, d: int, generator: Generator) -> Tensor:
    x = torch.randn(n, d + 1, generator=generator, dtype=torch.float64).abs()
    points: Tensor = x / x.norm(dim=1, keepdim=True)
    return points


def _waves(x: Tensor) -> Tensor:
    return torch.sin(6 * x[:, 0]) + torch.cos(6 * x[:, 1])


@cache
def _scale(d: int, bayes_error: float) -> tuple[float, float]:
    """m, and beta by bisection, on 100,000 points of their own."""
    g = _waves(_points(100_000, d, runtime.generator(0, stream=77)))
    shift = g.quantile(0.45).item()
    low, high = 0.0, 1000.0
    for _ in range(50):
        beta = (low + high) / 2
        error = torch.sigmoid(-beta * (g - shift).abs()).mean().item()
        low, high = (beta, high) if error > bayes_error else (low, beta)
    return shift, beta
