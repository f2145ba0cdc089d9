"""Cell membranes under the electron microscope: the labelled part of the ISBI 2012 challenge (Arganda-Carreras et al.).

30 slices of 512 x 512 pixels from the ventral nerve cord of a fruit fly larva.  There is no address to download the
copy in use from.
"""

from __future__ import annotations

import numpy as np
import torch

from lib.data.curvilinear import Curvilinear
from lib.data.sets import find_file

__all__ = ["membranes"]

SLICES = {"train": slice(0, 18), "val": slice(18, 23), "test": slice(23, 30)}


def membranes(split: str = "train", patch: int = 32, shrink: int = 4) -> Curvilinear:
    """Patches of neighbouring slices; the parts have no slice in common.

    Args:
        split: "train" (18 slices), "val" (5) or "test" (7).
        patch: height and width of the patches, after shrinking.
        shrink: pixels are averaged in blocks of this side; a block is membrane where half of it is.

    Returns:
        Images, dark membranes turned bright, and labels, 1 on membranes.

    Raises:
        ValueError: unknown part, or patches larger than a slice.
        DataUnavailable: the file is not on this machine.
    """
    if split not in SLICES or not 0 < patch <= 512 // shrink:
        raise ValueError(f"split one of {', '.join(SLICES)}, patch in [1, {512 // shrink}]; got {split!r}, {patch}")
    with np.load(find_file("membranes", "membrane.npz"), allow_pickle=False) as archive:
        pictures, cells = (archive[key][SLICES[split]].astype(np.float32) for key in ("train_image", "train_label"))
    tiles = []
    for stack in (1 - pictures / 255, 1 - np.minimum(cells, 1)):
        side = 512 // shrink
        small = stack[:, : side * shrink, : side * shrink].reshape(-1, side, shrink, side, shrink).mean((2, 4))
        count = side // patch
        cut = small[:, : count * patch, : count * patch].reshape(-1, count, patch, count, patch)
        tiles.append(torch.from_numpy(cut.swapaxes(2, 3).reshape(-1, patch, patch).copy()))
    return Curvilinear(tiles[0][:, None], (tiles[1] >= 0.5).float())
