r"""The Z-loss (de Brébisson, Vincent 2016, arXiv:1604.08859) and its relatives, the spherical family.

A loss of C outputs o = W h is *spherical* if it depends on them only through their sum s, their sum of squares q and
the output :math:`o_y` of the true class.  The Z-loss standardises that output among all outputs::

    mu = s / C,   sigma^2 = q / C - mu^2,   z_y = (o_y - mu) / sigma
    L  = (1/a) log(1 + exp(a (b - z_y)))                               (softplus of sharpness a, pulling until z_y = b)

Others: the squared error :math:`q - 2 o_y + 1`, the Taylor softmax :math:`(1 + o_y + o_y^2/2) / (C + s + q/2)` and the
spherical softmax :math:`(o_y^2 + \epsilon) / (q + C \epsilon)`, both with minus the logarithm (arXiv:1511.05042).

Why it matters (Vincent et al., arXiv:1412.7091): with :math:`\bar w = W^\top 1` and :math:`Q = W^\top W` at hand,
:math:`s = \bar w^\top h`, :math:`q = h^\top Q h` and :math:`o_y = w_y^\top h` cost O(d^2) for h in R^d, whatever C.
Not here: the paper's factorised update, which keeps that cost while W changes; W is kept dense, and Q costs O(C d^2)
anew after each update, once for all samples of a batch.

Not to be confused with the regulariser :math:`\log^2 \sum_k e^{z_k}` of large language models, also called z-loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = [
    "SphericalOutputLayer",
    "SphericalStatistics",
    "ZLoss",
    "spherical_softmax_loss",
    "spherical_statistics",
    "squared_error_of",
    "taylor_softmax_loss",
    "z_loss",
]

FLOOR = 1e-12
"""Smallest variance of the outputs: sigma is at least 1e-6."""


class SphericalStatistics(NamedTuple):
    """All that a spherical loss sees of C outputs.

    Attributes:
        total: s, the sum of the outputs, shape (...).
        squares: q, the sum of their squares.
        own: the output of the true class.
        classes: C.
    """

    total: Tensor
    squares: Tensor
    own: Tensor
    classes: int


def spherical_statistics(outputs: Tensor, y: Tensor) -> SphericalStatistics:
    """The dense way: statistics of outputs (..., C) with true classes y (...), at O(C) a sample."""
    own = outputs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return SphericalStatistics(outputs.sum(-1), outputs.square().sum(-1), own, outputs.shape[-1])


def z_score(at: SphericalStatistics) -> Tensor:
    """z_y, shape (...), at most sqrt(C - 1); q / C - mu^2 cancels where the mean far exceeds the deviation."""
    mean = at.total / at.classes
    return (at.own - mean) / (at.squares / at.classes - mean.square()).clamp_min(FLOOR).sqrt()


def z_loss_of(at: SphericalStatistics, a: float | Tensor = 1.0, b: float | Tensor = 1.0) -> Tensor:
    """The Z-loss of each sample, shape (...), see `z_loss`."""
    return -F.logsigmoid(a * (z_score(at) - b)) / a


def taylor_softmax_of(at: SphericalStatistics) -> Tensor:
    """Minus the log of the Taylor softmax of each sample, shape (...); numerators are at least 1/2."""
    return torch.log((at.classes + at.total + at.squares / 2) / (1 + at.own + at.own.square() / 2))


def spherical_softmax_of(at: SphericalStatistics, epsilon: float | Tensor = 0.1) -> Tensor:
    """Minus the log of the spherical softmax of each sample, shape (...); epsilon > 0."""
    return torch.log((at.squares + at.classes * epsilon) / (at.own.square() + epsilon))


def squared_error_of(at: SphericalStatistics) -> Tensor:
    """Squared distance of the outputs from the one-hot label, shape (...)."""
    return at.squares - 2 * at.own + 1


def z_loss(outputs: Tensor, y: Tensor, a: float | Tensor = 1.0, b: float | Tensor = 1.0) -> Tensor:
    """Mean Z-loss ``(1/a) log(1 + exp(a (b - z_y)))``.

    With two classes z_y is 1 or -1 whatever the outputs, so that there is no gradient: use three or more.  Outputs that
    are all equal have z_y = 0.

    Args:
        outputs: shape (N, C), raw outputs of the network.
        y: class indices, shape (N,).
        a: sharpness > 0 of the softplus; a tensor (in a stack of models) is not inspected.
        b: the z-score at which the pull fades; it can be reached only below sqrt(C - 1).

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit, C < 2, or a number a <= 0.
    """
    _check(outputs, y)
    if isinstance(a, (int, float)) and not a > 0:
        raise ValueError(f"a must be positive, got {a}")
    variance, mean = torch.var_mean(outputs, -1, correction=0)  # no cancellation, unlike q / C - mu^2
    own = outputs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    z = (own - mean) / variance.clamp_min(FLOOR).sqrt()
    return (-F.logsigmoid(a * (z - b)) / a).mean()


def taylor_softmax_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean of -log p_y with p_k proportional to 1 + o_k + o_k^2 / 2, which falls with o_k below -1.

    Args:
        outputs: shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit, or C < 2.
    """
    _check(outputs, y)
    return taylor_softmax_of(spherical_statistics(outputs, y)).mean()


