"""Sum over all pairs of softplus(scale x_i . y_j + bias), a block of rows at a time: the core of sigmoid losses.

Every pair is a decision of its own, so value and gradient of a block need nothing else: an (N, M) matrix never exists.
The positives differ from the negatives by a linear term, softplus(-l) = softplus(l) - l, which the losses compute from
the pairs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lib.losses._blockwise import Number, _OnceOnly
from lib.losses._streaming import DENSE, block_rows

CUT = 40.0
"""Above it softplus(l) = l, exact in float64 too."""


class _SoftplusSum(torch.autograd.Function):
    """Forward computes value and gradients together; backward scales the gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, block: int, with_gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        by_x, by_y = torch.zeros_like(x), torch.zeros_like(y)
        value, by_bias = x.new_zeros(()), x.new_zeros(())
        for start in range(0, len(x), block):
            rows = x[start : start + block] * scale
            logits = rows @ y.T + bias
            value = value + softplus(logits, threshold=CUT).sum()
            if with_gradient:
                slope = logits.sigmoid_()
                by_x[start : start + block] = slope @ y
                by_y += slope.T @ rows
                by_bias = by_bias + slope.sum()
        by_scale = (by_x * x).sum()
        return value, by_x * scale, by_y, by_scale, by_bias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[:4])

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        found = [_OnceOnly.apply(by_value, g, z) for g, z in zip(saved[:4], saved[4:], strict=True)]  # type: ignore[no-untyped-call]
        return *found, None, None


def softplus_sum(x: Tensor, y: Tensor, scale: Number, bias: Number, block: int | None = None) -> Tensor:
    """sum_ij softplus(scale x_i . y_j + bias).

    Args:
        x: (N, d), float32 or float64.
        y: (M, d).
        scale: a number or a tensor of shape (), which gets a gradient.
        bias: likewise.
        block: rows at once.  None: the plain formula for small sets, streamed above.

    Returns:
        Scalar.  Streamed, it can be differentiated once; a second derivative is refused with an error.

    Raises:
        ValueError: block below 1.
    """
    if block is not None and block < 1:
        raise ValueError(f"block_size must be positive, got {block}")
    factor, shift = (torch.as_tensor(number, dtype=x.dtype, device=x.device) for number in (scale, bias))
    if block is None and len(x) * len(y) <= DENSE:
        return softplus((x * factor) @ y.T + shift, threshold=CUT).sum()
    with_gradient = torch.is_grad_enabled() and any(z.requires_grad for z in (x, y, factor, shift))
    total: Tensor = _SoftplusSum.apply(  # type: ignore[no-untyped-call]
        x, y, factor, shift, block or block_rows(len(y), x.device), with_gradient
    )[0]
    return total
