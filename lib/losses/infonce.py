"""InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) and NT-Xent (SimCLR, Chen et al. 2020, arXiv 2002.05709).

For queries q_i, their keys k_i, and further negatives n_m (a memory bank), all normalised, s = q . k / tau::

    L = mean_i [ -s(q_i, k_i) + log( sum_j exp s(q_i, k_j) + sum_m exp s(q_i, n_m) ) ]

NT-Xent takes both views as queries and everything but the query itself as candidates: the positive and 2B - 2 others.
Both are cross-entropies whose classes are the candidates.  With labels instead of pairs, several keys are positives of
a query: `multi_positive_info_nce`, the losses L_out and L_in of `lib.losses.supcon` between two sets.

All are exact for every batch: above 256 samples the similarities are streamed in blocks (memory linear in the batch).
Choices: float32 at least, under autocast too; a zero vector has similarity 0; NaN gives NaN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses._blockwise import FAR, Number
from lib.losses._labelled import streamed_labelled
from lib.losses._streaming import DENSE, unit, weighted_log_sum_exp
from lib.losses.supcon import supcon_anchor_loss

__all__ = ["InfoNCELoss", "NTXentLoss", "info_nce", "multi_positive_info_nce", "nt_xent"]


def nt_xent(z1: Tensor, z2: Tensor, temperature: Number = 0.5, block_size: int | None = None) -> Tensor:
    """NT-Xent of two views (SimCLR, Eq. 1), the mean over 2B anchors.

    Args:
        z1: embeddings of the first view, (B, d); normalised here.
        z2: of the second view, (B, d).
        temperature: tau > 0; a tensor of shape () gets a gradient.
        block_size: anchors at once; None: the plain formula for small batches, streamed above.

    Returns:
        Scalar; 0 for an empty batch and for one pair (which has no negatives).

    Raises:
        ValueError: shapes differ, or a temperature or block size that is not positive.
    """
    _check(z1, z2, temperature)
    with torch.autocast(z1.device.type, enabled=False):
        z = unit(torch.cat([z1, z2]))
        if len(z) == 0:
            return z.sum()
        if block_size is None and len(z) ** 2 <= DENSE:
            s = (z / temperature) @ z.T
            s.diagonal().fill_(-FAR)
            return F.cross_entropy(s, torch.arange(len(z), device=z.device).roll(len(z1)))
        share = z.new_full((len(z),), 1 / len(z))
        total = weighted_log_sum_exp(z, z, {"others": share}, scale=1 / temperature, block=block_size)
        first, second = z.chunk(2)
        return total - (first * second).sum() * 2 / len(z) / temperature


def info_nce(
    queries: Tensor,
    keys: Tensor,
    negatives: Tensor | None = None,
    temperature: Number = 0.07,
    symmetric: bool = False,
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE of B pairs: keys of other queries are negatives, and so are the vectors of a memory bank.

    Args:
        queries: (B, d); normalised here.
        keys: (B, d); keys[i] is the positive of queries[i].
        negatives: further candidates of every query, (K, d).
        temperature: tau > 0; a tensor of shape () gets a gradient.
        symmetric: mean of both directions, keys as queries too (the bank then serves both).
        block_size: as in `nt_xent`.

    Returns:
        Scalar, the mean over queries; 0 for an empty batch.

    Raises:
        ValueError: shapes do not fit, or a temperature or block size that is not positive.
    """
    _check(queries, keys, temperature)
    if negatives is not None and negatives.shape[1:] != queries.shape[1:]:
        raise ValueError(f"expected negatives (K, {queries.shape[1]}), got {tuple(negatives.shape)}")
    with torch.autocast(queries.device.type, enabled=False):
        q, k = unit(queries), unit(keys)
        if len(q) == 0:
            return q.sum() + k.sum()
        bank = None if negatives is None else unit(negatives)
        if block_size is None and len(q) * (len(q) + (0 if bank is None else len(bank))) <= DENSE:
            return _dense_info_nce(q, k, bank, temperature, symmetric)
        scale, share = 1 / temperature, q.new_full((len(q),), 1 / len(q))
        matched = (q * k).sum() / len(q) * scale
        if bank is None and symmetric:  # both directions from one matrix
            half = share / 2
            return weighted_log_sum_exp(q, k, {"all": half}, scale=scale, columns=half, block=block_size) - matched
        total = weighted_log_sum_exp(q, _with(k, bank), {"all": share}, scale=scale, block=block_size)
        if symmetric:
            other = weighted_log_sum_exp(k, _with(q, bank), {"all": share}, scale=scale, block=block_size)
            total = (total + other) / 2
        return total - matched


