"""Input-convex networks (Amos, Xu and Kolter 2017, arXiv:1609.07152) and the monotone maps that are their gradients.

A function g is convex if its layers add up convex functions with weights >= 0 and wrap them in activations that are
convex and do not fall.  The gradient of a strongly convex g is a bijection of R^K with

    (grad g(a) - grad g(b)) . (a - b) >= mu |a - b|^2,

the many-dimensional form of "increasing".  The architecture is that of convex potential flows (Huang et al. 2021,
arXiv:2012.05942), with softplus throughout.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

__all__ = ["ICNN", "GradientMap"]

IDENTITY = 0.541324854612918
"""w_0 with softplus(w_0) = 1, where `GradientMap` starts: the quadratic part is the identity."""
SCALE_MIN = 1e-3
"""Keeps the scales of `_Norm` positive where their exponentials vanish."""


class ICNN(nn.Module):
    r"""A scalar function of s in R^K, convex in s for any values of its parameters.

    With a = softplus and weights :math:`P_l \ge 0` (softplus of a free matrix, over the number of inputs):

    .. math:: z_1 &= a(W_0 s + b_0) \\
              z_{l+1} &= [\,a(n_l(P_l z_l + X_l s)),\; a(Y_l s)\,] \\
              \mathrm{ICNN}(s) &= c\,(P_L z_L + X_L s)

    :math:`n_l` shifts and scales each unit (scales positive); see `calibrate`.

    Args:
        dim: K.
        hidden: units a layer, even.
        depth: L, layers of hidden units.

    Shape:
        (N, K) -> (N,).

    Raises:
        ValueError: dim or depth below 1, or `hidden` not a positive even number.
    """

    def __init__(self, dim: int, hidden: int = 2, depth: int = 4) -> None:
        super().__init__()
        if dim < 1 or depth < 1 or hidden < 2 or hidden % 2:
            raise ValueError(f"need dim, depth >= 1 and hidden even, got {dim}, {depth} and {hidden}")
        half, between = hidden // 2, range(depth - 1)
        self.first = nn.Linear(dim, hidden)
        self.carry = nn.ModuleList(_Positive(hidden, half) for _ in between)
        self.skip = nn.ModuleList(nn.Linear(dim, half) for _ in between)
        self.norms = nn.ModuleList(_Norm(half) for _ in between)
        self.fresh = nn.ModuleList(nn.Linear(dim, half) for _ in between)
        self.last = _Positive(hidden, 1, bias=False)
        self.last_skip = nn.Linear(dim, 1, bias=False)
        self.last_norm = _Norm(1, shift=False)

    def forward(self, s: Tensor) -> Tensor:
        """Values, shape (N,)."""
        return self._run(s, calibrating=False)

    @torch.no_grad()
    def calibrate(self, s: Tensor) -> None:
        """Set shifts and scales so that each unit has mean 0 and deviation 1 on a batch (N, K), as it stands now."""
        self._run(s, calibrating=True)

    def _run(self, s: Tensor, calibrating: bool) -> Tensor:
        z = F.softplus(self.first(s))
        for carry, skip, norm, fresh in zip(self.carry, self.skip, self.norms, self.fresh, strict=True):
            unit = carry(z) + skip(s)
            if calibrating:
                cast(_Norm, norm).calibrate(unit)
            z = torch.cat([F.softplus(norm(unit)), F.softplus(fresh(s))], dim=-1)
        top = self.last(z) + self.last_skip(s)
        if calibrating:
            self.last_norm.calibrate(top)
        return self.last_norm(top).squeeze(-1)  # type: ignore[no-any-return]


class GradientMap(nn.Module):
    r"""The gradient of :math:`g(s) = \mathrm{sp}(w_1)\,\mathrm{ICNN}(s) + \mathrm{sp}(w_0)\,\lVert s \rVert^2 / 2`.

    sp is softplus.  A bijection of R^K, strongly monotone with modulus sp(w_0).  Differentiable in s and in the
    parameters, under autograd as well as under `torch.func`.

    Args:
        dim: K.
        hidden: of the `ICNN`.
        depth: of the `ICNN`.

    Shape:
        (N, K) -> (N, K).
    """

    def __init__(self, dim: int, hidden: int = 2, depth: int = 4) -> None:
        super().__init__()
        self.icnn = ICNN(dim, hidden, depth)
        self.w0, self.w1 = nn.Parameter(torch.full((1,), IDENTITY)), nn.Parameter(torch.randn(1))

    def potential(self, s: Tensor) -> Tensor:
        """g(s), shape (N,)."""
        convex: Tensor = self.icnn(s)
        return F.softplus(self.w1) * convex + F.softplus(self.w0) * s.square().sum(-1) / 2

    def forward(self, s: Tensor) -> Tensor:
        """The gradient of g at each row of s, shape (N, K)."""
        slope: Tensor = grad(lambda at: self.icnn(at).sum())(s)
        return F.softplus(self.w1) * slope + F.softplus(self.w0) * s


class _Positive(nn.Linear):
    """Linear with weights >= 0: the output is convex where the inputs are."""

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = F.linear(z, F.softplus(self.weight), self.bias)
        return out / self.in_features


class _Norm(nn.Module):
    """Shift, then a positive scale, for each unit (an affine normalisation that looks at one batch only)."""

    def __init__(self, units: int, shift: bool = True) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(units)) if shift else None
        self.log_scale = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = (x if self.shift is None else x + self.shift) * (self.log_scale.exp() + SCALE_MIN)
        return scaled

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        self.log_scale.copy_(-(x.std(dim=0, correction=0) + 1e-6).log())
        if self.shift is not None:
            self.shift.copy_(-x.mean(dim=0))
