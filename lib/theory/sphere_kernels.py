"""Classifiers by kernels of the angle between unit vectors, and tables that make deep kernels cheap.

A kernel that depends on <x, x'> alone is a function of one number.  Deep ones take many operations an entry, so they
are computed once on a fine grid of log(1 - <x, x'>), which resolves what happens near 1, and looked up from then on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["KernelTable", "half_square_distances", "kernel_machine"]

SMALLEST = 1e-13


def half_square_distances(x: Tensor, z: Tensor) -> Tensor:
    """``1 - <x, z> = |x - z|^2 / 2`` of unit vectors (N, D) and (M, D): (N, M), at least `SMALLEST`."""
    return (1 - x @ z.T).clamp(min=SMALLEST)


class KernelTable:
    """A kernel function, tabulated; called with log u, where u = 1 - <x, x'>.

    Between the nodes, evenly spaced in log u, it is linear in log u: for K ~ u^-a the relative error is a^2 h^2 / 8
    with the spacing h = 30 / nodes (3e-8 at a = 1 and the default).

    Args:
        kernel: function of xi = <x, x'> in [0, 1], float64.
        nodes: size of the table.
        device: where it is used.
    """

    def __init__(
        self, kernel: Callable[[Tensor], Tensor], nodes: int = 2**16, device: str | torch.device = "cpu"
    ) -> None:
        self.start = math.log(SMALLEST)
        self.spacing = -self.start / (nodes - 1)
        grid = torch.linspace(self.start, 0, nodes, dtype=torch.float64, device=device)
        self.values = kernel(-torch.expm1(grid))
        self.steps = torch.diff(self.values, append=self.values[-1:])

    def __call__(self, log_u: Tensor) -> Tensor:
        """K of the shape of log_u, which has to lie between log `SMALLEST` and 0."""
        place = (log_u - self.start).div_(self.spacing)
        index = place.long()
        return torch.addcmul(self.values[index], self.steps[index], place.sub_(index))


def kernel_machine(gram: Tensor, cross: Tensor, y: Tensor, jitter: float = 1e-8) -> Tensor:
    """Scores of kernel regression without noise term, ``cross (gram + jitter * mean diagonal)^-1 y``.

    Args:
        gram: K(X, X), (N, N).
        cross: K(x, X) of new points, (M, N).
        y: targets, (N,) or (N, outputs).
        jitter: relative to the mean of the diagonal; kernels of finite rank need one.

    Returns:
        (M,) or (M, outputs).

    Raises:
        RuntimeError: gram is not positive definite (from torch).
    """
    lifted = gram + jitter * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(lifted)
    scores: Tensor = cross @ torch.cholesky_solve(y.reshape(len(gram), -1), factor)
    return scores.squeeze(-1) if y.ndim == 1 else scores
