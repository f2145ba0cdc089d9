"""Smooth adversarial comp-sum losses (arXiv 2304.07288, section 5): a loss at the input plus how far its gaps can move.

With the gaps ``D(x)_k = h(x, y) - h(x, k)`` to the other classes k != y and Phi_tau of `lib.losses.comp_sum`::

    L = Phi_tau( sum_{k != y} exp(-D(x)_k / rho) )  +  nu max_{|x' - x|_inf <= eps} || D(x') - D(x) ||_2

The first term is smooth in the gaps: for tau >= 1 its gradient by D is no longer than 1 / rho, because
``|| exp(-D/rho) ||_2 <= u`` and ``u / (1 + u)^tau <= 1``.  So from nu = 1 / rho on, L is at least Phi_tau at the worst
x', and ``L / Phi_tau(1)`` at least the adversarial zero-one loss (a misclassified x' has some D_k <= 0, hence u >= 1).

The maximum is searched by projected gradient ascent (`lib.augment.pgd`); x' is held constant, D(x) and D(x') are both
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.augment.attacks import pgd
from lib.losses.comp_sum import phi_tau

__all__ = ["SmoothAdversarialCompSum", "gap_distances", "smooth_adversarial_loss"]


def gap_distances(logits: Tensor, moved: Tensor, y: Tensor) -> Tensor:
    """``|| D(x') - D(x) ||_2`` of each sample; the class y itself adds nothing, its gap is 0 in both.

    Args:
        logits: h at x, shape (N, C).
        moved: h at x', shape (N, C).
        y: class indices, shape (N,).

    Returns:
        Shape (N,).  Where the gaps agree the distance is 0 and its gradient is taken as 0.
    """
    change = moved - logits
    change = change - change.gather(-1, y.unsqueeze(-1))
    squared = change.square().sum(-1)
    moves = squared > 0
    return torch.where(moves, torch.where(moves, squared, 1.0).sqrt(), squared)


def smooth_adversarial_loss(
    logits: Tensor,
    moved: Tensor,
    y: Tensor,
    tau: float | Tensor = 1.0,
    rho: float | Tensor = 1.0,
    nu: float | Tensor = 1.0,
) -> Tensor:
    """Comp-sum loss at scale rho plus nu times the mean of `gap_distances`, for inputs that were moved already.

    Args:
        logits: h at x, shape (N, C).
        moved: h at x', shape (N, C).
        y: class indices, shape (N,).
        tau: member of the comp-sum family, >= 0.
        rho: scale of the gaps, > 0.
        nu: weight of the smoothness term, >= 0.  Tensors of shape () are not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no samples.

    Raises:
        ValueError: shapes differ, or a number is out of range.
    """
    if logits.shape != moved.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and moved {tuple(moved.shape)} must have one shape")
    if isinstance(rho, (int, float)) and not rho > 0:
        raise ValueError(f"rho must be positive, got {rho}")
    if isinstance(nu, (int, float)) and not nu >= 0:
        raise ValueError(f"nu must be at least 0, got {nu}")
    fit = phi_tau(F.cross_entropy(logits / rho, y, reduction="none"), tau)
    return (fit + nu * gap_distances(logits, moved, y)).mean()


class SmoothAdversarialCompSum(nn.Module):
    """`smooth_adversarial_loss` with the search for x', for an ordinary training loop.

    Args:
        tau: member of the comp-sum family.
        rho: scale of the gaps.
        nu: weight of the smoothness term.
        eps: radius of the ball in the maximum norm, in units of the input.
        steps: of projected gradient ascent.
        bounds: box of valid inputs, None for no box.

    Raises:
        ValueError: an argument that `smooth_adversarial_loss` refuses.
    """

    def __init__(
        self,
        tau: float = 1.0,
        rho: float = 1.0,
        nu: float = 1.0,
        eps: float = 0.1,
        steps: int = 10,
        bounds: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.tau, self.rho, self.nu, self.eps, self.steps, self.bounds = tau, rho, nu, eps, steps, bounds
        smooth_adversarial_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1).long(), tau, rho, nu)

    def forward(
        self,
        net: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Loss of a network at inputs x (N, ...) with classes y (N,); `generator` draws the starts of the search."""
        logits = net(x)
        anchor = logits.detach()
        # The gradient of the distance vanishes at x itself, so the search starts beside it.
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        moved = pgd(
            net,
            x,
            y,
            self.eps,
            self.steps,
            loss=lambda z, labels: gap_distances(anchor, z, labels),
            start=self.eps * (2 * noise - 1),
            bounds=self.bounds,
        )
        return smooth_adversarial_loss(logits, net(moved.detach()), y, self.tau, self.rho, self.nu)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"tau={self.tau}, rho={self.rho}, nu={self.nu}, eps={self.eps}, steps={self.steps}"
