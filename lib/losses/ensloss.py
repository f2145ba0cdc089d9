"""EnsLoss (arXiv 2409.00908): every step of training draws the derivative of a new convex, calibrated loss.

Gradient descent on a margin loss ``mean phi(s_i)``, s = (2y - 1) f, sees only phi'(s_i), never phi.  The loss is
convex if phi' does not fall with s, and calibrated if in addition phi'(0) < 0.  So for a batch of B margins and
w_i ~ N(0, 1)::

    u_i = (1 + lambda w_i)^(1/lambda)        inverse Box-Cox transform, exp(w_i) for lambda = 0
    g_i = max(-u_i, -1)                      sorted, the lowest to the smallest margin: convex
    g_i = g_i / s_i  where s_i > 1           a superlinear raising tail
    g_i = g_i - 1e-6                         negative everywhere: calibrated
    L   = mean g_i s_i                       g_i detached, so that dL/ds_i = g_i / B

The value of L means nothing; only its gradient does.  Every `period` epochs lambda ~ U(-1, 1) is drawn anew.
Where 1 + lambda w < 0 the transform is continued by its limit: 0 for lambda > 0, infinity for lambda < 0.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from lib.losses.margin_losses import signed_margins

__all__ = ["EnsLoss", "box_cox_schedule", "ens_derivatives", "ens_loss", "inverse_box_cox"]

FLOOR = 1e-6
"""What is subtracted from every derivative, so that it stays negative."""


def inverse_box_cox(w: Tensor, lam: float | Tensor) -> Tensor:
    """``(1 + lam w)^(1/lam)``, and its limit ``exp(w)`` at lam = 0; increasing in w, and 1 at w = 0 for every lam.

    Args:
        w: any shape.
        lam: a number, or a tensor that broadcasts with w.

    Returns:
        In [0, inf]: where ``1 + lam w <= 0`` it is 0 (lam > 0) or infinity (lam < 0).
    """
    power = torch.as_tensor(lam, dtype=w.dtype, device=w.device)
    zero = power == 0
    safe = torch.where(zero, torch.ones_like(power), power)
    return torch.where(zero, w.exp(), torch.exp(torch.log1p((safe * w).clamp(min=-1)) / safe))


def ens_derivatives(margins: Tensor, w: Tensor, lam: float | Tensor = 0.0, sort: bool = True) -> Tensor:
    """The random derivatives g_i of a batch.

    Args:
        margins: s_i, shape (B,).
        w: standard normal draws, shape (B,).
        lam: of the inverse Box-Cox transform.
        sort: give the lowest derivative to the smallest margin; without it they meet by chance, and
            the "loss" of a batch is neither convex nor a function of the margin.

    Returns:
        Shape (B,), in [-1 - 1e-6, -1e-6], detached; with `sort` non-decreasing in the margin.

    Raises:
        ValueError: not two vectors of one length.
    """
    if margins.ndim != 1 or margins.shape != w.shape:
        raise ValueError(f"need margins (B,) and draws (B,), got {tuple(margins.shape)} and {tuple(w.shape)}")
    s = margins.detach()
    g = -inverse_box_cox(w.to(s.dtype), lam).clamp(max=1)
    if sort:
        ranks = s.argsort(stable=True).argsort()
        g = g.sort().values.gather(0, ranks)
    return g / s.clamp(min=1) - FLOOR


def ens_loss(output: Tensor, y: Tensor, w: Tensor, lam: float | Tensor = 0.0, sort: bool = True) -> Tensor:
    """``mean g_i s_i`` for given draws: pure, so that it works under `torch.func`.

    Args:
        output: shape (B,) or (B, 1).
        y: 0 or 1, shape (B,).
        w: standard normal draws, shape (B,), fresh for every batch.
        lam: of the inverse Box-Cox transform.
        sort: see `ens_derivatives`.

    Returns:
        Scalar, without meaning but for its gradient.  NaN for a NaN output and for no samples.

    Raises:
        ValueError: shapes do not fit.
    """
    margins = signed_margins(output, y)
    return (ens_derivatives(margins, w, lam, sort) * margins).mean()


def box_cox_schedule(
    epochs: int, generator: Generator, period: int = 10, lam_range: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    """lambda for each epoch: 0 in the first `period` epochs, then a uniform draw for each further `period`.

    Raises:
        ValueError: period below 1, or an empty range.
    """
    low, high = _checked(period, lam_range)
    draws = low + (high - low) * torch.rand(-(-epochs // period), generator=generator)
    draws[:1] = 0
    return draws.repeat_interleave(period)[:epochs]


class EnsLoss(nn.Module):
    """`ens_loss` that draws for itself; call `end_epoch` after every pass over the data.

    Args:
        period: epochs with one lambda; the first lambda is 0.
        lam_range: ends of the uniform distribution of the others.
        sort: see `ens_derivatives`.
        generator: of the draws, on the device of the outputs; None is torch's global one.

    Raises:
        ValueError: period below 1, or an empty range.

    >>> loss = EnsLoss(generator=torch.Generator().manual_seed(0))
    >>> output = torch.tensor([2.0, -1.0, 0.3], requires_grad=True)
    >>> loss(output, torch.tensor([1, 1, 1])).backward()
    >>> [round(3 * slope, 4) for slope in output.grad.tolist()]
    [-0.0566, -1.0, -0.7457]
    """

    def __init__(
        self,
        period: int = 10,
        lam_range: tuple[float, float] = (-1.0, 1.0),
        sort: bool = True,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.lam_range = _checked(period, lam_range)
        self.period, self.sort, self.generator = period, sort, generator
        self.lam, self.epochs = 0.0, 0

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """Loss of outputs (B,) or (B, 1) against labels 0 or 1, shape (B,), with fresh draws."""
        w = torch.randn(len(y), generator=self.generator, dtype=output.dtype, device=output.device)
        return ens_loss(output, y, w, self.lam, self.sort)

    def end_epoch(self) -> None:
        """Count an epoch; after each `period` of them draw lambda anew."""
        self.epochs += 1
        if self.epochs % self.period == 0:
            device = "cpu" if self.generator is None else self.generator.device
            low, high = self.lam_range
            self.lam = low + (high - low) * torch.rand((), generator=self.generator, device=device).item()

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"period={self.period}, lam_range={self.lam_range}, sort={self.sort}"


def _checked(period: int, lam_range: tuple[float, float]) -> tuple[float, float]:
    low, high = lam_range
    if period < 1 or not low <= high:
        raise ValueError(f"need period >= 1 and low <= high, got {period} and {lam_range}")
    return low, high
