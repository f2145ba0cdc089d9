r"""Functional gradient boosting: losses with gradient and curvature, and the length of a step along a weak learner.

Every loss here is that of an exponential family in its natural parameter, :math:`\ell(y, F) = A(F) - t(y)^\top F` up to
a term without F.  So the gradient is :math:`g = \mu(F) - t(y)` with the mean :math:`\mu = \nabla A`, and the Hessian
:math:`\nabla^2 A` does not depend on y.  Sources: Friedman 2001 (gradient boosting), Friedman, Hastie and Tibshirani
2000 (Newton steps).

Shapes: scores F (..., N, K), labels y (..., N), with any leading dimensions (one for a stack of runs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["BoostingLoss", "Logistic", "Softmax", "SquaredError", "line_search", "newton_step"]


class BoostingLoss(Protocol):
    """What boosting asks of a loss; K = `outputs` scores a sample."""

    @property
    def outputs(self) -> int:
        """Number of scores K."""

    def start(self, y: Tensor) -> Tensor:
        """The constant score of least loss, (..., 1, K)."""

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample, (..., N)."""

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        """Derivative by the scores, (..., N, K); its negative are the pseudo-residuals."""

    def curvature(self, scores: Tensor) -> Tensor:
        """Diagonal of the Hessian, (..., N, K)."""

    def along(self, scores: Tensor, direction: Tensor) -> Tensor:
        """Second derivative along a direction (..., N, K): :math:`d^\\top \\nabla^2 A\\, d`, (..., N)."""


