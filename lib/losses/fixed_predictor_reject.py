r"""A surrogate loss for rejecting the answers of a fixed predictor (Mohri et al., ICLR 2024, arXiv 2301.09044).

The predictor is given; an annotation a in {+1, -1} says whether its answer to x is acceptable.  A rejector r accepts
where r(x) > 0, and a rejection costs c in (0, 1/2).  Target loss and surrogate::

    L(r, x, a) = 1[a = -1] 1[r > 0] + c 1[r <= 0]
    l(r, x, a) = exp((alpha / 2) (r - a)) + c exp(-beta r)

With p = P(a = -1 | x) and I_p = p e^(alpha/2) + (1 - p) e^(-alpha/2) the expected surrogate is
I_p e^(alpha r / 2) + c e^(-beta r), least at::

    r*(p) = log(2 beta c / (alpha I_p)) / (alpha / 2 + beta)

so that beta = alpha I_c / (2 c) makes r* zero exactly at p = c, positive below and negative above: the threshold of the
target loss is built in.  Exponents are clipped at 30, where the gradient ends; the paper does not clip.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = [
    "FixedPredictorRejectLoss",
    "calibrated_beta",
    "conditional_minimiser",
    "reject_surrogate",
    "rejection_cost",
]

CLIP = 30.0


def _mean_pull(p: float | Tensor, alpha: float | Tensor) -> Tensor:
    """I_p."""
    half = (alpha if isinstance(alpha, Tensor) else torch.tensor(alpha, dtype=torch.float64)) / 2
    return p * half.exp() + (1 - p) * (-half).exp()


def calibrated_beta(c: float | Tensor, alpha: float | Tensor = 2.0) -> Tensor:
    """``beta = alpha I_c / (2 c)``: the exponent at which accepting becomes right where P(a = -1 | x) falls below c.

    Args:
        c: cost of a rejection, in (0, 1); a tensor is not inspected.
        alpha: above 0; a tensor is not inspected.

    Raises:
        ValueError: a number out of its range.
    """
    _check(c, alpha)
    return alpha * _mean_pull(c, alpha) / (2 * c)


def reject_surrogate(
    r: Tensor, a: Tensor, c: float | Tensor = 0.1, alpha: float | Tensor = 2.0, beta: float | Tensor | None = None
) -> Tensor:
    """Mean of ``exp((alpha / 2) (r - a)) + c exp(-beta r)``, an upper bound of the target loss.

    Args:
        r: scores of the rejector, any shape.
        a: +1 (acceptable) or -1 (wrong), the same shape, not inspected.
        c: cost of a rejection, in (0, 1/2); as all hyperparameters a number or a tensor of shape ().
        alpha: above 0.
        beta: second exponent; `calibrated_beta` without.

    Returns:
        Scalar.  NaN for a NaN score and for no samples.

    Raises:
        ValueError: shapes differ, or a number out of its range.
    """
    if r.shape != a.shape:
        raise ValueError(f"r {tuple(r.shape)} and a {tuple(a.shape)} must have one shape")
    _check(c, alpha)
    beta = calibrated_beta(c, alpha).to(r) if beta is None else beta
    wrong = (alpha / 2 * (r - a)).clamp(max=CLIP)
    return (wrong.exp() + c * (-beta * r).clamp(max=CLIP).exp()).mean()


def rejection_cost(r: Tensor, a: Tensor, c: float | Tensor) -> Tensor:
    """The target loss, mean over the last dimension: 1 for an accepted wrong answer, c for a rejection.

    Args:
        r: scores, shape (..., N); r > 0 accepts, and a NaN is rejected.
        a: +1 or -1, broadcasts with r.
        c: cost of a rejection.
    """
    accepted = (r > 0).double()
    return (accepted * (a < 0) + c * (1 - accepted)).mean(-1)


def conditional_minimiser(p: Tensor, c: float, alpha: float = 2.0, beta: float | Tensor | None = None) -> Tensor:
    """``r*(p)``, the best score where answers are wrong with probability p; shape of p.

    Args:
        p: P(a = -1 | x), in [0, 1].
        c: see `reject_surrogate`.
        alpha: see `reject_surrogate`.
        beta: see `reject_surrogate`.

    Raises:
        ValueError: a number out of its range.
    """
    beta = calibrated_beta(c, alpha).to(p) if beta is None else beta
    return (2 * beta * c / (alpha * _mean_pull(p, alpha))).log() / (alpha / 2 + beta)


def _check(c: float | Tensor, alpha: float | Tensor) -> None:
    if isinstance(c, (int, float)) and not 0 < c < 1:
        raise ValueError(f"c: in (0, 1), below 1/2 for a rejection that can pay; got {c}")
    if isinstance(alpha, (int, float)) and not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha: above 0, got {alpha}")


class FixedPredictorRejectLoss(nn.Module):
    """`reject_surrogate` as a module.

    Args:
        c: cost of a rejection, in (0, 1/2).
        alpha: above 0.
        calibrated: with the calibrated beta, else beta = 1.

    Raises:
        ValueError: c or alpha out of range.

    >>> round(FixedPredictorRejectLoss(0.1, 2.0)(torch.zeros(1), torch.tensor([-1.0])).item(), 5)
    2.81828
    """

    def __init__(self, c: float = 0.1, alpha: float = 2.0, calibrated: bool = True) -> None:
        super().__init__()
        if not 0 < c < 0.5:
            raise ValueError(f"c: in (0, 1/2), got {c}")
        self.c, self.alpha = c, alpha
        self.beta = calibrated_beta(c, alpha).item() if calibrated else 1.0

    def forward(self, r: Tensor, a: Tensor) -> Tensor:
        """Loss of scores r against annotations a (one shape): a scalar."""
        return reject_surrogate(r, a, self.c, self.alpha, self.beta)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"c={self.c}, alpha={self.alpha}, beta={self.beta:.5g}"
