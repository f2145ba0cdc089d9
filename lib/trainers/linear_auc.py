r"""Linear multi-label models at the exact minimum of a surrogate of Macro-AUC plus a ridge, by Newton's method.

For one label and weights w the objective is :math:`L(w) + \frac\lambda2 \lVert w \rVert^2` with L one of the losses of
`lib.losses.macro_auc` (without the mean over labels).  It is convex, so what comes out depends on neither a step size
nor a number of steps: methods that are compared differ in their loss alone.  All ridges are solved side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fit_linear_auc"]

Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]
"""t -> l'(t), l''(t) of a base loss."""


def _logistic(t: Tensor) -> tuple[Tensor, Tensor]:
    miss = torch.sigmoid(-t)
    return -miss, torch.addcmul(miss, miss, miss, value=-1)


def _squared(t: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * t - 2, torch.full_like(t, 2)


def _exponential(t: Tensor) -> tuple[Tensor, Tensor]:
    e = torch.exp(-t)
    return -e, e


SMOOTH: dict[str, Slopes] = {"logistic": _logistic, "squared": _squared, "exponential": _exponential}


def fit_linear_auc(
    x: Tensor,
    y: Tensor,
    kind: str,
    ridges: Sequence[float],
    base: str = "logistic",
    bias: bool = False,
    steps: int = 100,
    tolerance: float = 1e-5,
) -> Tensor:
    """Weights of linear scores ``x @ w``, for every ridge and label.

    Args:
        x: inputs, (N, d).
        y: labels 0 or 1, (N, K).
        kind: "pairwise", "univariate" or "reweighted".
        ridges: lambda > 0, R of them.
        base: "logistic", "squared" or "exponential".
        bias: add a constant that the ridge leaves alone (the pairwise loss does not see it: it stays 0).
        steps: Newton steps at most for a ridge.
        tolerance: stop when no entry of a gradient exceeds it.

    Returns:
        float64, (R, K, d), or (R, K, d + 1) with the bias last.  0 for a label without positives or without negatives.

    Raises:
        ValueError: an unknown kind or base, a ridge that is not positive, or shapes that do not fit.
        RuntimeError: not converged.
    """
    if kind not in ("pairwise", "univariate", "reweighted") or base not in SMOOTH:
        raise ValueError(f"unknown kind {kind!r} or base {base!r} (a smooth one: {', '.join(SMOOTH)})")
    if min(ridges) <= 0 or x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"need ridges > 0, x (N, d) and y (N, K); got {list(ridges)}, {x.shape}, {y.shape}")
    wide = x.to(torch.float64)
    decay = torch.tensor(ridges, dtype=torch.float64, device=x.device)[:, None] * torch.ones_like(wide[:1])
    if bias:
        wide = F.pad(wide, (0, 1), value=1.0)
        decay = F.pad(decay, (0, 1), value=1e-9 if kind == "pairwise" else 0.0)
    weights = []
    for label in y.T.bool():
        if label.all() or not label.any():
            weights.append(torch.zeros_like(decay))
            continue
        if kind != "pairwise":
            each = _samples(wide, label, kind, SMOOTH[base])
            weights.append(_newton(each, decay, torch.zeros_like(decay), steps, tolerance))
            continue
        # All pairs of one ridge fit into the cache, and each ridge starts where the next larger one ended.
        objective, path = _pairs(wide, label, SMOOTH[base]), torch.zeros_like(decay)
        start = path[:1]
        for r in sorted(range(len(decay)), key=lambda r: -ridges[r]):
            start = path[r : r + 1] = _newton(objective, decay[r : r + 1], start, steps, tolerance)
        weights.append(path)
    return torch.stack(weights, dim=1)


Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``objective(w (R, d))``: gradients (R, d) and Hessians (R, d, d) of the loss without its ridge."""


def _samples(x: Tensor, label: Tensor, kind: str, base: Slopes) -> Objective:
    sign = 2 * label.to(x.dtype) - 1
    share = torch.where(label, 1 / label.sum(), 1 / (~label).sum()) if kind == "reweighted" else 1 / len(x)

    def objective(w: Tensor) -> tuple[Tensor, Tensor]:
        first, second = base(sign * (w @ x.T))
        return (share * sign * first) @ x, x.T @ ((share * second)[:, :, None] * x)

    return objective


def _pairs(x: Tensor, label: Tensor, base: Slopes) -> Objective:
    plus, minus = x[label], x[~label]
    pairs = len(plus) * len(minus)

    def objective(w: Tensor) -> tuple[Tensor, Tensor]:
        first, second = base((w @ plus.T)[:, :, None] - (w @ minus.T)[:, None])  # (R, P, M)
        gradient = first.sum(2) @ plus - first.sum(1) @ minus
        # sum_ij h_ij (u_i - v_j)(u_i - v_j)^T from row sums, column sums and one product
        cross = plus.T @ (second @ minus)
        curvature = plus.T @ (second.sum(2)[:, :, None] * plus) + minus.T @ (second.sum(1)[:, :, None] * minus)
        return gradient / pairs, (curvature - cross - cross.mT) / pairs

    return objective


def _newton(objective: Objective, decay: Tensor, w: Tensor, steps: int, tolerance: float) -> Tensor:
    """Steps are halved until the slope along them is smaller at their end than at their beginning."""
    gradient, curvature = objective(w)
    gradient = gradient + decay * w
    for _ in range(steps):
        if gradient.abs().max() < tolerance:
            return w
        step = torch.linalg.solve(curvature + torch.diag_embed(decay), gradient)
        before = (gradient * step).sum(1)
        for _ in range(40):
            trial = w - step
            gradient, curvature = objective(trial)
            gradient = gradient + decay * trial
            too_far = (gradient * step).sum(1).abs() > 0.9 * before.abs() + tolerance**2
            if not too_far.any():
                break
            step, before = (torch.where(too_far.view(-1, *[1] * (t.ndim - 1)), t / 2, t) for t in (step, before))
        w = trial
    raise RuntimeError(f"Newton's method: gradient {gradient.abs().max():.2g} after {steps} steps")