@dataclass(frozen=True)
class SquaredError:
    r"""Regression, :math:`\ell = \tfrac12 (y - F)^2`: gradient F - y, curvature 1."""

    outputs: int = 1

    def start(self, y: Tensor) -> Tensor:
        """The mean of y."""
        return y.mean(-1)[..., None, None]

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """Half the squared error."""
        return 0.5 * (y - scores[..., 0]) ** 2

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        """F - y."""
        return scores - y[..., None]

    def curvature(self, scores: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(scores)

    def along(self, scores: Tensor, direction: Tensor) -> Tensor:
        """The squared length of the direction."""
        return direction.square().sum(-1)


@dataclass(frozen=True)
class Logistic:
    r"""Two classes, y in {0, 1}: :math:`\ell = \log(1 + e^{-s \tilde y F})` with :math:`\tilde y = 2y - 1`.

    Gradient :math:`s(\sigma(sF) - y)`, curvature :math:`s^2 \sigma(sF)(1 - \sigma(sF))`.

    Attributes:
        scale: s; 1: F is the logit, 2: half the logit, as in Friedman's two-class boosting.
        outputs: 1.
    """

    scale: float = 1.0
    outputs: int = 1

    def start(self, y: Tensor) -> Tensor:
        """Log-odds of the share of ones, over s."""
        return (torch.logit(y.double().mean(-1)) / self.scale)[..., None, None].to(torch.get_default_dtype())

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood, in nats."""
        logit = self.scale * scores[..., 0]
        return functional.softplus(logit) - y * logit

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        """s (p - y)."""
        return self.scale * (torch.sigmoid(self.scale * scores) - y[..., None])

    def curvature(self, scores: Tensor) -> Tensor:
        """s² p (1 - p)."""
        logit = self.scale * scores
        return self.scale**2 * torch.sigmoid(logit) * torch.sigmoid(-logit)

    def along(self, scores: Tensor, direction: Tensor) -> Tensor:
        """Curvature times the squared direction."""
        return (self.curvature(scores) * direction.square()).sum(-1)


@dataclass(frozen=True)
class Softmax:
    r"""K classes, y in {0..K-1}: cross-entropy; gradient p - onehot(y), Hessian :math:`\mathrm{diag}(p) - pp^\top`.

    Attributes:
        outputs: K.
    """

    outputs: int

    def _onehot(self, y: Tensor, like: Tensor) -> Tensor:
        return functional.one_hot(y.long(), self.outputs).to(like.dtype)

    def start(self, y: Tensor) -> Tensor:
        """Logarithms of the class shares, shifted to mean 0; absent classes count as half a sample."""
        counts = functional.one_hot(y.long(), self.outputs).sum(-2).to(torch.get_default_dtype())
        logs = counts.clamp(min=0.5).log()
        return (logs - logs.mean(-1, keepdim=True))[..., None, :]

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood, in nats."""
        index = y.long().expand(scores.shape[:-1])[..., None]
        return torch.logsumexp(scores, -1) - scores.gather(-1, index)[..., 0]

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        """p - onehot(y)."""
        return scores.softmax(-1) - self._onehot(y, scores)

    def curvature(self, scores: Tensor) -> Tensor:
        """p (1 - p)."""
        p = scores.softmax(-1)
        return p * (1 - p)

    def along(self, scores: Tensor, direction: Tensor) -> Tensor:
        """Variance of the direction's entries under p; the diagonal alone leaves out their products."""
        p = scores.softmax(-1)
        mean = (p * direction).sum(-1, keepdim=True)
        return (p * (direction - mean).square()).sum(-1)


def newton_step(loss: BoostingLoss, scores: Tensor, y: Tensor, direction: Tensor, diagonal: bool = False) -> Tensor:
    r"""One Newton step of :math:`\rho \mapsto \sum_i \ell(y_i, F_i + \rho h_i)` from 0.

    :math:`\rho = -\sum_i g_i^\top h_i \,/ \sum_i h_i^\top H_i h_i`; with `diagonal` only the diagonals of the H_i count
    (for several classes: too long a step where the entries of a direction differ in sign, as pseudo-residuals do).

    Args:
        loss: of scores and labels.
        scores: F (..., N, K).
        y: labels (..., N).
        direction: the weak learner's outputs h (..., N, K).
        diagonal: as above.

    Returns:
        (...); 0 where the direction is flat (no curvature along it).
    """
    slope = (loss.gradient(scores, y) * direction).sum((-2, -1))
    if diagonal:
        bend = (loss.curvature(scores) * direction.square()).sum((-2, -1))
    else:
        bend = loss.along(scores, direction).sum(-1)
    flat = bend <= torch.finfo(bend.dtype).tiny
    return torch.where(flat, 0.0, -slope / torch.where(flat, 1.0, bend))


def line_search(
    loss: BoostingLoss, scores: Tensor, y: Tensor, direction: Tensor, ridge: float = 1e-5, steps: int = 20
) -> float:
    r"""The length that minimises the mean loss along a direction, by damped Newton steps.

    .. math:: \min_\rho\; \frac1N \sum_i \ell(y_i, F_i + \rho h_i) + \lambda \rho^2

    The objective is convex, and a step is halved until the objective falls, so the result is never worse than 0.

    Args:
        loss: of scores and labels.
        scores: F (N, K).
        y: labels (N,).
        direction: h (N, K).
        ridge: lambda.
        steps: at most so many Newton steps.

    Raises:
        ValueError: scores or direction are not finite.
    """
    if not (scores.isfinite().all() and direction.isfinite().all()):
        raise ValueError("line search: scores and direction must be finite")

    def objective(rho: float) -> float:
        return float(loss.value(scores + rho * direction, y).mean()) + ridge * rho**2

    rho, best = 0.0, objective(0.0)
    for _ in range(steps):
        at = scores + rho * direction
        slope = float((loss.gradient(at, y) * direction).sum(-1).mean()) + 2 * ridge * rho
        bend = float(loss.along(at, direction).mean()) + 2 * ridge
        step = -slope / bend if bend > 0 else 0.0
        while abs(step) > 1e-10 * max(1.0, abs(rho)) and objective(rho + step) >= best:
            step /= 2
        if not math.isfinite(step) or abs(step) <= 1e-10 * max(1.0, abs(rho)):
            break
        rho, best = rho + step, objective(rho + step)
    return rho
