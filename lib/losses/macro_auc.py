r"""Surrogates of Macro-AUC for multi-label learning (Wu, Li and Yin 2023, arXiv:2305.05248), and Macro-AUC itself.

For N samples with scores :math:`f_k(x_i)` and labels :math:`Y_{ik}` of K labels, :math:`S_k^+` and :math:`S_k^-` the
samples with and without label k, and a base loss :math:`\ell` of a margin:

.. math::

    L_{pa} &= \frac1K \sum_k \frac{1}{|S_k^+||S_k^-|} \sum_{i \in S_k^+} \sum_{j \in S_k^-} \ell(f_k(x_i) - f_k(x_j)) \\
    L_{u1} &= \frac1{NK} \sum_k \sum_i \ell(Y_{ik} f_k(x_i)), \qquad Y_{ik} = \pm 1 \\
    L_{u2} &= \frac1K \sum_k \Bigl[ \frac1{|S_k^+|} \sum_{i \in S_k^+} \ell(f_k(x_i))
              + \frac1{|S_k^-|} \sum_{j \in S_k^-} \ell(-f_k(x_j)) \Bigr]

A label without positives or without negatives has no AUC: `pairwise_auc_loss`, `reweighted_auc_loss` and `macro_auc`
leave it out of their mean.  (The authors' code gives it weight 1 in u2 instead.)

No pair matrix exists.  Over all pairs of a label the squared base is a formula of means and variances, the exponential
one a product of two means, hinge and AUC need one sort; the logistic base visits every pair, a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses._blockwise import FAR, _OnceOnly
from lib.losses.registry import register_loss

__all__ = ["MacroAUCLoss", "macro_auc", "pairwise_auc_loss", "reweighted_auc_loss", "univariate_auc_loss"]

BASES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda t: -F.logsigmoid(t),
    "hinge": lambda t: (1 - t).clamp(min=0),
    "squared": lambda t: (1 - t).square(),
    "exponential": lambda t: torch.exp(-t),
}
BLOCK = 2**21
"""Pairs (samples x samples x labels) at once for the logistic base: 8 MB of float32."""


def univariate_auc_loss(scores: Tensor, labels: Tensor, base: str = "logistic") -> Tensor:
    """L_u1: the mean of the base loss over samples and labels; with the logistic base, binary cross-entropy.

    Args:
        scores: f_k(x_i), shape (N, K).
        labels: 0 or 1 (or False and True), shape (N, K).
        base: "logistic" log(1 + exp(-t)), "hinge" max(0, 1 - t), "squared" (1 - t)^2 or "exponential" exp(-t).

    Returns:
        Scalar; NaN for a NaN score and for no samples.

    Raises:
        ValueError: shapes differ or are not (N, K), or an unknown base.
    """
    y = _checked(scores, labels, base)
    return BASES[base]((2 * y - 1) * scores).mean()


def reweighted_auc_loss(scores: Tensor, labels: Tensor, base: str = "logistic") -> Tensor:
    """L_u2: for each label the mean over its positives plus the mean over its negatives.

    Arguments and errors as for `univariate_auc_loss`; 0, with zero gradient, where every label is one-sided.
    """
    y = _checked(scores, labels, base)
    each = BASES[base]((2 * y - 1) * scores)
    positive, negative, valid = _sides(y)
    return _over_labels((each * positive).sum(0) + (each * negative).sum(0), valid)


def pairwise_auc_loss(scores: Tensor, labels: Tensor, base: str = "logistic", block_size: int | None = None) -> Tensor:
    """L_pa: for each label the mean over all pairs of a positive and a negative; a constant in f_k has no effect.

    Args:
        scores: as for `univariate_auc_loss`.
        labels: likewise.
        base: likewise; "squared" and "exponential" take O(N K) time and memory, "hinge" O(N log N K), "logistic"
            O(N^2 K) time and O(N K block_size) memory (and has no second derivative).
        block_size: samples compared with all others at once, for the logistic base; None: `BLOCK` / (N K), at least 1.

    Returns:
        Scalar; NaN for a NaN score; 0, with zero gradient, where every label is one-sided.

    Raises:
        ValueError: shapes differ or are not (N, K), an unknown base, or a block below 1.
    """
    y = _checked(scores, labels, base)
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    positive, negative, valid = _sides(y)
    return _over_labels(_PAIRS.get(base, partial(_logistic, block=block_size))(scores, positive, negative), valid)


def macro_auc(scores: Tensor, labels: Tensor, per_label: bool = False) -> Tensor:
    """Mean over labels of the probability that a positive scores above a negative; ties count one half.

    Args:
        scores: shape (..., N, K), for instance a stack of models.
        labels: 0 or 1, of a shape that broadcasts to it.
        per_label: the AUC of each label, (..., K), NaN for a one-sided one, instead of the mean.

    Returns:
        float64 of shape (...), NaN where every label is one-sided or a score is NaN.

    Raises:
        ValueError: fewer than two dimensions, or shapes that do not fit.
    """
    if scores.ndim < 2:
        raise ValueError(f"scores: (..., N, K), got {tuple(scores.shape)}")
    try:
        y = labels.to(torch.float64).expand(scores.shape).transpose(-1, -2)
    except RuntimeError as error:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit scores {tuple(scores.shape)}") from error
    if scores.shape[-2] == 0:
        each = torch.full_like(scores.sum(-2), torch.nan, dtype=torch.float64)
        return each if per_label else each.sum(-1)
    s, order = scores.detach().transpose(-1, -2).sort(-1)
    y = y.gather(-1, order)
    place = torch.arange(1, s.shape[-1] + 1, device=s.device).expand(s.shape)
    new = F.pad(s[..., 1:] > s[..., :-1], (1, 1), value=True)  # a run of equal scores begins here, and has just ended
    first = torch.where(new[..., :-1], place, 0).cummax(-1).values
    last = torch.where(new[..., 1:], place, s.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    rank = (first + last) / 2  # mean place among equals
    n, p = y.shape[-1], y.sum(-1)
    auc = ((rank * y).sum(-1) - p * (p + 1) / 2) / (p * (n - p))  # 0 / 0 = NaN where one-sided
    auc = torch.where(s.isnan().any(-1), torch.nan, auc)
    if per_label:
        return auc
    broken = s.flatten(-2).isnan().any(-1)
    return torch.where(broken, torch.nan, auc.nanmean(-1))


class MacroAUCLoss(nn.Module):
    """One of the three surrogates as a module.

    Args:
        kind: "pairwise", "univariate" or "reweighted".
        base: see `univariate_auc_loss`.

    Raises:
        ValueError: an unknown kind or base.

    >>> loss = MacroAUCLoss("pairwise")
    >>> round(loss(torch.tensor([[2.0], [1.0], [0.0]]), torch.tensor([[1], [1], [0]])).item(), 5)
    0.22009
    """

    def __init__(self, kind: str = "reweighted", base: str = "logistic") -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind: one of {', '.join(KINDS)}, got {kind!r}")
        if base not in BASES:
            raise ValueError(f"base: one of {', '.join(BASES)}, got {base!r}")
        self.kind, self.base = kind, base

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Loss of scores (N, K) against labels (N, K)."""
        return KINDS[self.kind](scores, labels, self.base)

    def extra_repr(self) -> str:
        """Arguments, for `print`."""
        return f"kind={self.kind!r}, base={self.base!r}"


