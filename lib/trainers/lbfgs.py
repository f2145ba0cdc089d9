r"""L-BFGS for many small problems at once (Liu and Nocedal 1989): one row a problem, all rows in step.

A weak learner of a few units is fitted in milliseconds, most of them overhead; a stack of problems of one shape pays it
once.  Each row has its own step length and its own memory, so rows do not see one another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["lbfgs_stack"]

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
ARMIJO = 1e-4
HALVINGS = 12


def lbfgs_stack(objective: Objective, start: Tensor, iterations: int = 60, memory: int = 5) -> tuple[Tensor, Tensor]:
    r"""Minimise R independent functions.

    The direction is the two-loop recursion over the last `memory` pairs :math:`(s, y)`; a step is halved until
    :math:`f(x + t d) \le f(x) + 10^{-4}\, t\, \nabla f^\top d`.  Pairs without positive curvature are left out,
    and a row that finds no step forgets its pairs and goes on along its gradient.

    Args:
        objective: of x (R, P), returns values (R,) and gradients (R, P).
        start: (R, P).
        iterations: of all rows.
        memory: pairs that are kept.

    Returns:
        The last x (R, P), and the values there (R,); never above those at the start.

    Raises:
        ValueError: iterations or memory below 1, or a value at the start that is not finite.
    """
    if iterations < 1 or memory < 1:
        raise ValueError(f"need an iteration and a pair to remember, got {iterations} and {memory}")
    x = start.clone()
    value, gradient = objective(x)
    if not value.isfinite().all():
        raise ValueError("objective is not finite at the start")
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / s'y, or 0 where the pair does not count
    gamma = (1 / gradient.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
    for _ in range(iterations):
        direction = -_inverse_hessian(pairs, gamma, gradient)
        slope = (gradient * direction).sum(1, keepdim=True)
        step = torch.ones_like(slope)
        accepted = torch.zeros_like(slope, dtype=torch.bool)
        new, new_value, new_gradient = x, value, gradient
        for _ in range(HALVINGS):
            trial = torch.addcmul(x, step, direction)
            trial_value, trial_gradient = objective(trial)
            fine = trial_value[:, None] <= torch.addcmul(value[:, None], step, slope, value=ARMIJO)
            take = fine & ~accepted
            new = torch.where(take, trial, new)
            new_value = torch.where(take[:, 0], trial_value, new_value)
            new_gradient = torch.where(take, trial_gradient, new_gradient)
            accepted |= fine
            if accepted.all():
                break
            step = torch.where(accepted, step, step / 2)
        s, y = new - x, new_gradient - gradient
        curve = (s * y).sum(1, keepdim=True)
        counts = accepted & (curve > 1e-12 * (y * y).sum(1, keepdim=True))
        inverse = torch.where(counts, 1 / torch.where(counts, curve, 1.0), 0.0)
        if not accepted.all():
            pairs = [(a, b, torch.where(accepted, c, 0.0)) for a, b, c in pairs]
        pairs = [*pairs[1 - memory :], (s, y, inverse)] if memory > 1 else [(s, y, inverse)]
        square = (y * y).sum(1, keepdim=True)
        gamma = torch.where(counts, curve / torch.where(counts, square, 1.0), gamma)
        x, value, gradient = new, new_value, new_gradient
    return x, value


def _inverse_hessian(pairs: list[tuple[Tensor, Tensor, Tensor]], gamma: Tensor, gradient: Tensor) -> Tensor:
    """The two-loop recursion."""
    q, weights = gradient, []
    for s, y, inverse in reversed(pairs):
        weight = inverse * (s * q).sum(1, keepdim=True)
        q = torch.addcmul(q, weight, y, value=-1)
        weights.append(weight)
    q = gamma * q
    for (s, y, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q = torch.addcmul(q, weight - inverse * (y * q).sum(1, keepdim=True), s)
    return q
