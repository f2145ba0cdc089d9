"""Subclasses of the head for SBCL (Hou, Zhang, Wang, Zhou 2023, arXiv:2306.15925), clustered from features in training.

Every class of n_c samples is split into m_c = max(1, floor(n_c / M)) clusters, M = max(min_c n_c, delta): head classes
fall into subclasses about as large as the rarest class, which stays whole.  The clusters are made anew every few epochs
(`subclass_targets` is what `lib.trainers.train_relabelled` calls), the loss is `lib.losses.sbcl_loss`.

Clusters are by cosine similarity and of free size, the default of the official code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

__all__ = ["dynamic_temperature", "spherical_kmeans", "subclass_assign", "subclass_counts", "subclass_targets"]


def subclass_counts(class_counts: Sequence[int], delta: int = 10) -> list[int]:
    """Number of subclasses of each class, max(1, floor(n_c / max(min n, delta))).

    Raises:
        ValueError: no class, an empty class, or delta below 1.

    >>> subclass_counts([100, 37, 9], delta=10)
    [10, 3, 1]
    """
    if not class_counts or min(class_counts) < 1 or delta < 1:
        raise ValueError(f"need samples of every class and delta of at least 1, got {list(class_counts)} and {delta}")
    size = max(min(class_counts), delta)
    return [max(1, count // size) for count in class_counts]


def spherical_kmeans(x: Tensor, clusters: int, generator: Generator, iterations: int = 20) -> Tensor:
    """Clusters by cosine similarity: Lloyd's iteration on unit vectors, from random samples.

    Args:
        x: shape (N, d), normalised here.
        clusters: at most N.
        generator: draws the samples to start from.
        iterations: at most; stops when nothing changes.

    Returns:
        Cluster of each sample, int64 (N,), in 0..clusters-1.  A centre that loses all its samples stays where it is.

    Raises:
        ValueError: fewer than one or more than N clusters.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(f"clusters: in [1, {len(x)}], got {clusters}")
    z = normalize(x.detach(), dim=-1)
    centres = z[torch.randperm(len(z), generator=generator)[:clusters].to(z.device)]
    label = torch.full((len(z),), -1, device=z.device)
    for _ in range(iterations):
        nearest = (z @ centres.T).argmax(-1)
        if torch.equal(nearest, label):
            break
        label = nearest
        sums = torch.zeros_like(centres).index_add_(0, label, z)
        centres = torch.where(sums.norm(dim=-1, keepdim=True) > 0, normalize(sums, dim=-1), centres)
    return label


def subclass_assign(features: Tensor, labels: Tensor, delta: int, generator: Generator) -> Tensor:
    """Numbers the subclasses of all classes: clusters of the features within each class.

    Args:
        features: shape (N, d).
        labels: shape (N,), every class from 0 to the largest occurs.
        delta: smallest size to aim at.
        generator: of the clustering.

    Returns:
        Subclass of each sample, int64 (N,), in 0..sum(m_c)-1, class after class.

    Raises:
        ValueError: as `subclass_counts`.
    """
    counts = labels.bincount().tolist()
    result, first = torch.empty_like(labels), 0
    for k, parts in enumerate(subclass_counts(counts, delta)):
        rows = labels == k
        own = spherical_kmeans(features[rows], parts, generator) if parts > 1 else torch.zeros_like(labels[rows])
        result[rows] = own + first
        first += parts
    return result


def dynamic_temperature(features: Tensor, labels: Tensor, delta: int = 10, tau1: float = 0.1) -> Tensor:
    """tau2 of each class: tau1 phi_c / mean phi, with ``phi_c = mean |z - mean z| / log(n_c + 10)``.

    phi is clipped to its 20th and 80th percentiles over classes; a class with a single subclass keeps tau1.

    Args:
        features: unit vectors, shape (N, d).
        labels: shape (N,), every class occurs.
        delta: as in `subclass_counts`.
        tau1: temperature of the first term.

    Returns:
        Shape (C,), without gradient.
    """
    counts = labels.bincount().tolist()
    spread = []
    for k, count in enumerate(counts):
        own = features[labels == k].detach()
        spread.append(float((own - own.mean(0)).norm(dim=-1).mean()) / np.log(count + 10))
    phi = np.clip(spread, *np.percentile(spread, (20, 80)))
    single = np.array(subclass_counts(counts, delta)) == 1
    tau = np.where(single | (phi.mean() == 0), tau1, tau1 * phi / max(phi.mean(), 1e-12))
    return torch.from_numpy(tau).to(features)


def subclass_targets(
    features: Tensor, labels: Tensor, generator: Generator, delta: int | None = 10, tau1: float = 0.1
) -> Tensor:
    """What the losses of one run need, as numbers of one type: class, subclass, tau2, and a random number in [0, 1).

    Args:
        features: of the clean samples, shape (N, d), normalised here.
        labels: shape (N,), every class from 0 to the largest occurs.
        generator: draws the random numbers, then the starts of the clusters.
        delta: as in `subclass_counts`; None: every class is its own subclass, at tau1 (warm-up, SupCon, KCL).
        tau1: temperature of the first term.

    Returns:
        Shape (N, 4), in the type of the features.
    """
    random = torch.rand(len(labels), generator=generator).to(features)
    own, tau = labels.to(features), torch.full_like(random, tau1)
    if delta is None:
        return torch.stack([own, own, tau, random], 1)
    z = normalize(features, dim=-1)
    parts = subclass_assign(z, labels, delta, generator).to(features)
    return torch.stack([own, parts, dynamic_temperature(z, labels, delta, tau1)[labels], random], 1)
