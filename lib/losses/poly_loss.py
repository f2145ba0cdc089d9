"""PolyLoss (arXiv 2204.12511): cross-entropy and focal loss as power series whose first coefficients are adjustable.

With p_t the predicted probability of the true class and eps_j = 0 for j > n, Poly-n on a focal base is::

    L = -(1 - p_t)^gamma log p_t + sum_{j=1..n} eps_j (1 - p_t)^(j + gamma)
      = sum_{j>=1} (1/j + eps_j) (1 - p_t)^(j + gamma)

so that gamma = 0 perturbs cross-entropy, and n = 1 is the paper's Poly-1.  Nothing is detached.

Everything is computed from the margin m = log((1 - p_t) / p_t): log p_t = log sigmoid(-m) and
log(1 - p_t) = log sigmoid(m) keep their relative precision for any finite logits, where 1 - p_t itself rounds to zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.registry import Range, register_loss

__all__ = ["PolyLoss", "drop_front", "poly_loss", "series_coefficients", "sigmoid_poly_loss", "truncated_series"]


def poly_loss(
    logits: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] | Tensor = 2.0,
    gamma: float | Tensor = 0.0,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Poly-n loss of softmax predictions, by default CE + epsilon (1 - p_t).

    Args:
        logits: shape (..., C), C >= 2 classes.
        target: class indices, shape (...).
        epsilon: eps_1, or eps_1 ... eps_n (sequence or tensor; a tensor may be 0-d).
        gamma: focusing exponent of the focal base, >= 0; 0 is cross-entropy.
        label_smoothing: a in [0, 1): the one-hot target y becomes (1-a) y + a/C,
            and p_t becomes sum_k y_k p_k.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or shape (...) for "none".  A NaN logit makes the loss of its
        sample NaN; so is the mean of no samples.

    Raises:
        ValueError: shapes or `reduction` do not fit, `label_smoothing` or `gamma`
            out of range, or a number eps_j < -1/j (a negative coefficient).  Tensors
            are not inspected: so `torch.func.vmap` can carry one epsilon a model.
        TypeError: `target` is not integer.
        RuntimeError: a label outside [0, C) (from torch).
    """
    _check(logits, target, label_smoothing)
    index = target.long().unsqueeze(-1)
    true = logits.gather(-1, index).squeeze(-1)
    margin = logits.scatter(-1, index, -torch.inf).logsumexp(-1) - true
    log_p, log_q = F.logsigmoid(-margin), F.logsigmoid(margin)  # q = 1 - p_t
    if label_smoothing:
        a, classes = label_smoothing, logits.shape[-1]
        # y is spread as a/C on every class, and sum_k (1 - p_k) = C - 1
        log_q = torch.log((1 - a) * log_q.exp() + a * (classes - 1) / classes)
        log_p = (1 - a) * log_p + a * logits.log_softmax(-1).mean(-1)
    return _reduce(_series(log_p, log_q, epsilon, gamma), reduction)


def sigmoid_poly_loss(
    logits: Tensor,
    target: Tensor,
    epsilon: float | Sequence[float] | Tensor = 1.0,
    gamma: float | Tensor = 2.0,
    alpha: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Poly-n loss of independent binary predictions, p_t = sigmoid(z) or 1 - sigmoid(z): the form used in detection.

    Args:
        logits: any shape.
        target: 0 or 1, shape of `logits` (not inspected; soft labels are not meant).
        epsilon: see `poly_loss`.
        gamma: see `poly_loss`.
        alpha: weight of the positives in [0, 1], 1 - alpha that of the negatives; it weighs base and polynomial alike.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: shapes differ, or an argument is out of range.
    """
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must have one shape")
    sign = 1 - 2 * target.to(logits.dtype)
    margin = sign * logits
    loss = _series(F.logsigmoid(-margin), F.logsigmoid(margin), epsilon, gamma)
    if alpha is not None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        loss = loss * (0.5 + (0.5 - alpha) * sign)
    return _reduce(loss, reduction)


class PolyLoss(nn.Module):
    """`poly_loss` as a module.

    Args:
        epsilon: one number for each of the first `n` coefficients (shared if it is a single number).
        n: how many leading coefficients are perturbed.
        gamma: focusing exponent; 0 is a cross-entropy base.
        label_smoothing: in [0, 1).
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: `n` < 1, not `n` epsilons, or an argument that `poly_loss` refuses.

    >>> loss = PolyLoss(epsilon=1.0)
    >>> round(loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])).item(), 5)
    0.74237
    """

    def __init__(
        self,
        epsilon: float | Sequence[float] = 2.0,
        n: int = 1,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.epsilon = (float(epsilon),) * n if isinstance(epsilon, (int, float)) else tuple(map(float, epsilon))
        if len(self.epsilon) != n:
            raise ValueError(f"Poly-{n} needs {n} epsilons, got {len(self.epsilon)}")
        self.gamma, self.label_smoothing, self.reduction = gamma, label_smoothing, reduction
        self(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))  # refuse bad arguments now, not in the first step

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (..., C) against class indices (...)."""
        return poly_loss(logits, target, self.epsilon, self.gamma, self.label_smoothing, self.reduction)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"epsilon={self.epsilon}, gamma={self.gamma}, label_smoothing={self.label_smoothing}"


