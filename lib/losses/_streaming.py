"""Log-sum-exps over all pairs of two sets of vectors, a block of rows at a time: the core of the contrastive losses.

With similarities s_ij = scale * x_i . y_j, and A(i) the candidates of anchor i::

    F = sum_i w_i log sum_{j in A(i)} exp s_ij  [+ sum_j v_j log sum_i exp s_ij]
    dF/ds_ij = w_i softmax_j(s_i.) [+ v_j softmax_i(s_.j)]

Given the weights w, the gradient of a row needs nothing but that row.  It is therefore made while the rows stream by:
an (N, M) matrix never exists.  Memory O((N + M) d + block M); three matrix products, as many as the plain formula.
The sums over columns (CLIP's other direction) are known only after all rows: they take one product more.

What goes with the positives, -s_ip, is linear in the products x_i . y_p, and the losses compute it from sums of
vectors; only the log-sum-exps need this module.  Statistics are float32 at least; the caller casts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lib.losses._blockwise import FAR, Number, _OnceOnly, floor

Which = Literal["all", "others", "unpaired", "matching", "same"]
"""Candidates of anchor i: all j; all but j = i; all but the two views of its sample, j = i modulo M / 2; those of its
label; these but j = i."""

DENSE = 512 * 512
"""Up to this many pairs the plain formula is used, which can be differentiated twice."""

TINY = 1e-24
"""Smallest squared length that is scaled to 1.  (`normalize` writes in place, which keeps recorded steps slow.)"""


def block_rows(columns: int, device: torch.device | None = None) -> int:
    """Anchors at once: on a CPU a block of similarities stays in the cache (measured).

    On a GPU, where a step costs its launch whatever its size, a block has up to 2^25 similarities (128 MB).
    """
    if device is not None and device.type == "cuda":
        return max(128, min(4096, 2**25 // max(1, columns)))
    return max(32, min(128, 2**21 // max(1, columns)))


def unit(z: Tensor) -> Tensor:
    """Rows scaled to length 1, in float32 at least; a zero vector stays one (it is similar to nothing)."""
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    if len(z) ** 2 <= DENSE:
        return z * z.square().sum(-1, keepdim=True).clamp(min=TINY).rsqrt()
    found: Tensor = _Unit.apply(z)[0]  # type: ignore[no-untyped-call]
    return found


class _Unit(torch.autograd.Function):
    """z / |z| and 1 / |z|, remembering these two only: half the memory of recording each operation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        inverse = torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp(min=TINY**0.5).reciprocal()
        return z * inverse, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, by_u: Tensor, by_inverse: Tensor) -> Tensor:  # type: ignore[override]
        u, inverse = ctx.saved_tensors
        # d u = (1 - u u^T) dz / |z|,  d (1 / |z|) = -u . dz / |z|^2
        along = torch.einsum("...d,...d->...", u, by_u)[..., None] + by_inverse * inverse
        by_z: Tensor = torch.addcmul(by_u, u, along, value=-1) * inverse
        return by_z


def absent(
    which: Which, start: int, stop: int, labels: tuple[Tensor, Tensor] | None, like: Tensor, offset: int = 0
) -> Tensor:
    """1 where labels keep a candidate from the anchors start .. stop - 1, else 0: (stop - start, M)."""
    if labels is None:
        raise ValueError(f"{which!r} needs labels")
    missing = (labels[0][start:stop, None] != labels[1]).to(like.dtype)
    if which == "same":
        missing.diagonal(start + offset).fill_(1)
    return missing


def dense_rows(s: Tensor, which: Which = "all", labels: tuple[Tensor, Tensor] | None = None, offset: int = 0) -> Tensor:
    """Log-sum-exp of each row of s (N, M), about -1e30 for a row without candidates: (N,)."""
    if which in ("others", "unpaired"):
        s = s.clone()
    return _remove(s, which, 0, labels, offset).logsumexp(-1)


def _remove(s: Tensor, which: Which, start: int, labels: tuple[Tensor, Tensor] | None, offset: int) -> Tensor:
    """The similarities of anchors from `start` on, far below all others where they do not take part."""
    if which == "all":
        return s
    if which in ("others", "unpaired"):  # cheaper than a mask
        half = s.shape[-1] // 2
        for shift in (0, half, -half) if which == "unpaired" else (0,):
            s.diagonal(start + offset + shift).fill_(-FAR)
        return s
    return s.sub(absent(which, start, start + len(s), labels, s, offset), alpha=FAR)


