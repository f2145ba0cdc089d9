"""Triplet loss with semi-hard negatives (Schroff et al., FaceNet, CVPR 2015, arXiv 1503.03832, Eq. 1-4).

On the unit sphere, with squared distances d(a, b) = |a - b|^2 = 2 - 2 s_ab, every pair (anchor a, positive p) gets one
negative::

    L = mean over (a, p) of [d(a, p) - d(a, n(a, p)) + margin]_+
    n(a, p) = the nearest negative with d(a, n) > d(a, p)          (semi-hard while it violates the margin)

Where every negative is nearer than the positive, the farthest one is taken, so that training does not start on the
hardest examples.  The choice is a constant for the gradient.  Mined in O(N^2 log N): in one sort of each anchor's
similarities, a running maximum finds the negative below each positive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["TripletLoss", "semi_hard_negatives", "triplet_loss"]


@torch.no_grad()
def semi_hard_negatives(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """For every pair the index of the negative that completes the triplet.

    Args:
        s: similarities, shape (A, M).
        positive: boolean mask (A, M).
        negative: boolean mask (A, M).

    Returns:
        Indices, shape (A, M); meaningful where `positive` holds and the anchor has a negative.
    """
    # Ascending; among equals negatives go last, so that the negative below a positive is strictly less similar.
    order = torch.sort(negative.to(torch.uint8), dim=-1, stable=True).indices
    order = order.gather(-1, torch.sort(s.gather(-1, order), dim=-1, stable=True).indices)
    place = torch.arange(s.shape[-1], device=s.device).expand_as(order)
    below = torch.where(negative.gather(-1, order), place, -1).cummax(-1).values
    farthest = torch.where(negative.gather(-1, order), place, s.shape[-1] - 1).amin(-1, keepdim=True)
    chosen = order.gather(-1, torch.where(below >= 0, below, farthest))
    return torch.zeros_like(chosen).scatter(-1, order, chosen)


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float | Tensor = 0.2) -> Tensor:
    """Semi-hard triplet loss over all pairs of a batch.

    Args:
        embeddings: shape (N, d); normalised here.
        labels: shape (N,), compared for equality.
        margin: in squared distance, which is at most 4.

    Returns:
        Scalar, mean over the pairs (a, p) whose anchor has a negative; 0 (with gradient 0) if there are none.

    Raises:
        ValueError: shapes do not fit.
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected embeddings of shape (N, d) and labels of shape (N,), got {shapes}")
    if len(labels) == 0:
        return embeddings.sum()
    x = normalize(embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings, dim=-1)
    with torch.autocast(x.device.type, enabled=False):
        s = x @ x.T
    negative = labels[:, None] != labels
    positive = ~negative & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    s_n = s.gather(-1, semi_hard_negatives(s, positive, negative))
    pairs = (positive & negative.any(-1, keepdim=True)).to(s.dtype)
    return ((2 * s_n - 2 * s + margin).relu() * pairs).sum() / pairs.sum().clamp(min=1)


class TripletLoss(nn.Module):
    """Semi-hard triplet loss as a module; see `triplet_loss`."""

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Loss of embeddings (N, d) with labels (N,): a scalar."""
        return triplet_loss(embeddings, labels, self.margin)
