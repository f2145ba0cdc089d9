"""The textbook surrogates of the zero-one loss for two classes, as functions of the margin; torch computes them.

With a label y in {0, 1} and a real output f, the margin is s = (2y - 1) f.  All four losses are calibrated, that is
phi'(0) < 0 (Bartlett, Jordan and McAuliffe 2006); all but the focal loss are convex in s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.losses.poly_loss import sigmoid_poly_loss
from lib.losses.registry import Range, register_loss

__all__ = ["binary_focal_loss", "exponential_loss", "hinge_loss", "logistic_loss", "signed_margins"]


def signed_margins(output: Tensor, y: Tensor) -> Tensor:
    """Margins s = (2y - 1) f, shape (N,), of outputs (N,) or (N, 1) and labels in {0, 1}, shape (N,).

    Raises:
        ValueError: shapes do not fit.
    """
    flat = output.squeeze(-1) if output.ndim == y.ndim + 1 and output.shape[-1] == 1 else output
    if flat.shape != y.shape:
        raise ValueError(f"need outputs (N,) or (N, 1) and labels (N,), got {tuple(output.shape)} and {tuple(y.shape)}")
    return (2 * y.to(flat.dtype) - 1) * flat


def logistic_loss(output: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of a logit, ``mean log(1 + exp(-s))``.

    Args:
        output: shape (N,) or (N, 1).
        y: 0 or 1, shape (N,) (not inspected).

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    return F.softplus(-signed_margins(output, y)).mean()


def hinge_loss(output: Tensor, y: Tensor) -> Tensor:
    """``mean max(0, 1 - s)``; arguments as `logistic_loss`."""
    return F.relu(1 - signed_margins(output, y)).mean()


def exponential_loss(output: Tensor, y: Tensor) -> Tensor:
    """``mean exp(-s)``, AdaBoost's loss; arguments as `logistic_loss`."""
    return torch.exp(-signed_margins(output, y)).mean()


def binary_focal_loss(output: Tensor, y: Tensor, gamma: float | Tensor = 2.0) -> Tensor:
    """``mean (1 - p)^gamma log(1 + exp(-s))`` with p = sigmoid(s) (Lin et al. 2017, arXiv:1708.02002, eq. 4).

    Args:
        output: shape (N,) or (N, 1).
        y: 0 or 1, shape (N,).
        gamma: >= 0; 0 is `logistic_loss`.  A tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit, or gamma is a negative number.
    """
    margins = signed_margins(output, y)
    return sigmoid_poly_loss(margins, torch.ones_like(margins), 0.0, gamma)


register_loss("Logistic", logistic_loss, task="binary")
register_loss("Hinge", hinge_loss, task="binary")
register_loss("Exponential", exponential_loss, task="binary")
register_loss(
    "Binary focal",
    binary_focal_loss,
    task="binary",
    defaults={"gamma": 2.0},
    tunable={"gamma": Range(0.25, 5.0, log=True)},
)
