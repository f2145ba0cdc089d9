"""Contrastive losses whose positives are given by labels, for batches too large for a matrix (see `_streaming`)."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.losses._blockwise import Number
from lib.losses._streaming import Which, weighted_log_sum_exp


def positives(q: Tensor, k: Tensor, of_query: Tensor, of_key: Tensor, classes: int, own: bool) -> tuple[Tensor, Tensor]:
    """Mean product of each query with its positives, (N,), and how many it has: no pair is looked at.

    Args:
        q: (N, d).
        k: (M, d).
        of_query: classes 0 .. classes - 1 of the queries, (N,).
        of_key: of the keys, (M,).
        classes: how many there are.
        own: each query is one of the keys, and no positive of its own.
    """
    count = k.new_zeros(classes).index_add(0, of_key, k.new_ones(len(k)))[of_query] - int(own)
    sums = k.new_zeros(classes, k.shape[1]).index_add(0, of_key, k)[of_query]
    return (q * (sums - q if own else sums)).sum(1) / count.clamp(min=1), count


def streamed_labelled(
    q: Tensor,
    k: Tensor,
    query_labels: Tensor,
    key_labels: Tensor,
    scale: Number,
    mode: str,
    own: bool,
    block: int | None,
) -> Tensor:
    """Mean over anchors that have a positive of L_out or L_in (Eqs. 2 and 3 of arXiv 2004.11362).

    L_out needs no mask for its positives: the mean of s_ip is the product of q_i with the mean of their vectors.

    Args:
        q: unit vectors, (N, d).
        k: unit vectors, (M, d).
        query_labels: (N,).
        key_labels: (M,).
        scale: 1 / tau.
        mode: "out" or "in".
        own: k begins with q itself, and a vector is no candidate of its own.
        block: anchors at once.
    """
    values, where = torch.cat([query_labels, key_labels]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    of_query, of_key = where[: len(q)], where[len(q) :]
    matched, count = positives(q, k, of_query, of_key, len(values), own)
    has = (count > 0).to(q.dtype)
    weight = has / has.sum().clamp(min=1)
    every: Which = "others" if own else "all"
    if mode == "out":
        total = weighted_log_sum_exp(q, k, {every: weight}, scale=scale, block=block)
        return total - (weight * matched).sum() * scale
    positive: Which = "same" if own else "matching"
    terms: dict[Which, Tensor] = {every: weight, positive: -weight}
    total = weighted_log_sum_exp(q, k, terms, scale=scale, labels=(of_query, of_key), block=block)
    return total + (weight * count.clamp(min=1).log()).sum()