def _with(keys: Tensor, bank: Tensor | None) -> Tensor:
    return keys if bank is None else torch.cat([keys, bank])


def _dense_info_nce(q: Tensor, k: Tensor, bank: Tensor | None, temperature: Number, symmetric: bool) -> Tensor:
    """The plain formula, for unit vectors."""
    place = torch.arange(len(q), device=q.device)
    q = q / temperature
    s = q @ _with(k, bank).T
    loss = F.cross_entropy(s, place)
    if not symmetric:
        return loss
    other = s[:, : len(k)].T if bank is None else torch.cat([s[:, : len(k)].T, k @ (bank / temperature).T], 1)
    return (loss + F.cross_entropy(other, place)) / 2


def multi_positive_info_nce(
    queries: Tensor,
    keys: Tensor,
    query_labels: Tensor,
    key_labels: Tensor,
    temperature: Number = 0.07,
    mode: str = "out",
    block_size: int | None = None,
) -> Tensor:
    """InfoNCE where every key with the query's label is a positive::

        out:  -1/|P(i)| sum_{p in P(i)} s_ip + log sum_a exp s_ia
        in:   -log( 1/|P(i)| sum_{p in P(i)} exp s_ip ) + log sum_a exp s_ia

    Args:
        queries: (N, d); normalised here.
        keys: (M, d); a label that no query has makes a key a mere negative.
        query_labels: (N,), compared for equality.
        key_labels: (M,).
        temperature: tau > 0; a tensor of shape () gets a gradient.
        mode: "out" averages over the positives outside the logarithm, "in" inside.
        block_size: as in `nt_xent`.

    Returns:
        Scalar, the mean over queries that have a positive; 0 if there are none.

    Raises:
        ValueError: shapes do not fit, an unknown mode, or a temperature or block size that is not positive.
    """
    _check(queries, keys, temperature, paired=False)
    if query_labels.shape != queries.shape[:1] or key_labels.shape != keys.shape[:1]:
        raise ValueError(
            f"expected labels {tuple(queries.shape[:1])} and {tuple(keys.shape[:1])}, "
            f"got {tuple(query_labels.shape)} and {tuple(key_labels.shape)}"
        )
    if mode not in ("out", "in"):
        raise ValueError(f"mode: 'out' or 'in', got {mode!r}")
    with torch.autocast(queries.device.type, enabled=False):
        q, k = unit(queries), unit(keys)
        if not len(q) or not len(k):
            return q.sum() + k.sum()
        scale = 1 / temperature
        if block_size is not None or len(q) * len(k) > DENSE:
            return streamed_labelled(q, k, query_labels, key_labels, scale, mode, own=False, block=block_size)
        positive = (query_labels[:, None] == key_labels).to(q.dtype)
        loss = supcon_anchor_loss((q * scale) @ k.T, positive, torch.ones_like(positive), mode)
        return loss.sum() / positive.amax(1).sum().clamp(min=1)


def _check(first: Tensor, second: Tensor, temperature: Number, paired: bool = True) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[paired ^ 1 :] != second.shape[paired ^ 1 :]:
        raise ValueError(f"expected embeddings (B, d), got {tuple(first.shape)} and {tuple(second.shape)}")
    if isinstance(temperature, (int, float)) and not temperature > 0:
        raise ValueError(f"temperature: above 0, got {temperature}")


class NTXentLoss(nn.Module):
    """`nt_xent` as a module.

    Args:
        temperature: tau.
        block_size: see `nt_xent`.

    Raises:
        ValueError: a temperature that is not positive.
    """

    def __init__(self, temperature: float = 0.5, block_size: int | None = None) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature: above 0, got {temperature}")
        self.temperature, self.block_size = temperature, block_size

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Loss of two views (B, d), (B, d): a scalar."""
        return nt_xent(z1, z2, self.temperature, self.block_size)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"temperature={self.temperature}, block_size={self.block_size}"


class InfoNCELoss(nn.Module):
    """`info_nce` as a module.

    Args:
        temperature: tau.
        symmetric: see `info_nce`.
        block_size: see `nt_xent`.

    Raises:
        ValueError: a temperature that is not positive.
    """

    def __init__(self, temperature: float = 0.07, symmetric: bool = False, block_size: int | None = None) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature: above 0, got {temperature}")
        self.temperature, self.symmetric, self.block_size = temperature, symmetric, block_size

    def forward(self, queries: Tensor, keys: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Loss of B pairs (B, d), (B, d), with a bank (K, d): a scalar."""
        return info_nce(queries, keys, negatives, self.temperature, self.symmetric, self.block_size)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"temperature={self.temperature}, symmetric={self.symmetric}, block_size={self.block_size}"
