"""What a scene of `lib.data.scenes` consists of: the vocabularies and the factors from which it is painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from lib.data._shapes import SHAPES

__all__ = ["BACKGROUNDS", "COLOURS", "PALETTE", "SHAPES", "SIZES", "TEXTURES", "Factors"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
TEXTURES = ("plain", "striped", "dotted", "checked", "ringed", "shaded")
BACKGROUNDS = ("plain", "striped", "dotted", "checked", "shaded", "cloudy")
SIZES = ("small", "medium", "large")

PALETTE = torch.tensor(
    [
        [0.87, 0.13, 0.13],
        [0.12, 0.62, 0.20],
        [0.15, 0.30, 0.90],
        [0.97, 0.88, 0.12],
        [0.56, 0.16, 0.72],
        [0.98, 0.53, 0.06],
        [0.15, 0.82, 0.88],
        [0.99, 0.55, 0.76],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The factors of N scenes with up to K objects each; lengths in pixels, origin at the top left corner, y down.

    Rows can be picked by ``factors[index]``. Entries of absent objects are meaningless, other than `present`.

    Attributes:
        pixels: height and width of the images.
        class_names: names of the classes that `label` counts.
        present: the object exists, (N, K) bool; present objects come first.
        label: position in `class_names`, (N, K) int64.
        shape: position in `SHAPES`, (N, K) int64.
        colour: position in `COLOURS`, (N, K) int64.
        texture: position in `TEXTURES`, (N, K) int64.
        size: position in `SIZES`, (N, K) int64; the word for `side`, which is what is drawn.
        side: longer side of the upright shape, (N, K).
        aspect: width over height, (N, K); the area stays.
        angle: clockwise turn in radians, (N, K).
        period: of the texture, (N, K).
        position: (x, y) of the middle of the shape's upright box, (N, K, 2); pixel (row r, column c) covers
            [c, c+1] x [r, r+1], its centre is (c + 0.5, r + 0.5).
        velocity: pixels per frame, (N, K, 2); zero in single images.
        depth: (N, K), larger is farther; a nearer object hides a farther one.
        tint: departure of the colour from the palette, (N, K, 3).
        background: position in `BACKGROUNDS`, (N,) int64.
        ground: the two tones of the background, (N, 2, 3) RGB.
        shift: of the background's pattern, (N, 2).
    """

    pixels: int
    class_names: tuple[str, ...]
    present: Tensor
    label: Tensor
    shape: Tensor
    colour: Tensor
    texture: Tensor
    size: Tensor
    side: Tensor
    aspect: Tensor
    angle: Tensor
    period: Tensor
    position: Tensor
    velocity: Tensor
    depth: Tensor
    tint: Tensor
    background: Tensor
    ground: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Self:
        return self._each(lambda value: value[index])

    def to(self, device: torch.device | str) -> Self:
        """The same scenes on another device."""
        return self._each(lambda value: value.to(device))

    def _each(self, function: Any) -> Self:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return replace(self, **{name: function(value) for name, value in values if isinstance(value, Tensor)})


def half_extent(side: Tensor, aspect: Tensor, angle: Tensor) -> Tensor:
    """Half width and half height of the upright rectangle around a turned object, shape (..., 2)."""
    half_u, half_v = side / 2 * aspect.sqrt(), side / 2 / aspect.sqrt()
    c, s = angle.cos().abs(), angle.sin().abs()
    return torch.stack([half_u * c + half_v * s, half_u * s + half_v * c], -1)
