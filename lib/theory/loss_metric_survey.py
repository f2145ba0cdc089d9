"""Losses against metrics (Terven et al., arXiv 2307.02694): train with every loss, score with every metric.

The overview gives formulas by task and advice which loss goes with which metric; `loss_gallery` and
`lib.metrics.metric_gallery` are the formulas, `pairing_matrix` is the measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from lib.data.offline import Split
from lib.losses import class_weights, regression, segmentation, textbook
from lib.losses.registry import LossEntry, registered_losses
from lib.metrics.gallery import Metric
from lib.trainers.optimisers import Adam
from lib.trainers.paired import Method, train_paired

__all__ = ["loss_gallery", "pairing_matrix", "ranks_of"]

TEXTBOOK = (class_weights, regression, segmentation, textbook)
"""Modules with the overview's losses; named here so that a chapter's digest covers them."""


def loss_gallery(task: str) -> dict[str, LossEntry]:
    """Every registered loss of a task, by name; those with ``chapter`` None are textbook losses.

    Args:
        task: of `lib.losses.registry`.

    Raises:
        ValueError: an unknown task.
    """
    return {entry.name: entry for entry in registered_losses(task)}


def pairing_matrix(
    losses: Sequence[LossEntry],
    metrics: Mapping[str, Metric],
    data: Mapping[int, Split],
    network: Callable[[], nn.Module],
    *,
    lrs: Sequence[float],
    epochs: int,
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> pd.DataFrame:
    """Train a network with every loss, from the same initialisation and batches within a seed; score it on test data.

    Each loss trains once with each learning rate of Adam, and each seed keeps the rate with the lower value of that
    very loss on validation data: chosen and trained by one standard, so the choice favours no metric.

    Args:
        losses: their hyperparameters are the defaults.
        metrics: see `lib.metrics.metric_gallery`.
        data: seed -> parts, of the same shapes (and class counts) for every seed.
        network: builds an untrained network whose output fits losses and metrics.
        lrs: learning rates, the same for every loss.
        epochs: passes over the training data.
        batch_size: samples a step.
        device: see `lib.runtime.device`.

    Returns:
        Columns loss, seed, lr, metric, value; a row for every loss, seed and metric.

    Raises:
        ValueError: no loss, metric, learning rate or data.
        NonFiniteLoss: a training run broke down.
    """
    if not (losses and metrics and lrs and data):
        raise ValueError("pairing_matrix: at least one loss, metric, learning rate and seed")
    seeds, parts = list(data), list(data.values())
    counts = torch.bincount(parts[0].train.y.flatten()) if not parts[0].train.y.is_floating_point() else torch.empty(0)
    inputs = {name: torch.stack([getattr(split, name).x for split in parts]) for name in ("val", "test")}
    rows = []
    for entry in losses:
        loss = entry.bind(counts.to(torch.get_default_dtype()))
        methods = [Method(str(lr), loss, entry.defaults, lr=lr) for lr in lrs]
        trained = train_paired(
            network,
            methods,
            lambda seed: (data[seed].train.x, data[seed].train.y),
            seeds=seeds,
            optimiser=Adam(),
            epochs=epochs,
            batch_size=batch_size,
            device=device,
        )
        outputs = {name: torch.stack([trained.logits(m.name, x) for m in methods]) for name, x in inputs.items()}
        for row, (seed, split) in enumerate(data.items()):
            best = min(range(len(lrs)), key=lambda k: _own(loss, entry, outputs["val"][k, row], split.val.y))
            for name, metric in metrics.items():
                value = metric.function(outputs["test"][best, row], split.test.y).item()
                rows.append((entry.name, seed, lrs[best], name, value))
    return pd.DataFrame(rows, columns=["loss", "seed", "lr", "metric", "value"])


def ranks_of(matrix: pd.DataFrame, metrics: Mapping[str, Metric]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean of every loss by every metric over all rows of a matrix, and the rank of each loss within its column.

    Args:
        matrix: of `pairing_matrix`, or several of them one below the other.
        metrics: those of the matrix.

    Returns:
        Means and ranks, a row a loss and a column a metric, in the order given; rank 1 is the best, and ties share
        the better rank.
    """
    losses = list(dict.fromkeys(matrix["loss"]))
    means = matrix.pivot_table(index="loss", columns="metric", values="value").loc[losses, list(metrics)]
    signed = means * [metric.better(1.0) for metric in metrics.values()]
    return means, signed.rank(ascending=False, method="min").astype(int)


def _own(loss: Callable[..., Tensor], entry: LossEntry, output: Tensor, y: Tensor) -> float:
    return loss(output, y, **entry.defaults).item()
