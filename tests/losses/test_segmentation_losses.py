"""Losses of segmentation: counts by hand, identities between overlap losses, the Lovász extension by brute force."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lib._torchvision import torchvision
from lib.losses.class_weights import weighted_cross_entropy
from lib.losses.dice import soft_dice_loss
from lib.losses.registry import LossEntry, registered_losses
from lib.losses.segmentation import (
    jaccard_loss,
    lovasz_softmax_loss,
    pixel_focal_loss,
    softmax_dice_loss,
    tversky_loss,
)
from lib.trainers import Adam, Method, train_paired

OVERLAP = (softmax_dice_loss, jaccard_loss, tversky_loss, lovasz_softmax_loss)
ENTRIES = [entry for entry in registered_losses("segmentation") if entry.chapter is None]


def sample(classes: int = 3, n: int = 4, size: int = 5, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    y = torch.randint(classes, (n, size, size), generator=generator)
    return scale * torch.randn(n, classes, size, size, generator=generator, dtype=torch.float64), y


def hard(y: torch.Tensor, classes: int, strength: float = 60.0) -> torch.Tensor:
    """Logits whose softmax is one-hot."""
    return strength * F.one_hot(y, classes).movedim(-1, 1).double()


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Six pixels: TP = 3, FP = 1, FN = 2 (and three more of true background)."""
    y = torch.tensor([[[1, 1, 1, 1, 1, 0, 0, 0, 0]]])
    guess = torch.tensor([[[1, 1, 1, 0, 0, 1, 0, 0, 0]]])
    return hard(guess, 2), y


def test_value_by_hand() -> None:
    output, y = masks()
    assert softmax_dice_loss(output, y).item() == pytest.approx(1 - 6 / 9, abs=1e-5)
    assert jaccard_loss(output, y).item() == pytest.approx(1 - 3 / 6, abs=1e-5)
    assert tversky_loss(output, y).item() == pytest.approx(1 - 3 / (3 + 0.7 * 2 + 0.3 * 1), abs=1e-5)
    # background: TP = 3, FP = 2, FN = 1, so IoU 3/6 as well
    assert lovasz_softmax_loss(output, y).item() == pytest.approx(1 - 3 / 6, abs=1e-9)


