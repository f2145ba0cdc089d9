"""Contrastive losses over several processes: each holds some samples, the negatives are those of all.

Every process gathers the embeddings of all (O(N d) memory), streams the similarities of its own anchors against them,
and returns the loss of the whole batch.  Its gradient is that of the whole batch times the number of processes, with
respect to the process's own embeddings: averaged over the processes, as `DistributedDataParallel` does, it is exact.

``group`` is a `torch.distributed` process group (default: all processes).  All processes hold equally many samples.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lib.losses._blockwise import Number
from lib.losses._labelled import positives
from lib.losses._pair_decisions import softplus_sum
from lib.losses._streaming import unit, weighted_log_sum_exp

__all__ = ["gather", "gathered_clip_loss", "gathered_nt_xent", "gathered_siglip_loss", "gathered_supcon_loss"]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:  # type: ignore[override]
        ctx.group, ctx.rows = group, len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        start = dist.get_rank(ctx.group) * ctx.rows
        return total[start : start + ctx.rows], None


def gather(x: Tensor, group: Any = None) -> Tensor:
    """The rows of all processes, in the order of their ranks, (W B, d); gradients of all processes flow back.

    Args:
        x: this process's rows, (B, d), B the same everywhere.
        group: of processes.
    """
    found: Tensor = _Gather.apply(x, group)  # type: ignore[no-untyped-call]
    return found


def _whole(own_share: Tensor, group: Any) -> Tensor:
    """The sum of all processes' shares as value; the gradient of this process's share, times the processes."""
    total = own_share.detach().clone()
    dist.all_reduce(total, group=group)
    share = own_share * dist.get_world_size(group)
    return share + (total - share).detach()


def gathered_nt_xent(
    z1: Tensor, z2: Tensor, temperature: Number = 0.5, block_size: int | None = None, group: Any = None
) -> Tensor:
    """`lib.losses.nt_xent` of the views of all processes; arguments as there, (B, d) of this process."""
    first, second = unit(z1), unit(z2)
    everything = torch.cat([gather(first, group), gather(second, group)])
    count, start = len(everything), dist.get_rank(group) * len(first)
    share = first.new_full((len(first),), 1 / count)
    own = -(first * second).sum() * 2 / count / temperature
    for anchors, offset in ((first, start), (second, start + count // 2)):
        own = own + weighted_log_sum_exp(
            anchors, everything, {"others": share}, scale=1 / temperature, offset=offset, block=block_size
        )
    return _whole(own, group)


def gathered_supcon_loss(
    features: Tensor,
    labels: Tensor,
    temperature: Number = 0.07,
    base_temperature: Number = 0.07,
    block_size: int | None = None,
    group: Any = None,
) -> Tensor:
    """`lib.losses.supcon_loss` (L_out) of the samples of all processes: features (B, V, d), labels (B,)."""
    z = unit(features.flatten(0, 1))
    y = labels.repeat_interleave(features.shape[1])
    all_z = gather(z, group)
    labels_everywhere = [torch.empty_like(y) for _ in range(dist.get_world_size(group))]
    dist.all_gather(labels_everywhere, y.contiguous(), group=group)
    values, place = torch.cat(labels_everywhere).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    start = dist.get_rank(group) * len(z)
    matched, count = positives(z, all_z, place[start : start + len(z)], place, len(values), own=True)
    anchors = (torch.bincount(place)[place] > 1).sum().clamp(min=1)
    weight = (count > 0).to(z.dtype) / anchors
    total = weighted_log_sum_exp(z, all_z, {"others": weight}, scale=1 / temperature, offset=start, block=block_size)
    return _whole(total - (weight * matched).sum() / temperature, group) * (temperature / base_temperature)


def gathered_clip_loss(x: Tensor, y: Tensor, scale: Number, block_size: int | None = None, group: Any = None) -> Tensor:
    """CLIP's symmetric loss of the pairs of all processes, with inverse temperature `scale`: (B, d) of this process."""
    x, y = unit(x), unit(y)
    all_x, all_y = gather(x, group), gather(y, group)
    half = x.new_full((len(x),), 0.5 / len(all_x))
    own = -(x * y).sum() / len(all_x) * scale
    for anchors, candidates in ((x, all_y), (y, all_x)):
        own = own + weighted_log_sum_exp(anchors, candidates, {"all": half}, scale=scale, block=block_size)
    return _whole(own, group)


def gathered_siglip_loss(
    x: Tensor, y: Tensor, scale: Number, bias: Number, block_size: int | None = None, group: Any = None
) -> Tensor:
    """The sigmoid loss of the pairs of all processes (arXiv 2303.15343): (B, d) of this process."""
    x, y = unit(x), unit(y)
    all_y = gather(y, group)
    own = softplus_sum(x, all_y, scale, bias, block=block_size) - (scale * (x * y).sum(1) + bias).sum()
    return _whole(own / len(all_y), group)
