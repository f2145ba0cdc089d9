"""Which metrics there are, by task, as `lib.losses.registry` lists the losses: name, function, and which way is better.

Every function takes what a network puts out and the labels, shaped as the losses of the task take them, and returns a
scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lib.metrics import class_maps, classification, regression
from lib.metrics.calibration import brier_score, ece, nll

__all__ = ["Metric", "metric_gallery"]


@dataclass(frozen=True)
class Metric:
    """A score of a trained network.

    Attributes:
        name: as shown in tables.
        function: ``function(output, y)``, a scalar.
        higher: whether higher is better.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    higher: bool

    def better(self, value: float) -> float:
        """The value with the sign that makes higher better, for ranking."""
        return value if self.higher else -value


_GALLERY: dict[str, tuple[Metric, ...]] = {
    "regression": (
        Metric("RMSE", regression.rmse, False),
        Metric("MAE", regression.mean_absolute_error, False),
        Metric("MAPE", regression.mape, False),
        Metric("SMAPE", regression.smape, False),
        Metric("R²", regression.r_squared, True),
        Metric("pinball 0.9", regression.pinball, False),
    ),
    "classification": (
        Metric("accuracy", classification.accuracy, True),
        Metric("balanced accuracy", classification.balanced_accuracy, True),
        Metric("precision", classification.macro_precision, True),
        Metric("F1", classification.macro_f1, True),
        Metric("ROC AUC", classification.roc_auc, True),
        Metric("PR AUC", classification.pr_auc, True),
        Metric("log-loss", nll, False),
        Metric("Brier score", brier_score, False),
        Metric("ECE", ece, False),
    ),
    "segmentation": (
        Metric("pixel accuracy", class_maps.pixel_accuracy, True),
        Metric("mIoU", class_maps.mean_iou, True),
        Metric("IoU", class_maps.foreground_iou, True),
        Metric("Dice", class_maps.foreground_dice, True),
        Metric("boundary F1", class_maps.boundary_f1, True),
    ),
}


def metric_gallery(task: str) -> dict[str, Metric]:
    """The metrics of a task by name; recall averaged over classes is balanced accuracy and has no second entry.

    Args:
        task: "regression" (MAPE and SMAPE are meant for targets away from 0), "classification" or "segmentation".

    Raises:
        ValueError: another task.
    """
    if task not in _GALLERY:
        raise ValueError(f"task: one of {', '.join(_GALLERY)}, got {task!r}")
    return {metric.name: metric for metric in _GALLERY[task]}