def test_limit_identities() -> None:
    """Tversky at (1/2, 1/2) is Dice and at (1, 1) Jaccard; J = 2 D / (1 + D) for a single map; focal 0 is CE."""
    output, y = sample()
    torch.testing.assert_close(tversky_loss(output, y, 0.5, 0.5), softmax_dice_loss(output, y))
    torch.testing.assert_close(tversky_loss(output, y, 1.0, 1.0), jaccard_loss(output, y))
    torch.testing.assert_close(pixel_focal_loss(output, y, 0.0), F.cross_entropy(output, y))
    one, label = sample(2, 1)
    d = softmax_dice_loss(one, label)
    torch.testing.assert_close(jaccard_loss(one, label), 2 * d / (1 + d), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(soft_dice_loss(one.softmax(1)[:, 1], label), d)


def test_limit_hard_predictions_give_one_minus_iou() -> None:
    y, guess = sample()[1], sample(3, 4, 5)[1].flip(0)
    ious = []
    for a, b in zip(guess, y, strict=True):
        own = [((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in range(3) if (b == k).any()]
        ious.append(torch.stack(own).mean())
    loss = lovasz_softmax_loss(hard(guess, 3), y)
    assert loss.item() == pytest.approx(1 - torch.stack(ious).mean().item(), abs=1e-6)


def test_parity_lovasz_extension_by_levels() -> None:
    """The extension is the integral over t of the set function at {error > t}; here summed level by level."""
    output, y = sample(2, 1, 3)
    p, g = output.softmax(1)[0, 1].flatten(), y[0].flatten() == 1

    def one_minus_iou(wrong: torch.Tensor, truth: torch.Tensor) -> float:
        guess = truth ^ wrong
        return 1 - (guess & truth).sum().item() / (guess | truth).sum().item()

    total = 0.0
    for truth, q in ((g, p), (~g, 1 - p)):
        error = (truth.double() - q).abs()
        levels = torch.cat([error.new_zeros(1), error.sort().values])
        total += sum(
            (high - low).item() * one_minus_iou(error > (low + high) / 2, truth) for low, high in pairwise(levels)
        )
    assert lovasz_softmax_loss(output, y).item() == pytest.approx(total / 2, abs=1e-9)


def test_parity_with_torchmetrics() -> None:
    torchvision()  # torchmetrics imports it
    metrics = pytest.importorskip("torchmetrics.functional.segmentation")
    guess, y = sample()[1].flip(0), sample()[1]
    options = {"num_classes": 3, "input_format": "index", "average": "macro", "include_background": False}
    expected = 1 - metrics.dice_score(guess, y, **options).mean()
    assert softmax_dice_loss(hard(guess, 3), y).item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("loss", [*OVERLAP, pixel_focal_loss], ids=lambda loss: loss.__name__)
def test_invariance(loss) -> None:  # type: ignore[no-untyped-def]
    """The order of pictures and pixels, a constant on all logits, and repeating the batch change nothing."""
    output, y = sample()
    value = loss(output, y)
    torch.testing.assert_close(loss(output.flip(0, 2, 3), y.flip(0, 1, 2)), value)
    torch.testing.assert_close(loss(output + 7, y), value)
    torch.testing.assert_close(loss(torch.cat([output] * 3), torch.cat([y] * 3)), value)


@pytest.mark.parametrize("loss", [*OVERLAP, pixel_focal_loss], ids=lambda loss: loss.__name__)
def test_gradcheck(loss) -> None:  # type: ignore[no-untyped-def]
    output, y = sample(3, 2, 3)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (output.requires_grad_(),))


@pytest.mark.parametrize("loss", [*OVERLAP, pixel_focal_loss], ids=lambda loss: loss.__name__)
def test_degenerate(loss) -> None:  # type: ignore[no-untyped-def]
    output, y = sample()
    assert loss(output * 1e4, y).isfinite()
    assert loss(torch.full_like(output, torch.nan), y).isnan()
    assert loss(output[:0], y[:0]).isnan()
    empty = torch.zeros_like(y)
    assert loss(hard(empty, 3), empty).item() == pytest.approx(0, abs=1e-5)  # nothing there, nothing predicted
    with pytest.raises(ValueError, match="need logits"):
        loss(output, y[:, :-1])


@pytest.mark.parametrize("loss", [*OVERLAP, pixel_focal_loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(loss, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    output, y = sample()
    assert loss(output.to(dtype), y).dtype == dtype


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_invariance_entries_train_as_a_stack(entry: LossEntry) -> None:
    output, y = sample(3, 8)
    x = hard(y, 3, 1.0).float() + 0.3 * output.float()
    loss = entry.bind(y.flatten().bincount().float())
    settings = [dict(entry.defaults)]
    settings += [{**entry.defaults, key: wide.at(end)} for key, wide in entry.tunable.items() for end in (0.0, 1.0)]
    methods = [Method(str(k), loss, hyper) for k, hyper in enumerate(settings)]
    options = {"seeds": [0, 1], "epochs": 15, "batch_size": 8, "optimiser": Adam(lr=0.02), "device": "cpu"}
    trained = train_paired(lambda: torch.nn.Conv2d(3, 3, 1), methods, (x, y), **options)
    for history in trained.history.values():
        assert torch.isfinite(history).all()
        assert (history[:, -1] < history[:, 0]).all()


def test_value_by_hand_class_weights() -> None:
    """Three samples of class 0, one of class 1: weights 4/6 and 2, mean 1 over the training set; CE log 2 each."""
    logits, y, counts = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), torch.tensor([3.0, 1.0])
    assert weighted_cross_entropy(logits, y, counts).item() == pytest.approx(torch.tensor(2.0).log().item())
    assert weighted_cross_entropy(logits[3:], y[3:], counts).item() == pytest.approx(2 * torch.tensor(2.0).log().item())


def test_parity_class_weights_with_torch() -> None:
    output, y = sample()
    counts = y.flatten().bincount()
    plain = F.cross_entropy(output, y, weight=(counts.sum() / (3 * counts)).double())
    torch.testing.assert_close(weighted_cross_entropy(output, y, counts), plain)  # equal on the whole training set
    torch.testing.assert_close(weighted_cross_entropy(output, y, torch.ones(3)), F.cross_entropy(output, y))
