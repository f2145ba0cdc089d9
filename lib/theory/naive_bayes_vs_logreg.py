r"""Naive Bayes against logistic regression on given features (Zheng et al., ICML 2023, arXiv 2302.02334).

A Gaussian naive Bayes head estimates prior, means and variances of every feature by counting; with variances shared
between classes it is linear in the features, the generative twin of logistic regression::

    class(x) = argmax_k  log pi_k - 1/2 sum_j [ (x_j - mu_kj)^2 / s2_kj + log s2_kj ]

The paper: to come close to their own asymptotic errors, naive Bayes needs O(log n) samples in the number of features n
and logistic regression O(n), provided that the evidence for the true class grows with n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.theory.comp_sum_loss import h_consistency_bound

__all__ = ["GaussianNBHead", "LogisticHead", "logistic_h_consistency", "samples_to_asymptote"]


class GaussianNBHead:
    """Gaussian naive Bayes on features, fitted by class counts, means and squares that batches add up to.

    Args:
        classes: K, at least 2.
        var: "per_class", or "shared": within-class variances pooled over classes (the authors' choice: linear).
        smoothing: times the largest variance of a feature over all samples, added to every variance.

    Raises:
        ValueError: fewer than two classes, another `var`, or a negative smoothing.

    >>> x, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    >>> GaussianNBHead(2).update(x, y).predict(torch.tensor([[2.0], [3.0]])).tolist()
    [0, 1]
    """

    def __init__(self, classes: int, var: str = "per_class", smoothing: float = 1e-9) -> None:
        if classes < 2 or var not in ("per_class", "shared") or not smoothing >= 0:
            raise ValueError(
                f"need 2 classes, var per_class or shared, smoothing >= 0; got {classes}, {var}, {smoothing}"
            )
        self.classes, self.var, self.smoothing = classes, var, smoothing
        self.count = torch.zeros(classes, dtype=torch.float64)
        self.mean = torch.zeros(classes, 0, dtype=torch.float64)
        self.scatter = torch.zeros(classes, 0, dtype=torch.float64)
        """Samples of each class (K,), their means (K, n), and their squared deviations from these means (K, n)."""

    def update(self, x: Tensor, y: Tensor) -> GaussianNBHead:
        """Add samples; in one batch or in many, the result is the same (Chan et al. 1983).

        Args:
            x: features (m, n).
            y: classes (m,).

        Raises:
            ValueError: shapes do not fit, or a class outside 0..K-1.
        """
        if x.ndim != 2 or y.shape != x.shape[:1] or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.classes):
            raise ValueError(f"need features (m, n) and classes (m,) below {self.classes}, got {tuple(x.shape)}")
        x = x.double()
        member = (y == torch.arange(self.classes)[:, None]).double()
        count = member.sum(1)
        mean = member @ x / count.clamp(min=1)[:, None]
        scatter = member @ (x - mean[y]).square()
        if not self.mean.numel():
            self.mean, self.scatter = torch.zeros_like(mean), torch.zeros_like(scatter)
        total = (self.count + count).clamp(min=1)[:, None]
        shift = mean - self.mean
        old, new = self.count[:, None], count[:, None]
        self.scatter = self.scatter + scatter + shift.square() * old * new / total
        self.mean = self.mean + shift * new / total
        self.count = self.count + count
        return self

    def log_proba(self, x: Tensor) -> Tensor:
        """Log-probabilities of the classes, (m, n) -> (m, K) float64; -inf for a class without samples.

        Raises:
            ValueError: nothing was learnt yet.
        """
        seen = self.count > 0
        if not bool(seen.any()):
            raise ValueError("no samples yet: call update first")
        m = self.count.sum()
        centre = (self.count[:, None] * self.mean).sum(0) / m
        spread = (self.scatter.sum(0) + (self.count[:, None] * (self.mean - centre).square()).sum(0)) / m
        if self.var == "shared":
            variance = (self.scatter.sum(0) / m).expand_as(self.mean)
        else:
            variance = self.scatter / self.count.clamp(min=1)[:, None]
        variance = variance + self.smoothing * spread.max()
        # expanded square: no (m, K, n) array; centred, so that little precision is lost
        inverse, x, means = 1 / variance, x.double() - centre, self.mean - centre
        distance = x.square() @ inverse.T - 2 * x @ (means * inverse).T + (means.square() * inverse).sum(1)
        joint = (self.count / m).log() - (distance + (2 * math.pi * variance).log().sum(1)) / 2
        return joint.masked_fill(~seen, -torch.inf).log_softmax(-1)

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class of features (m, n): int64 (m,)."""
        return self.log_proba(x).argmax(-1)


class LogisticHead:
    """Multinomial logistic regression, ``min_W  C sum_i CE_i + |W|^2 / 2`` with free intercepts, solved to the end.

    Solvers that stop after some hundred steps are far from the minimum where features differ much in scale, and what
    they return is another classifier.  Here L-BFGS works on standardised features and weighs the penalty so that the
    minimum is that of the problem asked for.

    Args:
        c: inverse strength of the ridge penalty, as in scikit-learn.
        standardise: the penalty is on the weights of standardised features instead of the given ones.
        max_iter: steps of L-BFGS at most.

    Raises:
        ValueError: c or max_iter not positive.
    """

    def __init__(self, c: float = 1.0, standardise: bool = False, max_iter: int = 500) -> None:
        if not c > 0 or max_iter < 1:
            raise ValueError(f"need c > 0 and a step or more, got {c} and {max_iter}")
        self.c, self.standardise, self.max_iter = c, standardise, max_iter
        self.weight = torch.empty(0)
        """Weights on given features with the intercept last, (n + 1, K)."""

    def fit(self, x: Tensor, y: Tensor) -> LogisticHead:
        """Minimise on features (m, n) and classes (m,), which must all occur.

        Raises:
            ValueError: shapes do not fit, or fewer than two classes.
        """
        from scipy.optimize import minimize

        if x.ndim != 2 or y.shape != x.shape[:1] or not len(y) or int(y.max()) < 1:
            raise ValueError(f"need features (m, n) and two classes or more (m,), got {tuple(x.shape)}")
        mean, scale = x.double().mean(0), x.double().std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)
        z = torch.cat([(x.double() - mean) / scale, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        onehot = (y[:, None] == torch.arange(int(y.max()) + 1)).double()
        penalty = (
            torch.cat([torch.ones_like(scale) if self.standardise else scale**-2, torch.zeros(1)])[:, None] / self.c
        )
        shape = (z.shape[1], onehot.shape[1])

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            w = torch.from_numpy(flat).view(shape)
            log_p = (z @ w).log_softmax(1)
            value = (penalty * w.square()).sum() / 2 - (onehot * log_p).sum()
            gradient = penalty * w + z.T @ (log_p.exp() - onehot)
            return value.item(), gradient.flatten().numpy()

        options = {"maxiter": self.max_iter, "gtol": 1e-3}
        found = minimize(objective, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options)
        w = torch.from_numpy(found.x).view(shape)
        slopes = w[:-1] / scale[:, None]
        self.weight = torch.cat([slopes, w[-1:] - mean[None] @ slopes])
        return self

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class of features (m, n): int64 (m,)."""
        return (x.double() @ self.weight[:-1] + self.weight[-1]).argmax(-1)


def samples_to_asymptote(
    error: Callable[[int], float], grid: Sequence[int], asymptote: float, tol: float = 0.05
) -> float:
    """Sample size at which a learning curve first comes within `tol` of its asymptote.

    Walks up the grid and stops at the first error <= asymptote + tol; between it and the point before, the error is
    taken as linear in log m.

    Args:
        error: test error after training with m samples.
        grid: rising sample sizes.
        asymptote: the error that the curve tends to.
        tol: how close is close.

    Returns:
        m*, at least ``grid[0]``; inf where the curve stays above.

    Raises:
        ValueError: an empty grid, or one that does not rise.
    """
    if not grid or any(a >= b for a, b in pairwise(grid)):
        raise ValueError(f"grid: rising sample sizes, got {list(grid)}")
    level, before = asymptote + tol, None
    for m in grid:
        now = error(m)
        if now <= level:
            if before is None:
                return float(m)
            last, above = before
            return float(last * (m / last) ** ((above - level) / (above - now)))
        before = m, now
    return math.inf


def logistic_h_consistency(beta: Tensor | float) -> Tensor:
    r"""The surrogate regret of the logistic loss that a zero-one regret of beta costs at least, for any K.

    :math:`\Psi(\beta) = \frac{1+\beta}2 \log(1+\beta) + \frac{1-\beta}2 \log(1-\beta) \ge \beta^2 / 2`, so a surrogate
    regret of eps bounds the zero-one regret by sqrt(2 eps).  The comp-sum bound at tau = 1.

    Args:
        beta: in [0, 1], any shape.

    Raises:
        ValueError: beta outside [0, 1].
    """
    return h_consistency_bound(beta, 1.0, 2)
