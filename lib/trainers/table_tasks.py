"""Small tables as tasks for boosting: paired splits, scores, and the baselines to hold every method against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lib.data.offline import Part, Split
from lib.data.tables import TABLES, table
from lib.data.vision import image_split
from lib.models.mlp import MLP
from lib.trainers.boosting import BoostingLoss, Logistic, Softmax, SquaredError
from lib.trainers.optimisers import Adam
from lib.trainers.paired import Method, train_paired

__all__ = ["TableTask", "area_under_curve", "hist_gbdt", "mean_loss", "mlp", "table_error", "table_task", "z_scores"]


@dataclass(frozen=True)
class TableTask:
    """One table, split anew for each of S seeds; parts are (x (S, N, D) float32, y (S, N)).

    Attributes:
        name: of the table.
        seeds: of the splits.
        loss: squared error, logistic or softmax, by the kind of y.
        train: what is fitted.
        val: what decides when to stop, and between settings.
        test: what is reported.
    """

    name: str
    seeds: tuple[int, ...]
    loss: BoostingLoss
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def regression(self) -> bool:
        """Whether y is a number."""
        return isinstance(self.loss, SquaredError)


def table_task(name: str, seeds: Sequence[int], sizes: Sequence[int] | Sequence[float]) -> TableTask:
    """A task from a table of `lib.data.table`, or one of two more.

    Args:
        name: of the table; "parity": digits, even or odd; "fashion-mnist": clothes, 10 classes, 7x7 pixels.
        seeds: of the splits.
        sizes: (train, val, test), counts or fractions.

    Raises:
        ValueError: an unknown name, or sizes that exceed the data.
    """
    splits = [_split(name, seed, sizes) for seed in seeds]
    classes = splits[0].classes
    loss: BoostingLoss = SquaredError() if classes == 0 else Logistic() if classes == 2 else Softmax(classes)
    parts = []
    for part in ("train", "val", "test"):
        own = [getattr(split, part) for split in splits]
        parts.append((torch.stack([p.x for p in own]), torch.stack([p.y for p in own])))
    return TableTask(name, tuple(seeds), loss, *parts)


def _split(name: str, seed: int, sizes: Sequence[int] | Sequence[float]) -> Split:
    if name == "parity":
        split = table("digits", seed, sizes)
        train, val, test = (Part(p.x, p.y % 2, p.index) for p in (split.train, split.val, split.test))
        return Split(train, val, test, classes=2)
    if name == "fashion-mnist":
        split = image_split(name, seed, sizes)
        own = (split.train, split.val, split.test)
        pooled = [functional.avg_pool2d(p.x.reshape(-1, 1, 28, 28), 4).flatten(1) for p in own]
        mean, deviation = pooled[0].mean(0), pooled[0].std(0).clamp(min=1e-6)
        train, val, test = (Part((x - mean) / deviation, p.y, p.index) for x, p in zip(pooled, own, strict=True))
        return Split(train, val, test, classes=10)
    if name not in TABLES:
        raise ValueError(f"name: one of {', '.join(TABLES)}, parity, fashion-mnist; got {name!r}")
    return table(name, seed, sizes)


def mean_loss(task: TableTask, scores: Tensor, part: str = "test") -> NDArray[np.float64]:
    """Mean loss (half the squared error, or nats) of scores (..., S, N, K) on a part, shape (..., S)."""
    return task.loss.value(scores, getattr(task, part)[1]).double().mean(-1).cpu().numpy()  # type: ignore[no-any-return]


def table_error(task: TableTask, scores: Tensor, part: str = "test") -> NDArray[np.float64]:
    """Error rate, or for regression the RMSE in deviations of y, of scores (..., S, N, K); shape (..., S)."""
    y = getattr(task, part)[1]
    errors: Tensor
    if task.regression:
        errors = (scores[..., 0] - y).double().square().mean(-1).sqrt()
    elif task.loss.outputs == 1:
        errors = ((scores[..., 0] > 0) != (y > 0)).double().mean(-1)
    else:
        errors = (scores.argmax(-1) != y).double().mean(-1)
    return errors.cpu().numpy()  # type: ignore[no-any-return]


def area_under_curve(task: TableTask, scores: Tensor, part: str = "test") -> NDArray[np.float64]:
    """Area under the ROC curve of a binary task for scores (S, N, 1), shape (S,)."""
    from sklearn.metrics import roc_auc_score

    pairs = zip(getattr(task, part)[1].cpu(), scores[..., 0].cpu(), strict=True)
    return np.array([roc_auc_score(y, own) for y, own in pairs])


def hist_gbdt(
    task: TableTask, iterations: int = 100, leaves: int = 8, learning_rate: float = 0.1
) -> tuple[Tensor, NDArray[np.int64]]:
    """Histogram gradient boosted trees of scikit-learn, each seed with the number of iterations best on `val`.

    Returns:
        Scores on the test part (S, N, K), and the iterations chosen (S,), from 1.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if task.regression else HistGradientBoostingClassifier
    outputs, chosen = [], []
    for row, seed in enumerate(task.seeds):
        (x, y), (x_val, y_val), (x_test, _) = (
            (part[0][row].cpu().numpy(), part[1][row].cpu()) for part in (task.train, task.val, task.test)
        )
        model = kind(
            max_iter=iterations,
            max_leaf_nodes=leaves,
            learning_rate=learning_rate,
            early_stopping=False,
            random_state=seed,
        ).fit(x, y.numpy())
        staged = model.staged_predict if task.regression else model.staged_decision_function
        stack = [torch.from_numpy(np.asarray(scores)).reshape(len(y_val), -1) for scores in staged(x_val)]
        losses = task.loss.value(torch.stack(stack), y_val).mean(-1)
        best = int(losses.argmin())
        scores = next(scores for stage, scores in enumerate(staged(x_test)) if stage == best)
        outputs.append(torch.from_numpy(np.asarray(scores)).reshape(len(x_test), -1))
        chosen.append(best + 1)
    return torch.stack(outputs), np.array(chosen)


