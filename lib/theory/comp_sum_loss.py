r"""What a comp-sum loss promises about the zero-one loss (arXiv 2304.07288, section 3).

At one input with class probabilities p, scores h have the conditional surrogate regret
:math:`\sum_y p_y \Phi_\tau(h, y) - \inf_h \sum_y p_y \Phi_\tau(h, y)` and the conditional zero-one regret
:math:`\max_k p_k - p_{\hat y}`, with :math:`\hat y` the class of the highest score.  For every p and h the first is at
least :math:`\mathcal T_\tau` of the second.  :math:`\mathcal T_\tau` is convex, so the inequality survives the
expectation over inputs: that is the H-consistency bound of the paper for a complete hypothesis set (one that can take
any scores at any input), up to the minimizability gaps.

The infimum has a closed form.  Scores matter through s = softmax(h) only, and
:math:`\Phi_\tau = (s_y^{\tau-1} - 1) / (1 - \tau)`; setting the derivative over the simplex to zero gives
:math:`s_y \propto p_y^{1/(2-\tau)}` for :math:`\tau < 2`, and from :math:`\tau = 2` on all mass on the likeliest class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.losses.comp_sum import phi_tau

__all__ = ["best_conditional_risk", "best_softmax", "conditional_risk", "h_consistency_bound", "zero_one_regret"]


def h_consistency_bound(beta: Tensor | float, tau: float, n_classes: int) -> Tensor:
    r"""The smallest surrogate regret :math:`\mathcal T_\tau(\beta)` that the bound allows at zero-one regret beta.

    With :math:`M = \tfrac12 (1+\beta)^{1/(2-\tau)} + \tfrac12 (1-\beta)^{1/(2-\tau)}` (theorem 3.1):

    .. math::

        \mathcal T_\tau(\beta) = \begin{cases}
        \frac{2^{1-\tau}}{1-\tau} \left(1 - M^{2-\tau}\right) & \tau < 1 \\
        \frac{1+\beta}2 \log(1+\beta) + \frac{1-\beta}2 \log(1-\beta) & \tau = 1 \\
        \frac{1}{(\tau-1)\, n^{\tau-1}} \left(M^{2-\tau} - 1\right) & 1 < \tau < 2 \\
        \frac{\beta}{(\tau-1)\, n^{\tau-1}} & \tau \ge 2
        \end{cases}

    Args:
        beta: zero-one regret in [0, 1], any shape.
        tau: member of the family, >= 0.
        n_classes: n, at least 2.

    Returns:
        float64, shape of beta.

    Raises:
        ValueError: an argument out of range.
    """
    b = torch.as_tensor(beta, dtype=torch.float64)
    if not tau >= 0 or n_classes < 2 or not bool(((b >= 0) & (b <= 1)).all()):
        raise ValueError(f"need beta in [0, 1], tau >= 0 and two classes or more; got {tau}, {n_classes}, {beta}")
    if tau == 1:
        deficit: Tensor = torch.xlogy(1 + b, 1 + b) + torch.xlogy(1 - b, 1 - b)
        return deficit / 2
    if tau >= 2:
        return b / ((tau - 1) * math.pow(n_classes, tau - 1))
    # M^(2 - tau) in the log domain: just below tau = 2 its powers overflow.
    log_mean = torch.logaddexp(torch.log1p(b) / (2 - tau), torch.log1p(-b) / (2 - tau)) - math.log(2)
    factor = math.pow(2 if tau < 1 else n_classes, 1 - tau)
    return -factor * torch.expm1((2 - tau) * log_mean) / (1 - tau)


def best_softmax(p: Tensor, tau: float) -> Tensor:
    """The softmax that minimises the conditional risk: s proportional to p^(1/(2-tau)), shape of p (..., C).

    From tau = 2 on one-hot at the likeliest class (the infimum, reached by no finite scores).

    Raises:
        ValueError: tau < 0.
    """
    if not tau >= 0:
        raise ValueError(f"tau must be at least 0, got {tau}")
    if tau >= 2:
        return (torch.arange(p.shape[-1], device=p.device) == p.argmax(-1, keepdim=True)).to(p)
    return (p.log() / (2 - tau)).softmax(-1)


def conditional_risk(p: Tensor, scores: Tensor, tau: float) -> Tensor:
    """``sum_y p_y Phi_tau(h, y)`` for probabilities p (..., C) and scores (..., C): shape (...)."""
    losses = phi_tau(-scores.log_softmax(-1), tau)
    return torch.where(p > 0, p * losses, 0.0).sum(-1)


def best_conditional_risk(p: Tensor, tau: float) -> Tensor:
    """The infimum of `conditional_risk` over all scores, shape (...)."""
    return conditional_risk(p, best_softmax(p, tau).log(), tau)


def zero_one_regret(p: Tensor, scores: Tensor) -> Tensor:
    """``max_k p_k - p_yhat`` with yhat the (first) highest score; p and scores (..., C) -> (...)."""
    return p.amax(-1) - p.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1)
