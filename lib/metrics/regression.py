"""Scores of regression: predictions and targets of one shape, whatever loss trained them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mape", "mean_absolute_error", "pinball", "r_squared", "rmse", "smape"]


def _residual(output: Tensor, y: Tensor) -> Tensor:
    if output.shape != y.shape:
        raise ValueError(f"output {tuple(output.shape)} and y {tuple(y.shape)} must have one shape")
    return y - output


def rmse(output: Tensor, y: Tensor) -> Tensor:
    """Root of the mean squared error, in the unit of y; NaN for no samples.

    Raises:
        ValueError: shapes differ.
    """
    return _residual(output, y).square().mean().sqrt()


def mean_absolute_error(output: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error, in the unit of y; NaN for no samples.

    Raises:
        ValueError: shapes differ.
    """
    return _residual(output, y).abs().mean()


def mape(output: Tensor, y: Tensor) -> Tensor:
    """Mean of ``|y - output| / |y|`` (not times 100): meant for y well away from 0; inf or NaN where y is 0.

    Raises:
        ValueError: shapes differ.
    """
    return (_residual(output, y).abs() / y.abs()).mean()


def smape(output: Tensor, y: Tensor) -> Tensor:
    """Mean of ``2 |y - output| / (|y| + |output|)``, in [0, 2]; NaN where both are 0.

    Raises:
        ValueError: shapes differ.
    """
    return (2 * _residual(output, y).abs() / (y.abs() + output.abs())).mean()


def r_squared(output: Tensor, y: Tensor) -> Tensor:
    """``1 - sum (y - output)^2 / sum (y - mean y)^2``: 1 is perfect, 0 the constant mean; -inf or NaN for constant y.

    Raises:
        ValueError: shapes differ.
    """
    return 1 - _residual(output, y).square().sum() / (y - y.mean()).square().sum()


def pinball(output: Tensor, y: Tensor, q: float = 0.9) -> Tensor:
    """Mean pinball loss of a predicted quantile of order q in (0, 1), in the unit of y.

    Raises:
        ValueError: shapes differ, or q outside (0, 1).
    """
    if not 0 < q < 1:
        raise ValueError(f"q: in (0, 1), got {q}")
    r = _residual(output, y)
    return torch.maximum(q * r, (q - 1) * r).mean()
