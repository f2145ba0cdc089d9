"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): handwritten characters of fifty alphabets, MIT licence.

20 drawings of each of 964 characters (30 alphabets, "background") and of 659 others (20 alphabets, "evaluation").
"background-small" is the union of the two smaller background sets that the authors publish: 242 characters.

The archives are looked for in `omniglot/` of the folder named by `COMPANION_DATA`, then of the cache, then downloaded
into the cache from the authors' repository (see `lib.data.vision`); a file counts only with its MD5 sum.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from lib.data.offline import Part
from lib.data.vision import DataUnavailable, _checked, _download, cache_folder

__all__ = ["omniglot"]

SOURCE = "https://raw.githubusercontent.com/brendenlake/omniglot/057f034baf2ecb8530bc5710e5a23584d2a519cc/python/"
"""The authors' repository at one commit."""

PARTS: dict[str, list[dict[str, str]]] = {
    "background": [{"images_background.zip": "68d2efa1b9178cc56df9314c21c6e718"}],
    "background-small": [
        {
            "images_background_small1.zip": "e704a628b5459e08445c13499850abc4",
            "images_background_small2.zip": "b75a71a51d3b13f821f212756fe481fd",
        }
    ],
    "evaluation": [
        {"images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811"},
        # The same images in another zip, for mirrors that could not get the original one; not at the address.
        {"images_evaluation_repacked.zip": "6d1adc1dd73add3d4bd0d8a1c8c3d2ec"},
    ],
}
"""Part -> alternatives, each the archives that make it up with their MD5 sums; the first is the one to download."""


def _folders() -> list[Path]:
    mirror = os.environ.get("COMPANION_DATA")
    return [Path(folder) / "omniglot" for folder in (mirror, cache_folder()) if folder]


def _archives(part: str) -> list[Path]:
    """Paths of the archives of a part, each with its MD5 sum."""
    for alternative in PARTS[part]:
        found = [
            next((folder / name for folder in _folders() if (folder / name).exists()), None) for name in alternative
        ]
        if None not in found:
            sums = alternative.values()
            return [_checked(path, md5, "replace it") for path, md5 in zip(found, sums, strict=True) if path]
    target = _folders()[-1]
    try:
        return [_download(SOURCE + name, target / name, md5) for name, md5 in PARTS[part][0].items()]
    except OSError as error:
        raise DataUnavailable(
            f"omniglot: {', '.join(PARTS[part][0])} are not here and could not be fetched from {SOURCE} ({error}); "
            f"put them into {target}, or set COMPANION_DATA to a folder that holds omniglot/ with them"
        ) from error


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
        DamagedFile: the MD5 sum of an archive is wrong.
    """
    from PIL import Image

    if part not in PARTS:
        raise ValueError(f"part {part!r}: one of {', '.join(PARTS)}")
    drawings: dict[str, bytes] = {}  # alphabet/character/file -> PNG; the small sets have some in common
    for path in _archives(part):
        with zipfile.ZipFile(path) as archive:
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
