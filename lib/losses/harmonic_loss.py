r"""Harmonic loss (Baek, Liu, Tyagi, Tegmark 2025, arXiv:2502.01628): classes as points, logits as distances to them.

Features :math:`x \in R^D` and class vectors :math:`w_k \in R^D` without bias::

    d_k = sqrt(|w_k - x|^2 + eps)
    p_k = d_k^-n / sum_j d_j^-n          ("harmonic max"),         L = -log p_y,       n = sqrt(D) by default

which is cross-entropy of the logits :math:`-n \log d_k`.  Scaling x and all w together changes nothing, and p_y
tends to 1 at a finite place, x = w_y.

The authors' code raises the *squared* distance to the power -n, so its exponent is twice the one written here, and adds
:math:`10^{-4}` to it; this module follows the formula of the paper, with eps = 1e-8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = ["HarmonicHead", "HarmonicLoss", "harmonic_logits", "harmonic_loss", "harmonic_max"]

EPS = 1e-8


def harmonic_logits(x: Tensor, w: Tensor, n: float | Tensor = 1.0, eps: float = EPS) -> Tensor:
    """Logits ``-n log d_k``, whose softmax is the harmonic max.

    Squared distances come from one matrix product, ``|x|^2 + |w|^2 - 2 x.w``, at a rounding error of about ``|x|^2``
    times the precision; where that makes them negative they are 0, with no gradient.

    Args:
        x: features, shape (..., D).
        w: class vectors, shape (C, D).
        n: exponent > 0; a tensor is not inspected.
        eps: added to the squared distance.

    Returns:
        Shape (..., C).

    Raises:
        ValueError: D differs, or a number n <= 0.
    """
    if x.shape[-1] != w.shape[-1] or w.ndim != 2:
        raise ValueError(f"need x (..., D) and w (C, D), got {tuple(x.shape)} and {tuple(w.shape)}")
    if isinstance(n, (int, float)) and not n > 0:
        raise ValueError(f"n must be positive, got {n}")
    square = x.square().sum(-1, keepdim=True) + w.square().sum(-1) - 2 * x @ w.mT
    return -0.5 * n * torch.log(square.clamp_min(0) + eps)


def harmonic_max(distances: Tensor, n: float | Tensor = 1.0) -> Tensor:
    """Probabilities ``d_k^-n / sum_j d_j^-n`` of positive distances (..., C), computed in the log domain."""
    return torch.softmax(-n * distances.log(), -1)


def harmonic_loss(outputs: Tensor, y: Tensor, n: float | Tensor = 1.0) -> Tensor:
    """Mean of -log p_y from the outputs ``-log d_k`` of a head.

    Args:
        outputs: shape (N, C), `harmonic_logits` with n = 1; with their own exponent in them, leave n at 1 here.
        y: class indices, shape (N,).
        n: exponent; a tensor of shape () in a stack of models.

    Returns:
        Scalar.  NaN for a NaN output and for no samples.
    """
    return F.cross_entropy(n * outputs, y)


class HarmonicHead(nn.Module):
    """What replaces the last linear layer: class vectors, and logits by the distance to them.

    Args:
        in_dim: D.
        n_classes: C.
        n: exponent, by default sqrt(D).

    Raises:
        ValueError: no feature, fewer than two classes, or n <= 0.

    >>> HarmonicHead(16, 10)
    HarmonicHead(in_dim=16, n_classes=10, n=4)
    """

    def __init__(self, in_dim: int, n_classes: int, n: float | None = None) -> None:
        super().__init__()
        if in_dim < 1 or n_classes < 2 or not (n is None or n > 0):
            raise ValueError(f"need a feature, two classes and n > 0, got {in_dim}, {n_classes}, {n}")
        self.n = float(in_dim) ** 0.5 if n is None else float(n)
        self.weight = nn.Parameter(torch.randn(n_classes, in_dim) / in_dim**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits -n log d_k, (..., D) -> (..., C), for any loss of logits."""
        return harmonic_logits(x, self.weight, self.n)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"in_dim={self.weight.shape[1]}, n_classes={len(self.weight)}, n={self.n:g}"


class HarmonicLoss(nn.Module):
    """`harmonic_loss` as a module, for a head with n = 1.

    >>> loss = HarmonicLoss(2.0)
    >>> x, w = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> round(loss(harmonic_logits(x, w), torch.tensor([0])).item(), 5)
    0.22314

    Args:
        n: exponent > 0.

    Raises:
        ValueError: n <= 0.
    """

    def __init__(self, n: float = 1.0) -> None:
        super().__init__()
        if not n > 0:
            raise ValueError(f"n must be positive, got {n}")
        self.n = n

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of -log distances (N, C) against class indices (N,)."""
        return harmonic_loss(outputs, y, self.n)


def _unit_head(in_dim: int, n_classes: int) -> HarmonicHead:
    return HarmonicHead(in_dim, n_classes, n=1.0)


register_loss(
    "Harmonic",
    harmonic_loss,
    chapter="harmonic-loss",
    module=HarmonicLoss,
    defaults={"n": 8.0},
    tunable={"n": Range(2.0, 64.0, log=True)},
    head=_unit_head,
)
