"""Textbook losses of regression, listed for leaderboards, as an overview (Terven et al., arXiv 2307.02694) lists them.

With the residual r = y - output, of one sample:

======================  =====================================================  ===================================
loss                    value                                                  constant that minimises it
======================  =====================================================  ===================================
MSE                     r^2                                                    mean
MAE                     \\|r\\|                                                  median
quantile (pinball)      max(q r, (q - 1) r)                                    quantile of order q
Huber                   r^2 / 2 up to delta, then delta (\\|r\\| - delta / 2)    mean after clipping to c +- delta
log-cosh                log cosh r                                             zero of the mean of tanh r
pseudo-Huber            delta^2 (sqrt(1 + (r / delta)^2) - 1)                  between median and mean
Poisson                 exp(output) - y output                                 logarithm of the mean
======================  =====================================================  ===================================
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.losses.registry import Range, register_loss
from lib.losses.scheduled_pseudo_huber import pseudo_huber

__all__ = ["huber_loss", "log_cosh_loss", "poisson_loss", "pseudo_huber_loss", "quantile_loss"]


def _residual(output: Tensor, y: Tensor) -> Tensor:
    if output.shape != y.shape:  # broadcasting (N, 1) against (N,) is the classic silent error
        raise ValueError(f"output {tuple(output.shape)} and y {tuple(y.shape)} must have one shape")
    return y - output


def huber_loss(output: Tensor, y: Tensor, delta: float | Tensor = 1.0) -> Tensor:
    """Mean of ``r^2 / 2`` where ``|r| <= delta``, else ``delta (|r| - delta / 2)`` (Huber 1964, equation 2.3).

    Unlike `torch.nn.functional.huber_loss`, delta may be a tensor, one for each model of a stack.

    Args:
        output: any shape.
        y: the same shape.
        delta: above 0, in the unit of y; not inspected.

    Returns:
        Scalar, in the unit of y squared.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes differ.
    """
    size = _residual(output, y).abs()
    inner = torch.minimum(size, torch.as_tensor(delta).to(size))
    return (inner * (size - inner / 2)).mean()


def log_cosh_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean of ``log cosh r``, as ``|r| + log(1 + exp(-2 |r|)) - log 2``, which does not overflow.

    Args:
        output: any shape.
        y: the same shape.

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes differ.
    """
    size = _residual(output, y).abs()
    return (size + F.softplus(-2 * size) - math.log(2)).mean()


def quantile_loss(output: Tensor, y: Tensor, q: float | Tensor = 0.9) -> Tensor:
    """Mean pinball loss ``max(q r, (q - 1) r)`` (Koenker and Bassett 1978); q = 1/2 is half the absolute error.

    Args:
        output: the predicted quantile, any shape.
        y: the same shape.
        q: order in (0, 1), not inspected.

    Returns:
        Scalar, in the unit of y.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes differ.
    """
    r = _residual(output, y)
    return torch.maximum(q * r, (q - 1) * r).mean()


def pseudo_huber_loss(output: Tensor, y: Tensor, delta: float | Tensor = 1.0) -> Tensor:
    """Mean of `lib.losses.scheduled_pseudo_huber.pseudo_huber`: smooth, r^2 / 2 near 0, slope delta far away.

    Args:
        output: any shape.
        y: the same shape.
        delta: above 0, in the unit of y; a tensor is not inspected.

    Returns:
        Scalar, in the unit of y squared.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes differ, or a number delta that is not above 0.
    """
    return pseudo_huber(_residual(output, y), delta).mean()


def poisson_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean of ``exp(output) - y output``: negative log-likelihood of counts whose log mean is `output`, up to log y!.

    Not in the list for leaderboards: a standardised target has negative values, for which it has no minimum.

    Args:
        output: logarithm of the predicted mean, any shape.
        y: counts >= 0, the same shape, not inspected.

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes differ.
    """
    _residual(output, y)
    return (output.exp() - y * output).mean()


register_loss("MSE", F.mse_loss, task="regression")
register_loss("MAE", F.l1_loss, task="regression")
register_loss(
    "Huber", huber_loss, task="regression", defaults={"delta": 1.0}, tunable={"delta": Range(0.1, 3.0, log=True)}
)
register_loss("Log-cosh", log_cosh_loss, task="regression")
register_loss("Quantile", quantile_loss, task="regression", defaults={"q": 0.9}, tunable={"q": Range(0.1, 0.9)})
register_loss(
    "Pseudo-Huber",
    pseudo_huber_loss,
    task="regression",
    defaults={"delta": 1.0},
    tunable={"delta": Range(0.1, 3.0, log=True)},
)
