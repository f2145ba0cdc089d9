r"""Infinitely wide and deep networks as classifiers (Radhakrishnan, Belkin, Uhler 2022, arXiv:2204.14126).

An activation :math:`\phi = \sum_k c_k h_k` in orthonormal Hermite polynomials, :math:`\sum_k c_k^2 = 1`, has the dual
:math:`k(\xi) = \sum_k c_k^2 \xi^k`.  For unit vectors with :math:`\xi = \langle x, x' \rangle` the kernels of a fully
connected network of infinite width are (Jacot et al. 2018, arXiv:1806.07572)

.. math:: S_0 = K_0 = \xi, \qquad S_{l+1} = k(S_l), \qquad K_{l+1} = S_{l+1} + K_l\, k'(S_l),

S that of the network at initialisation, K its neural tangent kernel (NTK).  What K becomes as the depth L grows is
decided by :math:`A = E \phi = c_0`, :math:`A' = E \phi' = c_1` and :math:`B' = E \phi'^2 = k'(1)`, if :math:`B' > 1`:

* A = A' = 0: ratios :math:`K_L(\xi_1) / K_L(\xi_2)` for :math:`\xi_1 > \xi_2` diverge: one nearest neighbour;
* A != 0: :math:`K_L` becomes constant below :math:`\xi = 1`: majority vote;
* A = 0, A' != 0: :math:`K_L / ((L + 1) A'^{2L}) \to \psi` with :math:`\psi(k(\xi)) = A'^2 \psi(\xi)` and
  :math:`\psi \sim (1 - \xi)^{-\alpha}`, :math:`\alpha = -\log A'^2 / \log B'`: a singular kernel.

On data of dimension d the last is consistent at :math:`\alpha = d / 2`, where :math:`\psi \sim |x - x'|^{-d}`.  The
limits are derived here for inputs with :math:`\xi \ge 0` (non-negative coordinates): an odd k, such as that for d = 2,
has a second singularity, of the wrong sign, at :math:`\xi = -1`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lib.data.teacher_student import hermite

__all__ = [
    "DeepNTK",
    "Moments",
    "activation",
    "classify_activation",
    "hermite_coefficients",
    "moments",
    "relu_ntk",
    "singular_activation",
]

Limit = Literal["nn", "majority", "singular"]


class Moments(NamedTuple):
    """What the limit of great depth depends on.

    Attributes:
        mean: A.
        slope: A'.
        growth: B'.
        order: alpha, NaN outside of the singular case.
    """

    mean: float
    slope: float
    growth: float
    order: float


def singular_activation(d: int) -> Tensor:
    """Hermite coefficients c_0, c_1, ... of an activation whose kernel has the order d / 2: float64.

    For d >= 2 the paper's cubic with c_1 = c_3 = 2^(-d/4), so that B' = 2.  For d = 1, where no cubic of that form
    exists (c_2^2 would be negative), h_1 and h_5 with c_1^2 = (1 + sqrt 17) / 8, the root of a^2 (5 - 4a) = 1 (ours:
    the paper's is a sinusoid).

    Raises:
        ValueError: d below 1.
    """
    if d < 1:
        raise ValueError(f"d: at least 1, got {d}")
    if d == 1:
        a = (1 + math.sqrt(17)) / 8
        squares = [0.0, a, 0.0, 0.0, 0.0, 1 - a]
    else:
        squares = [0.0, 2 ** (-d / 2), 1 - 2 ** (1 - d / 2), 2 ** (-d / 2)]
    return torch.tensor(squares, dtype=torch.float64).clamp(min=0).sqrt()


def activation(coefficients: Tensor) -> Callable[[Tensor], Tensor]:
    """phi(z) = sum_k c_k h_k(z), a function for networks."""
    return lambda z: sum((c * hermite(z, k) for k, c in enumerate(coefficients.tolist()) if c), torch.zeros_like(z))


def hermite_coefficients(phi: Callable[[Tensor], Tensor], degree: int = 20, nodes: int = 200) -> Tensor:
    """c_0 ... c_degree of a function that takes and gives float64 tensors, by Gauss-Hermite quadrature.

    Exact for polynomials; for others sum c_k^2 tells what the truncation leaves out.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    z = torch.from_numpy(points)
    mass = torch.from_numpy(weights / weights.sum()) * phi(z)
    return torch.stack([(mass * hermite(z, k)).sum() for k in range(degree + 1)])


def moments(coefficients: Tensor) -> Moments:
    """A, A', B' and alpha of an activation given by its Hermite coefficients (K + 1,).

    Raises:
        ValueError: not one-dimensional, or E phi^2 = sum c_k^2 is not 1.
    """
    if coefficients.ndim != 1 or not math.isclose(coefficients.square().sum().item(), 1, abs_tol=1e-6):
        raise ValueError("need Hermite coefficients (K + 1,) whose squares sum to 1")
    c = [*coefficients.tolist(), 0.0]
    growth = sum(k * v * v for k, v in enumerate(c))
    singular = abs(c[0]) < 1e-9 < abs(c[1]) and growth > 1
    return Moments(c[0], c[1], growth, -math.log(c[1] ** 2) / math.log(growth) if singular else math.nan)


def classify_activation(phi: Callable[[Tensor], Tensor] | Tensor, tolerance: float = 1e-6) -> Limit:
    """Which classifier the infinitely wide and deep network is: "nn", "majority" or "singular".

    Args:
        phi: Hermite coefficients, or a function (a polynomial of degree 20 at most, with E phi^2 = 1).
        tolerance: below which A and A' count as 0.

    Raises:
        ValueError: E phi^2 is not 1, or B' is not above 1 (as for ReLU): not in this taxonomy.
    """
    found = moments(phi if isinstance(phi, Tensor) else hermite_coefficients(phi))
    if found.growth <= 1 + tolerance:
        raise ValueError(f"B' = {found.growth:.6g}: the taxonomy needs B' > 1")
    if abs(found.mean) > tolerance:
        return "majority"
    return "singular" if abs(found.slope) > tolerance else "nn"


class DeepNTK:
    """The NTK of an infinitely wide network with a polynomial activation, as a function of xi = <x, x'> in [0, 1].

    Args:
        dual_coeffs: c_k^2 >= 0, shape (K + 1,), sum 1.
        depth: L >= 0, hidden layers.

    Raises:
        ValueError: a negative coefficient, a sum other than 1, or a negative depth.
    """

    def __init__(self, dual_coeffs: Tensor, depth: int) -> None:
        squares = dual_coeffs.double().tolist()
        if min(squares) < 0 or not math.isclose(sum(squares), 1, abs_tol=1e-6) or depth < 0:
            raise ValueError(f"need c_k^2 >= 0 of sum 1 and depth >= 0, got {squares} and {depth}")
        self.squares = [c / sum(squares) for c in squares]  # an error of the sum grows like B'^L
        self.slopes = [k * c for k, c in enumerate(self.squares)][1:]
        self.depth = depth

    def dual(self, xi: Tensor) -> Tensor:
        """k(xi), cut off at 1, from where rounding errors would run away."""
        return _polynomial(self.squares, xi).clamp(max=1)

    def slope(self, xi: Tensor) -> Tensor:
        """k'(xi)."""
        return _polynomial(self.slopes, xi)

    def __call__(self, xi: Tensor) -> Tensor:
        """K_L(xi), of the shape of xi; overflows where B'^L does and may underflow to 0 (see `log`)."""
        return _ntk(self.dual, self.slope, xi, self.depth)

    def log(self, xi: Tensor) -> Tensor:
        """log K_L(xi) for xi in [0, 1], at any depth; -inf at xi = 0 where K is 0."""
        log_s = log_k = xi.log()
        for _ in range(self.depth):
            slope = _log_polynomial(self.slopes, log_s)
            log_s = _log_polynomial(self.squares, log_s)
            log_k = torch.logaddexp(log_s, log_k + slope)
        return log_k

    def scaled(self, xi: Tensor) -> Tensor:
        """K_L / ((L + 1) A'^(2L)) for A = 0, A' != 0, at any depth: what tends to psi, at the rate 1 / (L (1 - xi))."""
        return self._scaled(xi)[1] / (self.depth + 1)

    def limit(self, xi: Tensor) -> Tensor:
        """psi(xi) for A = 0, A' != 0, by s_L = S_L / A'^(2L), which converges geometrically (L = 60 will do)."""
        return self._scaled(xi)[0]

    def _scaled(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """s_L and t_L = K_L / A'^(2L); once S has vanished, s stays and t grows by s a layer.

        Raises:
            ValueError: not a singular case.
        """
        if len(self.squares) < 3 or self.squares[0] > 1e-12 or not 0 < self.squares[1] < 1:
            raise ValueError("the scaled kernel needs A = 0 and 0 < A'^2 < 1")
        a = self.squares[1]
        ratio = [c / a for c in self.squares[1:]]  # k(S) / (S A'^2)
        slope = [c / a for c in self.slopes]
        s, t, small = xi, xi, xi
        for layer in range(self.depth):
            if (small < 1e-18).all():
                return s, t + (self.depth - layer) * s
            s = s * _polynomial(ratio, small)
            t = s + t * _polynomial(slope, small)
            small = self.dual(small)
        return s, t


def relu_ntk(xi: Tensor, depth: int) -> Tensor:
    """NTK of ReLU networks, phi = sqrt(2) max(0, z), by arc-cosine kernels (Cho and Saul 2009); xi in [-1, 1]."""

    def angle(s: Tensor) -> Tensor:
        return math.pi - torch.arccos(s.clamp(-1, 1))

    def dual(s: Tensor) -> Tensor:
        return ((1 - s * s).clamp(min=0).sqrt() + s * angle(s)) / math.pi

    return _ntk(dual, lambda s: angle(s) / math.pi, xi, depth)


def _ntk(dual: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], xi: Tensor, depth: int) -> Tensor:
    s = k = xi
    for _ in range(depth):
        s, by = dual(s), slope(s)
        k = s + k * by
    return k


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.mul_(x).add_(c)
    return total


def _log_polynomial(coefficients: list[float], log_x: Tensor) -> Tensor:
    terms = [math.log(c) + (k * log_x if k else torch.zeros_like(log_x)) for k, c in enumerate(coefficients) if c > 0]
    return torch.stack(terms).logsumexp(0)
