"""The pairing matrix: the same numbers as training by hand, selection by the loss's own standard."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from lib.data import table
from lib.losses.registry import register_loss, registered_losses
from lib.metrics.gallery import metric_gallery
from lib.models import MLP
from lib.theory.loss_metric_survey import loss_gallery, pairing_matrix, ranks_of
from lib.trainers import Adam, Method, train_paired

DATA = {seed: table("iris", seed, (60, 30, 60)) for seed in (0, 1)}
OPTIONS = {"epochs": 4, "batch_size": 16, "device": "cpu"}


def network() -> torch.nn.Module:
    return MLP([4, 6, 3])


def test_value_by_hand_gallery_is_the_registry() -> None:
    for task in ("classification", "regression", "segmentation"):
        assert list(loss_gallery(task).values()) == registered_losses(task)
    assert {"MSE", "MAE", "Huber", "Quantile", "Log-cosh"} <= set(loss_gallery("regression"))
    assert {"Cross-entropy", "Dice", "Tversky", "Focal", "Jaccard", "Lovász"} <= set(loss_gallery("segmentation"))


def test_parity_with_training_by_hand() -> None:
    """Both learning rates by hand, and for each seed the one with the lower validation loss."""
    gallery, metrics = loss_gallery("classification"), metric_gallery("classification")
    found = pairing_matrix([gallery["Cross-entropy"]], metrics, DATA, network, lrs=[1e-4, 0.02], **OPTIONS)
    data = {seed: (split.train.x, split.train.y) for seed, split in DATA.items()}
    methods = [Method(str(lr), F.cross_entropy, lr=lr) for lr in (1e-4, 0.02)]
    trained = train_paired(network, methods, data.__getitem__, seeds=[0, 1], optimiser=Adam(), **OPTIONS)
    for row, (seed, split) in enumerate(DATA.items()):
        own = {m.name: F.cross_entropy(trained.logits(m.name, split.val.x)[row], split.val.y).item() for m in methods}
        name = min(own, key=own.get)  # type: ignore[arg-type]
        mine = found[found.seed == seed].set_index("metric")
        assert set(mine.lr) == {float(name)}
        output = trained.logits(name, split.test.x)[row]
        for metric in metrics.values():
            assert mine.value[metric.name] == pytest.approx(metric.function(output, split.test.y).item())


def test_limit_counts_reach_the_loss() -> None:
    """Weights of equally frequent classes are 1: the weighted loss trains as the plain one does."""
    gallery, metrics = loss_gallery("classification"), {"accuracy": metric_gallery("classification")["log-loss"]}
    losses = [gallery["Cross-entropy"], gallery["Class-weighted cross-entropy"]]
    found = pairing_matrix(losses, metrics, DATA, network, lrs=[0.01], **OPTIONS)
    first, second = (part.value.to_numpy() for _, part in found.groupby("loss"))
    assert first == pytest.approx(second, rel=1e-5)


def test_value_by_hand_ranks() -> None:
    """Three losses, two seeds: a metric where more is better, one where less is, and a tie."""
    metrics = {name: metric_gallery("classification")[name] for name in ("accuracy", "log-loss")}
    rows = [("b", 0.9, 1.0), ("a", 0.7, 3.0), ("c", 0.9, 2.0)]
    cells = [
        (loss, s, m, v + 0.01 * s) for loss, *pair in rows for s in (0, 1) for m, v in zip(metrics, pair, strict=True)
    ]
    means, ranks = ranks_of(pd.DataFrame(cells, columns=["loss", "seed", "metric", "value"]), metrics)
    assert means.loc["b", "accuracy"] == pytest.approx(0.905)
    assert list(ranks.index) == ["b", "a", "c"]
    assert ranks.to_numpy().tolist() == [[1, 1], [3, 3], [1, 2]]


def test_degenerate() -> None:
    gallery = loss_gallery("classification")
    with pytest.raises(ValueError, match="at least one"):
        pairing_matrix([gallery["Focal"]], {}, DATA, network, lrs=[0.01], **OPTIONS)
    with pytest.raises(ValueError, match="task"):
        loss_gallery("ranking")
    assert register_loss("MSE", F.mse_loss, task="regression").chapter is None  # the same again is no conflict
