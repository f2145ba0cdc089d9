"""Metrics by task: scikit-learn, torchmetrics and scipy as peers, counts by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from sklearn import metrics as peer

from lib.losses.registry import registered_losses
from lib.metrics import class_maps, classification, regression
from lib.metrics.gallery import metric_gallery
from lib.metrics.segmentation import dice_score


def labelled(classes: int, n: int = 60, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.round() if ties else logits, torch.randint(classes, (n,), generator=generator)


def numbers(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(5, 2, n)), torch.from_numpy(rng.gamma(3, 2, n))


def maps(classes: int = 2, n: int = 5, size: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    y = torch.randint(classes, (n, size, size), generator=generator)
    return torch.randn(n, classes, size, size, generator=generator), y


def hard(guess: torch.Tensor, classes: int = 2) -> torch.Tensor:
    return torch.nn.functional.one_hot(guess, classes).movedim(-1, 1).double()


def test_parity_regression() -> None:
    output, y = numbers()
    pairs = {
        regression.rmse: peer.root_mean_squared_error(y, output),
        regression.mean_absolute_error: peer.mean_absolute_error(y, output),
        regression.mape: peer.mean_absolute_percentage_error(y, output),
        regression.r_squared: peer.r2_score(y, output),
        regression.pinball: peer.mean_pinball_loss(y, output, alpha=0.9),
    }
    for function, expected in pairs.items():
        assert function(output, y).item() == pytest.approx(expected), function.__name__


def test_value_by_hand_smape() -> None:
    assert regression.smape(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 3.0])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("classes", [2, 4])
def test_parity_decisions(classes: int) -> None:
    logits, y = labelled(classes)
    guess = logits.argmax(-1)
    pairs = {
        classification.accuracy: peer.accuracy_score(y, guess),
        classification.balanced_accuracy: peer.balanced_accuracy_score(y, guess),
        classification.macro_precision: peer.precision_score(y, guess, average="macro"),
        classification.macro_f1: peer.f1_score(y, guess, average="macro"),
    }
    for function, expected in pairs.items():
        assert function(logits, y).item() == pytest.approx(expected), function.__name__


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_parity_rankings(classes: int, ties: bool) -> None:
    logits, y = labelled(classes, ties=ties)
    scores = logits.softmax(-1).numpy()
    truth = np.eye(classes)[y]
    columns = slice(1, None) if classes == 2 else slice(None)
    roc = peer.roc_auc_score(truth[:, columns], scores[:, columns], average="macro")
    pr = peer.average_precision_score(truth[:, columns], scores[:, columns], average="macro")
    assert classification.roc_auc(logits, y).item() == pytest.approx(roc)
    assert classification.pr_auc(logits, y).item() == pytest.approx(pr)


def test_value_by_hand_rankings() -> None:
    """Scores .9 .8 .7 .1 with positives first and third: 3 of 4 pairs in order; AP = (1 + 2/3) / 2."""
    p = torch.tensor([0.9, 0.8, 0.7, 0.1], dtype=torch.float64)
    logits, y = torch.stack([1 - p, p], 1).log(), torch.tensor([1, 0, 1, 0])
    assert classification.roc_auc(logits, y).item() == pytest.approx(3 / 4)
    assert classification.pr_auc(logits, y).item() == pytest.approx(5 / 6)


def test_degenerate_classes_without_samples() -> None:
    logits, y = labelled(4)
    y = y.clamp(max=2)  # nobody is in class 3
    kept = torch.tensor([0, 1, 2])
    recalls = [((logits.argmax(-1) == k) & (y == k)).sum() / (y == k).sum() for k in kept]
    assert classification.balanced_accuracy(logits, y).item() == pytest.approx(torch.stack(recalls).mean().item())
    assert classification.roc_auc(logits, y).isfinite()
    assert classification.roc_auc(logits, torch.zeros_like(y)).isnan()
    with pytest.raises(ValueError, match="need logits"):
        classification.accuracy(logits, y[:-1])


def test_value_by_hand_masks() -> None:
    """TP = 3, FP = 1, FN = 2, TN = 3: Dice 2/3, IoU 1/2, mean IoU (1/2 + 3/6) / 2, and Dice = 2 IoU / (1 + IoU)."""
    y = torch.tensor([[[1, 1, 1, 1, 1, 0, 0, 0, 0]]])
    logits = hard(torch.tensor([[[1, 1, 1, 0, 0, 1, 0, 0, 0]]]))
    dice, iou = class_maps.foreground_dice(logits, y).item(), class_maps.foreground_iou(logits, y).item()
    assert dice == pytest.approx(2 / 3)
    assert iou == pytest.approx(1 / 2)
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert class_maps.mean_iou(logits, y).item() == pytest.approx((1 / 2 + 3 / 6) / 2)
    assert class_maps.pixel_accuracy(logits, y).item() == pytest.approx(6 / 9)


def test_parity_masks() -> None:
    logits, y = maps(3)
    guess = logits.argmax(1).flatten()
    assert class_maps.mean_iou(logits, y).item() == pytest.approx(
        peer.jaccard_score(y.flatten(), guess, average="macro")
    )
    f1 = peer.f1_score(y.flatten(), guess, average=None)[1:].mean()
    assert class_maps.foreground_dice(logits, y).item() == pytest.approx(f1)
    logits, y = maps(2)
    one = dice_score(logits[:1].argmax(1) == 1, y[:1] == 1)
    assert class_maps.foreground_dice(logits[:1], y[:1]).item() == pytest.approx(one.item())


@pytest.mark.parametrize("tolerance", [0, 1, 2])
def test_parity_boundary_f1_with_scipy(tolerance: int) -> None:
    y, guess = torch.zeros(2, 3, 12, 12, dtype=torch.long)
    y[:, 2:8, 3:9], guess[:, 3:9, 3:10], guess[2, 0, :] = 1, 1, 1
    square = np.ones((3, 3))
    edges = [[m & ~binary_erosion(m, square) for m in part.numpy() == 1] for part in (guess, y)]
    wide = [[binary_dilation(m, square, iterations=tolerance) if tolerance else m for m in part] for part in edges]
    (a, b), (wide_a, wide_b) = np.array(edges), np.array(wide)
    precision, recall = (a & wide_b).sum() / a.sum(), (b & wide_a).sum() / b.sum()
    found = class_maps.boundary_f1(hard(guess), y, tolerance).item()
    assert found == pytest.approx(2 * precision * recall / (precision + recall))


def test_degenerate_masks() -> None:
    empty, full = torch.zeros(2, 4, 4, dtype=torch.long), torch.ones(2, 4, 4, dtype=torch.long)
    assert class_maps.boundary_f1(hard(empty), empty) == 1
    assert class_maps.boundary_f1(hard(empty), full) == 0
    assert class_maps.foreground_iou(hard(empty), full) == 0
    assert class_maps.mean_iou(hard(empty), empty) == 1


@pytest.mark.parametrize("task", ["regression", "classification", "segmentation"])
def test_invariance_gallery(task: str) -> None:
    """Every metric takes what the losses of its task take, is a scalar, and its best value is reached by the truth."""
    output, y = {"regression": numbers, "classification": lambda: labelled(3), "segmentation": maps}[task]()
    right = y if task == "regression" else (50 * torch.nn.functional.one_hot(y).double().movedim(-1, 1))
    for name, metric in metric_gallery(task).items():
        value = metric.function(output, y)
        assert value.shape == (), name
        assert metric.better(metric.function(right, y).item()) > metric.better(value.item()), name
        assert metric.better(metric.function(right, y).item()) == pytest.approx(float(metric.higher), abs=1e-9), name
    assert registered_losses(task)
    with pytest.raises(ValueError, match="task"):
        metric_gallery("ranking")
