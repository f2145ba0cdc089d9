"""Crops of the photographs that scikit-image ships in its wheel (nothing is downloaded); extra `photographs`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lib import runtime

__all__ = ["COLOUR", "GREY", "PHOTOGRAPHS", "TEXTURE_PHOTOGRAPHS", "photo_crops", "photograph"]

COLOUR = ("astronaut", "coffee", "chelsea", "rocket")
TEXTURE_PHOTOGRAPHS = ("brick", "grass", "gravel")
GREY = (*TEXTURE_PHOTOGRAPHS, "camera", "coins", "moon", "page", "text")
PHOTOGRAPHS = (*COLOUR, *GREY)
"""Names of the photographs that are files of the installed wheel."""


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Tensor:
    """A photograph, (C, H, W) float32 in [0, 1]; one channel for grey ones.

    Raises:
        ValueError: not one of `PHOTOGRAPHS`.
        ImportError: scikit-image is missing.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"photograph {name!r}: one of {', '.join(PHOTOGRAPHS)}")
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("photographs come with scikit-image: pip install 'paper-companions[photographs]'") from error
    runtime.note_data("photographs")
    pixels = np.asarray(getattr(data, name)(), dtype=np.float32) / 255
    found = torch.from_numpy(pixels)
    return found.movedim(-1, 0).contiguous() if found.ndim == 3 else found[None]


def photo_crops(
    n: int, seed: int = 0, pixels: int = 32, names: Sequence[str] = GREY, part: str = "train", shrink: int = 1
) -> Tensor:
    """Random square crops, evenly from the photographs named.

    The left half of each photograph is for training, the right half for testing: test and training crops never overlap.

    Args:
        n: crops; crop i is from photograph i modulo their number.
        seed: of the places, not negative; training and test places differ.
        pixels: height and width.
        names: all grey or all colour.
        part: "train" or "test".
        shrink: photographs are averaged over blocks of so many pixels a side first.

    Returns:
        (n, C, pixels, pixels) float32 in [0, 1].

    Raises:
        ValueError: unknown photograph or part, grey and colour mixed, or crops larger than half a photograph.
        ImportError: scikit-image is missing.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part: train or test, got {part!r}")
    halves = []
    for name in names:
        image = photograph(name)
        if shrink > 1:
            image = torch.nn.functional.avg_pool2d(image, shrink)
        middle = image.shape[2] // 2
        half = image[:, :, :middle] if part == "train" else image[:, :, middle:]
        if min(half.shape[1:]) < pixels:
            raise ValueError(f"{name}: half of it is {tuple(half.shape[1:])} pixels, too small for {pixels}")
        halves.append(half)
    if len({half.shape[0] for half in halves}) != 1:
        raise ValueError(f"need photographs that are all grey or all colour, got {', '.join(names)}")
    random = runtime.generator(seed, stream=41 if part == "train" else 42)
    draws = torch.rand(n, 2, generator=random, dtype=torch.float64)
    crops = []
    for i, (u, v) in enumerate(draws.tolist()):
        half = halves[i % len(halves)]
        top, left = int(u * (half.shape[1] - pixels + 1)), int(v * (half.shape[2] - pixels + 1))
        crops.append(half[:, top : top + pixels, left : left + pixels])
    return torch.stack(crops) if crops else torch.zeros(0, halves[0].shape[0], pixels, pixels)
