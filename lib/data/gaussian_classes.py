r"""Classes that are Gaussian clouds of one covariance, in as many dimensions as wanted, for questions of sample size.

    x = mu_y + s * (sqrt(1 - r) e + sqrt(r) z 1),    e ~ N(0, I_n),  z ~ N(0, 1)

Features are independent given the class at r = 0 (what naive Bayes assumes); at r > 0 any two of them have correlation
r.  Two worlds differ in how class means grow with the dimension n: `growing_gap`, where every feature adds its share of
information, and `constant_gap`, where a fixed amount of it is spread over all features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

__all__ = ["GaussianClasses", "constant_gap", "growing_gap"]


@dataclass(frozen=True)
class GaussianClasses:
    """The distribution; classes are equally frequent.

    Attributes:
        means: mu, (K, n) float64.
        deviation: s, (n,) float64.
        correlation: r in [0, 1).
    """

    means: Tensor
    deviation: Tensor
    correlation: float = 0.0

    def draw(self, per_class: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Inputs (K per_class, n) float64, class by class, and labels int64."""
        classes, n = self.means.shape
        y = torch.arange(classes).repeat_interleave(per_class)
        own = torch.randn(len(y), n, generator=generator, dtype=torch.float64)
        common = torch.randn(len(y), 1, generator=generator, dtype=torch.float64)
        r = self.correlation
        return self.means[y] + self.deviation * ((1 - r) ** 0.5 * own + r**0.5 * common), y

    def bayes(self, x: Tensor) -> Tensor:
        """The class that the Bayes rule predicts for inputs (N, n): int64 (N,)."""
        n, r = self.means.shape[1], self.correlation
        # Sherman-Morrison: the inverse of (1 - r) I + r 11'
        scaled, centres = x / self.deviation, self.means / self.deviation

        def whiten(v: Tensor) -> Tensor:
            return (v - r * v.sum(-1, keepdim=True) / (1 - r + r * n)) / (1 - r)

        weights = whiten(centres)
        return (scaled @ weights.T - 0.5 * (weights * centres).sum(-1)).argmax(-1)


def growing_gap(n: int, classes: int = 5, correlation: float = 0.0) -> GaussianClasses:
    """Every feature has the same mean within a class: -1, 1, 2, 4, 8, ...; half have variance n, the others 1.

    The simulation of Zheng et al. (arXiv 2302.02334, main_simulation in their code).  The log-likelihood gap between
    classes grows with n, so the Bayes error vanishes.

    Args:
        n: dimensions, at least 2.
        classes: K, at least 2.
        correlation: r in [0, 1).

    Raises:
        ValueError: an argument out of range.
    """
    _check(n, classes, correlation)
    level = torch.tensor([-1.0] + [2.0**k for k in range(classes - 1)], dtype=torch.float64)
    deviation = torch.ones(n, dtype=torch.float64)
    deviation[: n // 2] = n**0.5
    return GaussianClasses(level[:, None].expand(-1, n).clone(), deviation, correlation)


def constant_gap(
    n: int, generator: Generator, classes: int = 5, distance: float = 3.2, correlation: float = 0.0
) -> GaussianClasses:
    """Class means with random signs, +-distance / sqrt(2 n) in every feature; all variances 1.

    Two means differ in about half of the signs and have about this distance, whatever n: so has the Bayes error.

    Args:
        n: dimensions, at least 2.
        generator: draws the signs.
        classes: K, at least 2.
        distance: between class means, in deviations.
        correlation: r in [0, 1).

    Raises:
        ValueError: an argument out of range.
    """
    _check(n, classes, correlation)
    signs = 2.0 * torch.randint(2, (classes, n), generator=generator).double() - 1
    return GaussianClasses(distance / (2 * n) ** 0.5 * signs, torch.ones(n, dtype=torch.float64), correlation)


def _check(n: int, classes: int, correlation: float) -> None:
    if n < 2 or classes < 2 or not 0 <= correlation < 1:
        raise ValueError(f"need two dimensions and classes and r in [0, 1), got {n}, {classes}, {correlation}")