def _exponentials(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(s - top) in the place of s, its sums and top, for one block of rows."""
    top = s.amax(1, keepdim=True)
    e = s.sub_(top).clamp_(min=floor(s.dtype)).exp_()
    return e, e.sum(1, keepdim=True), top


@torch.no_grad()
def streamed_rows(
    x: Tensor,
    y: Tensor,
    scale: Number = 1.0,
    which: Which = "all",
    labels: tuple[Tensor, Tensor] | None = None,
    block: int | None = None,
) -> Tensor:
    """Log-sum-exp of each row, (N,), without a gradient; arguments as in `weighted_log_sum_exp`."""
    found = [x.new_zeros(0)]
    for start in range(0, len(x), step := block or block_rows(len(y), x.device)):
        rows = x[start : start + step] * scale
        _, total, top = _exponentials(_remove(rows @ y.T, which, start, labels, 0))
        found.append((top + total.log()).squeeze(1))
    return torch.cat(found)


@torch.no_grad()
def streamed_columns(x: Tensor, y: Tensor, scale: Number, block: int | None = None) -> Tensor:
    """Log-sum-exp of each column, (M,), over all rows, as they stream by."""
    top, total = y.new_full((len(y),), -FAR), y.new_zeros(len(y))
    for start in range(0, len(x), step := block or block_rows(len(y), x.device)):
        s = (x[start : start + step] * scale) @ y.T
        higher = torch.maximum(top, s.amax(0))
        e = s.sub_(higher).clamp_(min=floor(s.dtype)).exp_()
        total = total * (top - higher).exp() + e.sum(0)
        top = higher
    return top + total.log()


class _WeightedLogSumExp(torch.autograd.Function):
    """Forward computes value and gradients together; backward scales the gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor,
        other: Tensor | None,
        scale: Tensor,
        weights: tuple[Tensor, ...],
        which: tuple[Which, ...],
        labels: tuple[Tensor, Tensor] | None,
        columns: Tensor | None,
        offset: int,
        block: int,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        y = x if other is None else other
        by_x, by_y = torch.zeros_like(x), torch.zeros_like(y)
        value = x.new_zeros(())
        over_rows = None
        if columns is not None:
            over_rows = streamed_columns(x, y, scale, block)
            value = value + (columns * over_rows).sum()
        for start in range(0, len(x), block):
            rows = x[start : start + block] * scale
            s = rows @ y.T
            slope: Tensor | None = None
            if over_rows is not None and columns is not None and with_gradient:
                slope = (s - over_rows).clamp_(min=floor(s.dtype)).exp_().mul_(columns)
            for k, (each, w) in enumerate(zip(which, weights, strict=True)):
                last = k == len(which) - 1
                own_s = s if last else s.clone()
                e, total, top = _exponentials(_remove(own_s, each, start, labels, offset))
                own = w[start : start + block, None]
                value = value + (own * (top + total.log())).sum()
                if with_gradient:
                    e.mul_(own / total)
                    slope = e if slope is None else slope.add_(e)
            if slope is not None and with_gradient:
                by_x[start : start + block] = slope @ y
                by_y.addmm_(slope.T, rows)
        by_scale = torch.tensordot(by_x, x)
        by_x.mul_(scale)
        if other is None:
            return value, by_x.add_(by_y), by_scale
        return value, by_x, by_scale, by_y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, other, scale, *_ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], x, scale, *([] if other is None else [other]))

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        gradients, inputs = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        by_x, by_scale, *by_other = (
            _OnceOnly.apply(by_value, g, z)  # type: ignore[no-untyped-call]
            for g, z in zip(gradients, inputs, strict=True)
        )
        return by_x, by_other[0] if by_other else None, by_scale, None, None, None, None, None, None, None


def weighted_log_sum_exp(
    x: Tensor,
    y: Tensor,
    terms: Mapping[Which, Tensor],
    *,
    scale: Number = 1.0,
    labels: tuple[Tensor, Tensor] | None = None,
    columns: Tensor | None = None,
    offset: int = 0,
    block: int | None = None,
) -> Tensor:
    """F of the module's head, for one or more sets of candidates at once.

    Args:
        x: anchors, (N, d), float32 or float64.
        y: candidates, (M, d); x itself, or x followed by others, where candidates are to be "others" or "same".
        terms: which candidates -> weights w of the anchors, (N,), constants; 0 for an anchor without candidates.
        scale: of the similarities; a tensor of shape () gets a gradient.
        labels: of anchors and candidates, (N,) and (M,); needed by "same" and "matching".
        columns: v, (M,), constants: the second sum, over all rows.
        offset: place of the first anchor among the candidates, for "others" and "same".
        block: anchors at once.  None: the plain formula up to `DENSE` pairs, `block_rows` above.

    Returns:
        Scalar.  Streamed, it can be differentiated once; a second derivative is refused with an error.

    Raises:
        ValueError: block below 1, or labels missing.
    """
    if block is not None and block < 1:
        raise ValueError(f"block_size must be positive, got {block}")
    factor = torch.as_tensor(scale, dtype=x.dtype, device=x.device)
    if block is None and len(x) * len(y) <= DENSE:
        s = (x * factor) @ y.T
        sums = [torch.dot(w, dense_rows(s, which, labels, offset)) for which, w in terms.items()]
        if columns is not None:
            sums.append(torch.dot(columns, s.logsumexp(0)))
        return torch.stack(sums).sum() if len(sums) > 1 else sums[0]
    with_gradient = torch.is_grad_enabled() and any(z.requires_grad for z in (x, y, factor))
    steps = block or block_rows(len(y), x.device)
    value: Tensor = _WeightedLogSumExp.apply(  # type: ignore[no-untyped-call]
        x,
        None if y is x else y,
        factor,
        tuple(terms.values()),
        tuple(terms),
        labels,
        columns,
        offset,
        steps,
        with_gradient,
    )[0]
    return value
