"""Two-sided log-sum-exp losses over all pairs of a batch, a block of anchors at a time.

For unit vectors x, s = x x^T, and an anchor i with positives P and negatives N::

    L_i = log(1 + sum_{j in N} exp f(s_ij) * sum_{j in P} exp f(1 - s_ij)) = softplus(z_i)

the gradient of row i needs nothing but row i: dL_i/ds_ij = sigmoid(z_i) * softmax_j(f) * (+-f'), the softmax taken over
the negatives or the positives.  It is therefore computed while the rows stream by, and an (N, N) matrix never exists.
Memory: O(N d + N block).  Time: three matrix products, as many as the plain formula, and few passes over a block that
stays in cache.  Masks enter by arithmetic, since `torch.where` and `masked_fill` cost ten times as much on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Number = float | Tensor
Exponent = Callable[[Tensor, Number, Number], tuple[Tensor, Number]]
"""``exponent(t, m, gamma) -> f(t), f'(t)`` with t the distance of a similarity from its optimum (s for negatives,
1 - s for positives)."""

FAR = 1e30
"""Subtracted from the exponent of what does not take part: its exp is 0, and no inf - inf can arise."""


def floor(dtype: torch.dtype) -> float:
    """Where exponents are cut, relative to the largest: even 100,000 terms below it vanish in the rounding.

    (Further down exp is up to twenty times slower, and denormal numbers slow down everything after it.)
    """
    return math.log(torch.finfo(dtype).eps / 100_000)


def shifted(f: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """Exponents of a row relative to the largest that takes part, and that one: (..., A, M) and (..., A, 1)."""
    f = torch.sub(f, absent, alpha=FAR)
    top = f.detach().amax(-1, keepdim=True)
    return (f - top).clamp(min=floor(f.dtype)), top


def log_sum_exp(f: Tensor, absent: Tensor) -> Tensor:
    """Log-sum-exp of each row over those not absent (1: absent, 0: present), about -1e30 where all are: (..., A)."""
    g, top = shifted(f, absent)
    return (g.exp().sum(-1, keepdim=True).log() + top).squeeze(-1)


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), exact in the last place for every z (torch's own cuts at z = 20)."""
    return -logsigmoid(-z)


class _OnceOnly(torch.autograd.Function):
    """A gradient times that of the loss, as something that depends on x and whose derivative is refused.

    (`once_differentiable` alone lets a second derivative through as zero where the incoming gradient is a constant.)
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(by_loss: Tensor, gradient: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return by_loss * gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        raise RuntimeError(
            "the streamed pair loss can be differentiated once only; use the plain formula for second derivatives "
            "(block_size=None and a batch within its limit)"
        )


class _Streamed(torch.autograd.Function):
    """Forward computes loss and gradient together; backward scales the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, labels: Tensor, exponent: Exponent, m: Number, gamma: Number, block: int, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(x)
        total, anchors = x.new_zeros(()), x.new_zeros(())
        for start in range(0, len(x), block):
            rows = x[start : start + block]
            same = (labels[start : start + block, None] == labels).to(x.dtype)
            own = torch.zeros(len(rows), len(x), dtype=x.dtype, device=x.device)
            own.diagonal(start).fill_(1)
            sign = 1 - 2 * same
            f, slope = exponent(torch.addcmul(same, sign, rows @ x.T), m, gamma)
            sides = []
            for absent in (same, 1 + own - same):  # of the negatives, of the positives
                g, top = shifted(f, absent)
                g = g.exp_()
                sides.append((g, g.sum(1, keepdim=True), top, absent.amin(1) == 0))
            (n, sum_n, top_n, has_n), (p, sum_p, top_p, has_p) = sides
            z = top_n + sum_n.log() + top_p + sum_p.log()
            total = total + softplus(z).sum()
            anchors = anchors + (has_n & has_p).sum()
            if with_gradient:
                gate = z.sigmoid()
                weight = n.mul_(gate / sum_n).sub_(p.mul_(gate / sum_p)).mul_(slope)
                gradient += weight.T @ rows
                gradient[start : start + block] += weight @ x
        anchors = anchors.clamp(min=1)
        return total / anchors, gradient / anchors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], inputs[0])

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, x = ctx.saved_tensors
        once: Tensor = _OnceOnly.apply(by_loss, gradient, x)  # type: ignore[no-untyped-call]
        return once, None, None, None, None, None, None


def streamed_pair_loss(
    x: Tensor, labels: Tensor, exponent: Exponent, m: Number, gamma: Number, block: int | None = None
) -> Tensor:
    """Mean of the two-sided loss over anchors that have a positive and a negative.

    Args:
        x: unit vectors, shape (N, d), float32 or float64.
        labels: shape (N,); equal labels make positives.
        exponent: f and f'.
        m: handed to `exponent`; a constant.
        gamma: handed to `exponent`; a constant.
        block: anchors at once; None: 128, fewer above 4,096 samples.

    Returns:
        Scalar. Differentiable once in x; a second derivative is refused with an error.
    """
    with_gradient = x.requires_grad and torch.is_grad_enabled()
    rows = block or max(32, min(128, 2**19 // max(1, len(x))))
    loss: Tensor = _Streamed.apply(x, labels, exponent, m, gamma, rows, with_gradient)[0]  # type: ignore[no-untyped-call]
    return loss