def spherical_softmax_loss(outputs: Tensor, y: Tensor, epsilon: float | Tensor = 0.1) -> Tensor:
    """Mean of -log p_y with p_k proportional to o_k^2 + epsilon: the likeliest class has the largest *absolute* output.

    Args:
        outputs: shape (N, C).
        y: class indices, shape (N,).
        epsilon: > 0, what keeps an output of zero from an infinite loss; a tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit, C < 2, or a number epsilon <= 0.
    """
    _check(outputs, y)
    if isinstance(epsilon, (int, float)) and not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    return spherical_softmax_of(spherical_statistics(outputs, y), epsilon).mean()


class ZLoss(nn.Module):
    """`z_loss` as a module.

    >>> ZLoss()(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2])).item()  # doctest: +ELLIPSIS
    0.587...

    Args:
        a: sharpness, positive.
        b: z-score at which the pull fades.

    Raises:
        ValueError: a <= 0.
    """

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}")
        self.a, self.b = a, b

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of outputs (N, C) against class indices (N,)."""
        return z_loss(outputs, y, self.a, self.b)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"a={self.a}, b={self.b}"


class SphericalOutputLayer(nn.Module):
    """Last layer o = W h without bias, with what a spherical loss needs of it at a cost that C does not enter.

    Args:
        d: features.
        n_classes: C.

    Raises:
        ValueError: fewer than one feature or two classes.
    """

    def __init__(self, d: int, n_classes: int) -> None:
        super().__init__()
        if d < 1 or n_classes < 2:
            raise ValueError(f"need a feature and two classes, got {d} and {n_classes}")
        self.weight = nn.Parameter(torch.randn(n_classes, d) / d**0.5)

    def forward(self, h: Tensor) -> Tensor:
        """All outputs, (..., d) -> (..., C)."""
        return F.linear(h, self.weight)

    def summary(self) -> tuple[Tensor, Tensor]:
        """The sum of the rows of W, (d,), and its Gram matrix, (d, d): O(C d^2), once for as long as W stays."""
        return self.weight.sum(0), self.weight.mT @ self.weight

    def statistics(self, h: Tensor, y: Tensor, summary: tuple[Tensor, Tensor] | None = None) -> SphericalStatistics:
        """The fast way: statistics of the outputs of h (..., d) with true classes y (...), at O(d^2) a sample.

        Args:
            h: features.
            y: class indices.
            summary: from `summary`; by default it is computed, and differentiated through.
        """
        row_sum, gram = self.summary() if summary is None else summary
        own = (h * self.weight[y]).sum(-1)
        return SphericalStatistics(h @ row_sum, ((h @ gram) * h).sum(-1), own, len(self.weight))


def _check(outputs: Tensor, y: Tensor) -> None:
    if outputs.ndim != 2 or outputs.shape[-1] < 2 or outputs.shape[:-1] != y.shape:
        raise ValueError(f"need outputs (N, C) with C >= 2 and y (N,), got {tuple(outputs.shape)}, {tuple(y.shape)}")


# The two others are not listed: their likeliest class is not always that of the largest output, which is what whoever
# measures the accuracy of a listed loss would take.
register_loss(
    "Z-loss",
    z_loss,
    chapter="z-loss",
    module=ZLoss,
    defaults={"a": 1.0, "b": 1.0},
    tunable={"a": Range(0.1, 10.0, log=True), "b": Range(0.5, 4.0, log=True)},
)