def series_coefficients(terms: int, epsilon: float | Sequence[float] = 0.0) -> Tensor:
    """The first coefficients a_j = 1/j + eps_j, j = 1 ... `terms`, of (1 - p_t)^(j + gamma).

    Returns:
        float64, shape (terms,).

    Raises:
        ValueError: fewer terms than epsilons, or an eps_j < -1/j.
    """
    perturbations = _epsilons(epsilon)
    if terms < len(perturbations):
        raise ValueError(f"{terms} terms cannot hold {len(perturbations)} perturbed coefficients")
    coefficients = 1 / torch.arange(1, terms + 1, dtype=torch.float64)
    coefficients[: len(perturbations)] += torch.tensor(perturbations, dtype=torch.float64)
    return coefficients


def truncated_series(
    p_t: Tensor, terms: int, epsilon: float | Sequence[float] = 0.0, gamma: float | Tensor = 0.0
) -> Tensor:
    """``sum_{j<=terms} (1/j + eps_j) (1 - p_t)^(j + gamma)`` by Horner's rule: the memory of `p_t`, however many terms.

    Args:
        p_t: probabilities of the true class, any shape.
        terms: where the series ends; the remainder of cross-entropy is below (1 - p_t)^(terms+1) / ((terms+1) p_t).
        epsilon: see `series_coefficients`.
        gamma: see `poly_loss`.
    """
    q = 1 - p_t
    total = torch.zeros_like(q)
    for coefficient in reversed(series_coefficients(terms, epsilon).tolist()):
        total = total * q + coefficient
    return total * q ** (1 + gamma)


def drop_front(terms: int) -> tuple[float, ...]:
    """The perturbations eps_j = -1/j that remove the first `terms` terms of the series (`terms` >= 1)."""
    return tuple(-1 / j for j in range(1, terms + 1))


def _series(log_p: Tensor, log_q: Tensor, epsilon: float | Sequence[float] | Tensor, gamma: float | Tensor) -> Tensor:
    """The loss from log p_t and log(1 - p_t); powers of 1 - p_t are taken in the log domain."""
    if isinstance(gamma, (int, float)) and not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    loss = -torch.exp(gamma * log_q) * log_p
    for j, perturbation in enumerate(_epsilons(epsilon), start=1):
        loss = loss + perturbation * torch.exp((j + gamma) * log_q)
    return loss


def _epsilons(epsilon: float | Sequence[float] | Tensor) -> tuple[float | Tensor, ...]:
    """eps_1 ... eps_n; numbers are checked, tensors taken as they are."""
    if isinstance(epsilon, Tensor):
        return (epsilon,) if epsilon.ndim == 0 else epsilon.unbind()
    values: Iterable[float] = (epsilon,) if isinstance(epsilon, (int, float)) else epsilon
    for j, value in enumerate(values, start=1):
        if not value >= -1 / j:
            raise ValueError(f"epsilon_{j} = {value:g}: coefficient 1/{j} + epsilon_{j} must not be negative")
    return tuple(values)


def _check(logits: Tensor, target: Tensor, label_smoothing: float) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 2 or logits.shape[:-1] != target.shape:
        shapes = f"logits {tuple(logits.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"need logits (..., C) with C >= 2 and target (...), got {shapes}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold class indices, got {target.dtype}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")
    return loss.mean() if reduction == "mean" else loss.sum()


register_loss(
    "Poly-1",
    poly_loss,
    chapter="poly-loss",
    module=PolyLoss,
    defaults={"epsilon": 2.0},
    tunable={"epsilon": Range(-1.0, 6.0)},
)