def _checked(scores: Tensor, labels: Tensor, base: str) -> Tensor:
    """Labels in the type of the scores."""
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"need scores and labels (N, K), got {tuple(scores.shape)} and {tuple(labels.shape)}")
    if base not in BASES:
        raise ValueError(f"base: one of {', '.join(BASES)}, got {base!r}")
    return labels.to(scores.dtype)


def _sides(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of a mean over positives and over negatives, (N, K), and whether a label has both, (K,)."""
    positives, negatives = y.sum(0), (1 - y).sum(0)
    valid = ((positives > 0) & (negatives > 0)).to(y.dtype)
    return y / positives.clamp(min=1), (1 - y) / negatives.clamp(min=1), valid


def _over_labels(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum() / valid.sum().clamp(min=1)


def _squared(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """E (1 - a + b)^2 = (1 - E a + E b)^2 + Var a + Var b, since a and b of a random pair are independent."""
    a, b = (positive * s).sum(0), (negative * s).sum(0)
    spread = (positive * (s - a).square()).sum(0) + (negative * (s - b).square()).sum(0)
    return (1 - a + b).square() + spread


def _exponential(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """E exp(b - a) = E exp(b) E exp(-a), in logarithms."""

    def log_mean(t: Tensor, weight: Tensor) -> Tensor:  # -1e30, not -inf, for no samples: its gradient is 0, not NaN
        absent = (weight == 0).to(t.dtype)
        return torch.logsumexp(torch.sub(t, absent, alpha=FAR) + torch.log(weight + absent), 0)

    return torch.exp(log_mean(s, negative) + log_mean(-s, positive))


def _hinge(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """For each positive, negatives above a - 1 count: their number and sum are suffix sums of the sorted scores."""
    order = s.detach().argsort(0)
    wide = s.to(torch.float64)
    ordered, weight = wide.gather(0, order), negative.to(torch.float64).gather(0, order)
    first = torch.searchsorted(ordered.detach().T.contiguous(), (wide.detach() - 1).T.contiguous(), right=True).T

    def above(terms: Tensor) -> Tensor:
        sums = terms.flip(0).cumsum(0).flip(0)
        return torch.cat([sums, torch.zeros_like(sums[:1])]).gather(0, first)

    each = (1 - wide) * above(weight) + above(weight * ordered)
    return (positive * each).sum(0).to(s.dtype)


class _LogisticPairs(torch.autograd.Function):
    """Sum over pairs of softplus(b - a) and its gradient, together, a block of samples against all others."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        s: Tensor, positive: Tensor, negative: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        total, gradient = torch.zeros_like(positive.sum(0)), torch.zeros_like(s)
        for start in range(0, len(s), block):
            rows = slice(start, start + block)
            gap = s[None] - s[rows, None]  # b_j - a_i, (block, N, K)
            loss = torch.einsum("ik,jk,ijk->k", positive[rows], negative, -F.logsigmoid(-gap))
            pull = positive[rows, None] * negative[None] * torch.sigmoid(gap)
            total = total + loss
            gradient = gradient + pull.sum(0)
            gradient[rows] -= pull.sum(1)
        return total, gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], inputs[0])

    @staticmethod
    def backward(ctx: Any, by_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, s = ctx.saved_tensors
        once: Tensor = _OnceOnly.apply(by_total, gradient, s)  # type: ignore[no-untyped-call]
        return once, None, None, None


def _logistic(s: Tensor, positive: Tensor, negative: Tensor, block: int | None = None) -> Tensor:
    rows = block or max(1, BLOCK // max(1, s.numel()))
    total: Tensor = _LogisticPairs.apply(s, positive, negative, rows)[0]  # type: ignore[no-untyped-call]
    return total


_PAIRS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "squared": _squared,
    "exponential": _exponential,
    "hinge": _hinge,
}
KINDS: dict[str, Callable[..., Tensor]] = {
    "pairwise": pairwise_auc_loss,
    "univariate": univariate_auc_loss,
    "reweighted": reweighted_auc_loss,
}

register_loss("Binary cross-entropy", univariate_auc_loss, task="multi-label", chapter="macro-auc", module=MacroAUCLoss)
register_loss("Pairwise AUC", pairwise_auc_loss, task="multi-label", chapter="macro-auc", module=MacroAUCLoss)
register_loss("Reweighted AUC", reweighted_auc_loss, task="multi-label", chapter="macro-auc", module=MacroAUCLoss)
