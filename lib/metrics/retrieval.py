"""Retrieval with embeddings: Recall@k and MAP@R, a block of queries at a time.

A query's gallery is ranked by cosine similarity.  With R relevant items in the gallery (same label, the query itself
left out)::

    Recall@k = share of queries with a relevant item among the first k
    MAP@R    = mean over queries of (1/R) sum_{i=1..R} P(i) rel(i),   P(i) = share of relevant items among the first i

MAP@R is 1 only if the R relevant items come first (Musgrave et al., ECCV 2020, arXiv 2003.08505).  Queries without a
relevant item have no answer and are left out.  The order of items with exactly equal similarity is unspecified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["RetrievalScores", "map_at_r", "mean_similarities", "recall_at_k", "retrieval_scores"]


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of a set of queries.

    Attributes:
        recall: k -> Recall@k in [0, 1].
        map_at_r: in [0, 1].
        queries: number of queries that have a relevant item.
    """

    recall: dict[int, float]
    map_at_r: float
    queries: int


@torch.no_grad()
def retrieval_scores(
    embeddings: Tensor,
    labels: Tensor,
    ks: Sequence[int] = (1,),
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    with_map: bool = True,
    block_size: int = 1024,
) -> RetrievalScores:
    """Rank the gallery for every query and score the ranking.

    Args:
        embeddings: queries, shape (Q, d); normalised here.
        labels: of the queries, shape (Q,).
        ks: cut-offs of Recall@k, each at least 1.
        gallery: shape (G, d); None: the queries themselves, each without itself.
        gallery_labels: shape (G,), with `gallery`.
        with_map: also compute MAP@R (else NaN); needs the ranking down to the largest R.
        block_size: queries at a time; memory O(block_size * G).

    Raises:
        ValueError: shapes do not fit, a k below 1, similarities that are not finite, or no query with a relevant item.
    """
    themselves = gallery is None
    items, item_labels = (embeddings, labels) if gallery is None else (gallery, gallery_labels)
    for x, y in ((embeddings, labels), (items, item_labels)):
        if y is None or x.ndim != 2 or y.shape != x.shape[:1]:
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"expected embeddings (N, d) and labels (N,), got {tuple(x.shape)} and {shape}")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks: at least one cut-off, each at least 1; got {list(ks)}")
    assert item_labels is not None
    queries, items = (normalize(x if x.dtype == torch.float64 else x.float(), dim=-1) for x in (embeddings, items))
    found = dict.fromkeys(ks, 0)
    precision, answered = 0.0, 0
    for start in range(0, len(queries), block_size):
        s = queries[start : start + block_size] @ items.T
        if not s.isfinite().all():
            raise ValueError("embeddings are not finite")
        relevant = labels[start : start + block_size, None] == item_labels
        if themselves:
            s.diagonal(start).fill_(-torch.inf)
            relevant.diagonal(start).fill_(False)
        count = relevant.sum(1)
        largest = int(count.max())
        depth = min(max(*ks, largest if with_map else 1), s.shape[1])
        hits = relevant.gather(1, s.topk(depth, dim=1).indices)[count > 0]
        count = count[count > 0]
        answered += len(count)
        for k in ks:
            found[k] += int(hits[:, :k].any(1).sum())
        if with_map and largest:
            ranks = torch.arange(1, depth + 1, device=s.device)
            share = hits.cumsum(1) / ranks * (hits & (ranks <= count[:, None]))
            precision += float((share.double().sum(1) / count).sum())
    if answered == 0:
        raise ValueError("no query has a relevant item in the gallery")
    recall = {k: number / answered for k, number in found.items()}
    return RetrievalScores(recall, precision / answered if with_map else float("nan"), answered)


def recall_at_k(embeddings: Tensor, labels: Tensor, k: int = 1, block_size: int = 1024) -> float:
    """Recall@k of a set that is its own gallery (see `retrieval_scores`)."""
    return retrieval_scores(embeddings, labels, (k,), with_map=False, block_size=block_size).recall[k]


def map_at_r(embeddings: Tensor, labels: Tensor, block_size: int = 1024) -> float:
    """MAP@R of a set that is its own gallery (see `retrieval_scores`)."""
    return retrieval_scores(embeddings, labels, block_size=block_size).map_at_r


@torch.no_grad()
def mean_similarities(embeddings: Tensor, labels: Tensor) -> Tensor:
    """For every sample the mean cosine similarity to other classes and to the rest of its own class.

    Args:
        embeddings: shape (N, d); normalised here.
        labels: shape (N,).

    Returns:
        Shape (2, N): mean s_n, then mean s_p; NaN where a sample has none of that kind.
    """
    z = normalize(embeddings, dim=-1)
    count = (labels[:, None] == labels).sum(1)
    classes, place = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    own = z.new_zeros(len(classes), z.shape[1]).index_add(0, place, z)  # sums of similarities are products with sums
    within = (z * own[place]).sum(1)
    between = z @ z.sum(0) - within
    return torch.stack([between / (len(labels) - count), (within - (z * z).sum(1)) / (count - 1)])