def mlp(
    task: TableTask,
    hidden: Sequence[int],
    epochs: int = 60,
    batch_size: int = 64,
    lr: float = 0.005,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, NDArray[np.int64]]:
    """A multilayer perceptron trained end to end by Adam, each seed with the number of epochs best on `val`.

    Returns:
        Scores on the test part (S, N, K), and the epochs chosen (S,).
    """
    place = {seed: row for row, seed in enumerate(task.seeds)}
    sizes = [task.train[0].shape[-1], *hidden, task.loss.outputs]
    trained = train_paired(
        lambda: MLP(sizes),
        [Method("mlp", lambda scores, y: task.loss.value(scores, y).mean())],
        lambda seed: (task.train[0][place[seed]], task.train[1][place[seed]]),
        seeds=task.seeds,
        optimiser=Adam(lr=lr),
        epochs=epochs,
        batch_size=min(batch_size, task.train[0].shape[1]),
        checkpoint_every=1,
        device=device,
    )
    template = MLP(sizes)
    run = torch.func.vmap(lambda own, x: torch.func.functional_call(template, own, (x,)))
    kept = trained.checkpoints["mlp"]
    with torch.no_grad():
        home = next(iter(kept[0].values())).device
        x, y, x_test = (part.to(home) for part in (*task.val, task.test[0]))
        best = torch.stack([task.loss.value(run(own, x), y).mean(-1) for own in kept]).argmin(0)
        rows = range(len(task.seeds))
        own = {key: torch.stack([kept[best[row]][key][row] for row in rows]) for key in kept[0]}
        scores: Tensor = run(own, x_test)
    return scores.cpu(), best.cpu().numpy().astype(np.int64)


def z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (methods, tasks, S) standardised within each task: by mean and deviation over all its methods and seeds.

    Raises:
        ValueError: not three-dimensional, or a task whose values are all the same.
    """
    if values.ndim != 3:
        raise ValueError(f"values: expected (methods, tasks, seeds), got {values.shape}")
    mean, deviation = values.mean((0, 2), keepdims=True), values.std((0, 2), keepdims=True)
    if (deviation == 0).any():
        raise ValueError("a task whose values are all the same cannot be standardised")
    standardised: NDArray[np.float64] = (values - mean) / deviation
    return standardised
