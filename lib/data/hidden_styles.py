"""Images with a sub-class that no label mentions: each class in two styles, as drawn and turned with thick strokes.

What a classifier keeps of the style tells how much of a class its features still distinguish: train on the C classes,
then ask a linear probe for the 2 C sub-classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import runtime
from lib.data.digit_styles import rotate
from lib.data.offline import Part, Split, digits
from lib.data.vision import image_split

__all__ = ["HiddenStyles", "hidden_styles", "restyle"]

STYLE = 6
"""Stream of a seed's generator that decides which images are restyled."""


@dataclass(frozen=True)
class HiddenStyles:
    """A split whose images have one of two styles.

    Attributes:
        split: of the classes; x of shape (N, side * side), standardised by the training part.
        style: "train", "val" and "test" -> 0 (as drawn) or 1 (restyled), int64 (N,).
    """

    split: Split
    style: Mapping[str, Tensor]

    def sub_class(self, part: str) -> Tensor:
        """``2 y + style``, in 0..2C-1, of "train", "val" or "test"; shape (N,)."""
        y: Tensor = getattr(self.split, part).y
        return 2 * y + self.style[part]


def restyle(x: Tensor, degrees: float = 15.0, thickening: float = 0.3) -> Tensor:
    """Images turned anticlockwise and with thicker strokes: the larger of each pixel and a share of its brightest
    neighbour (3 x 3).

    Args:
        x: shape (N, 1, side, side), strokes bright on 0.
        degrees: angle.
        thickening: the share, in [0, 1]; 0 leaves the strokes as they are.

    Raises:
        ValueError: images of another shape, or a share outside [0, 1].
    """
    if x.ndim != 4 or x.shape[1] != 1 or not 0 <= thickening <= 1:
        raise ValueError(f"need images (N, 1, side, side) and a share in [0, 1], got {tuple(x.shape)}, {thickening}")
    turned = rotate(x, torch.full((len(x),), degrees))
    return torch.maximum(turned, thickening * F.max_pool2d(turned, 3, stride=1, padding=1))


def hidden_styles(
    name: str = "digits",
    seed: int = 0,
    sizes: Sequence[float] = (600, 300, 897),
    degrees: float = 15.0,
    thickening: float = 0.3,
) -> HiddenStyles:
    """An image set of which a random half of the images is restyled, regardless of class and part.

    Args:
        name: see `lib.data.image_split`.
        seed: of the split and of the styles.
        sizes: (train, val, test), see `lib.data.image_split`.
        degrees: see `restyle`.
        thickening: see `restyle`.

    Raises:
        ValueError: as `image_split` and `restyle`.
        DataUnavailable: as `image_split`.
    """
    split = digits(seed, sizes, standardise=False) if name == "digits" else image_split(name, seed, sizes)
    random = runtime.generator(seed, stream=STYLE)
    made, style = {}, {}
    for key in ("train", "val", "test"):
        part: Part = getattr(split, key)
        side = round(part.x.shape[-1] ** 0.5)
        images = part.x.view(-1, 1, side, side)
        images = images - split.train.x.min()  # a set that is standardised as a whole: background back to 0
        style[key] = torch.randint(2, (len(part),), generator=random)
        x = torch.where(style[key].view(-1, 1, 1, 1) == 1, restyle(images, degrees, thickening), images)
        made[key] = Part(x.flatten(1), part.y, part.index)
    deviation, mean = torch.std_mean(made["train"].x)
    parts = [Part((part.x - mean) / deviation, part.y, part.index) for part in made.values()]
    return HiddenStyles(Split(parts[0], parts[1], parts[2], split.classes), style)
