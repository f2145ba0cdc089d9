"""Textbook losses of semantic segmentation, listed for leaderboards: of pixels one by one, and of overlaps.

Outputs are logits (N, C, H, W), labels class maps (N, H, W); class 0 is the background.  Overlap losses compare soft
counts of each picture and class with p the softmax and g the one-hot map::

    TP = sum p g,   FN = sum (1 - p) g,   FP = sum p (1 - g)

and are means over pictures and over the classes from 1 on; a class without a pixel, neither labelled nor predicted,
has loss 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.losses.dice import soft_dice_loss
from lib.losses.poly_loss import poly_loss
from lib.losses.registry import Range, register_loss

__all__ = ["jaccard_loss", "lovasz_softmax_loss", "pixel_focal_loss", "softmax_dice_loss", "tversky_loss"]


def _maps(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot labels of every class, both (N, C, pixels)."""
    if output.ndim != 4 or output.shape[:1] + output.shape[2:] != y.shape:
        raise ValueError(f"need logits (N, C, H, W) and y (N, H, W), got {tuple(output.shape)}, {tuple(y.shape)}")
    classes = torch.arange(output.shape[1], device=y.device)[:, None, None]
    return output.softmax(1).flatten(2), (y.unsqueeze(1) == classes).to(output).flatten(2)


def softmax_dice_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean over pictures and foreground classes of ``1 - 2 TP / (2 TP + FN + FP)``, see `soft_dice_loss`.

    Args:
        output: logits, (N, C, H, W), C >= 2.
        y: class maps, (N, H, W).

    Returns:
        Scalar.  NaN for a NaN logit and for no pictures.

    Raises:
        ValueError: shapes do not fit.
    """
    p, g = (part[:, 1:].flatten(0, 1) for part in _maps(output, y))
    return soft_dice_loss(p, g)


def tversky_loss(
    output: Tensor, y: Tensor, alpha: float | Tensor = 0.7, beta: float | Tensor = 0.3, smooth: float = 1e-5
) -> Tensor:
    """Mean over pictures and foreground classes of ``1 - TP / (TP + alpha FN + beta FP)`` (arXiv 1706.05721).

    alpha = beta = 1/2 is Dice, alpha = beta = 1 is Jaccard.

    Args:
        output: logits, (N, C, H, W), C >= 2.
        y: class maps, (N, H, W).
        alpha: weight of missed pixels (the paper's beta), not inspected.
        beta: weight of false alarms (the paper's alpha), not inspected.
        smooth: half of it is added to numerator and denominator, as Dice does.

    Returns:
        Scalar.  NaN for a NaN logit and for no pictures.

    Raises:
        ValueError: shapes do not fit.
    """
    p, g = (part[:, 1:] for part in _maps(output, y))
    hit = (p * g).sum(-1)
    missed, false = g.sum(-1) - hit, p.sum(-1) - hit
    return (1 - (hit + smooth / 2) / (hit + alpha * missed + beta * false + smooth / 2)).mean()


def jaccard_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean over pictures and foreground classes of ``1 - TP / (TP + FN + FP)``, the soft intersection over union.

    Args:
        output: logits, (N, C, H, W), C >= 2.
        y: class maps, (N, H, W).

    Returns:
        Scalar.  NaN for a NaN logit and for no pictures.

    Raises:
        ValueError: shapes do not fit.
    """
    return tversky_loss(output, y, 1.0, 1.0)


def lovasz_softmax_loss(output: Tensor, y: Tensor) -> Tensor:
    r"""Lovász extension of ``1 - IoU`` at the errors ``|g - p|`` (Berman et al., arXiv 1705.08790, equations 8 to 11).

    Per picture, mean over the classes that it contains, the background among them, as the paper counts.  With errors
    sorted downwards, :math:`m_{(1)} \ge m_{(2)} \ge \dots`, it is
    :math:`\sum_i m_{(i)} (\Delta_i - \Delta_{i-1})`, where :math:`\Delta_i` is ``1 - IoU`` when exactly the first i
    pixels are wrong; predictions of 0 and 1 give ``1 - IoU`` itself.

    Args:
        output: logits, (N, C, H, W).
        y: class maps, (N, H, W).

    Returns:
        Scalar.  NaN for a NaN logit and for no pictures.

    Raises:
        ValueError: shapes do not fit.
    """
    p, g = _maps(output, y)
    error, order = (g - p).abs().sort(-1, descending=True)
    own = g.gather(-1, order)
    total, missed = own.sum(-1, keepdim=True), own.cumsum(-1)
    jump = 1 - (total - missed) / (total + (1 - own).cumsum(-1)).clamp(min=1)
    jump = torch.cat([jump[..., :1], jump[..., 1:] - jump[..., :-1]], -1)
    there = (total[..., 0] > 0).to(output)
    return ((error * jump).sum(-1) * there).sum(1).div(there.sum(1)).mean()


def pixel_focal_loss(output: Tensor, y: Tensor, gamma: float | Tensor = 2.0) -> Tensor:
    """Focal loss of every pixel, mean over pixels (see `lib.losses.textbook.focal_loss`); gamma = 0: cross-entropy.

    Args:
        output: logits, (N, C, H, W), C >= 2.
        y: class maps, (N, H, W).
        gamma: >= 0; a tensor is not inspected.

    Returns:
        Scalar.  NaN for a NaN logit and for no pictures.

    Raises:
        ValueError: shapes do not fit, or gamma is a negative number.
    """
    return poly_loss(output.movedim(1, -1), y, 0.0, gamma)


register_loss("Cross-entropy", F.cross_entropy, task="segmentation")
register_loss(
    "Focal",
    pixel_focal_loss,
    task="segmentation",
    defaults={"gamma": 2.0},
    tunable={"gamma": Range(0.25, 5.0, log=True)},
)
register_loss("Dice", softmax_dice_loss, task="segmentation")
register_loss("Jaccard", jaccard_loss, task="segmentation")
register_loss("Lovász", lovasz_softmax_loss, task="segmentation")
register_loss(
    "Tversky",
    tversky_loss,
    task="segmentation",
    defaults={"alpha": 0.7, "beta": 0.3},
    tunable={"alpha": Range(0.3, 0.9), "beta": Range(0.1, 0.7)},
)
