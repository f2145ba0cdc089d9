"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): handwritten characters of fifty alphabets, MIT licence.

20 drawings of each of 964 characters (30 alphabets, "background") and of 659 others (20 alphabets, "evaluation").
"background-small" is the union of the two smaller background sets that the authors publish: 242 characters.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import torch

from lib.data.offline import Part
from lib.data.sets import find_file

__all__ = ["omniglot"]

PARTS = {
    "background": ["images_background.zip"],
    "background-small": ["images_background_small1.zip", "images_background_small2.zip"],
    "evaluation": ["images_evaluation.zip"],
}
"""Part -> the archives that make it up."""


def omniglot(part: str, size: int = 28) -> Part:
    """Drawings of one part, in the order of alphabet, character and drawer.

    Args:
        part: "background", "background-small" or "evaluation".
        size: images are scaled from 105 to this many pixels a side by averaging.

    Returns:
        x of shape (N, 1, size, size) with strokes 1 on 0, labels 0 .. C-1, 20 drawings each.

    Raises:
        ValueError: unknown part.
        DataUnavailable: archives are missing and cannot be downloaded.
        DamagedFile: what was downloaded has another hash.
    """
    from PIL import Image

    if part not in PARTS:
        raise ValueError(f"part {part!r}: one of {', '.join(PARTS)}")
    drawings: dict[str, bytes] = {}  # alphabet/character/file -> PNG; the small sets have some in common
    for name in PARTS[part]:
        with zipfile.ZipFile(find_file("omniglot", name)) as archive:
            pngs = [name for name in archive.namelist() if name.endswith(".png")]
            drawings |= {name.partition("/")[2]: archive.read(name) for name in pngs}
    names = sorted(drawings)
    x = np.empty((len(names), 1, size, size), np.float32)
    for row, name in enumerate(names):
        with Image.open(io.BytesIO(drawings[name])) as image:
            x[row, 0] = 1 - np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX), np.float32) / 255
    characters = [name.rpartition("/")[0] for name in names]
    y = np.unique(characters, return_inverse=True)[1]
    return Part(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)), torch.arange(len(names)))
