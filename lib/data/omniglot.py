"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): handwritten characters of fifty alphabets, MIT licence.

20 drawings of each of 964 characters (30 alphabets, "background") and of 659 others (20 alphabets, "evaluation").
"background-small" is the union of the two smaller background sets that the authors publish: 242 characters.

The archives are looked for in the folder `omniglot` of the one that the environment variable `COMPANION_DATA` names,
then in the cache, then downloaded to the cache; a file counts only if its checksum fits.
"""

from __future__ import annotations

import hashlib
import io
import os
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.data.offline import Part

__all__ = ["DataMissing", "omniglot"]

SOURCE = "https://raw.githubusercontent.com/brendenlake/omniglot/057f034baf2ecb8530bc5710e5a23584d2a519cc/python/"
"""The authors' repository at one commit."""


class DataMissing(RuntimeError):
    """A data set is neither here nor to be had; the text says where it was looked for."""


@dataclass(frozen=True)
class Archive:
    """A zip file, its checksum (`sha256:` or `md5:`), and whether it can be downloaded."""

    name: str
    checksum: str
    downloadable: bool = True

    def fits(self, content: bytes) -> bool:
        """Whether the checksum is that of the content."""
        algorithm, _, expected = self.checksum.partition(":")
        return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() == expected


PARTS: dict[str, list[list[Archive]]] = {
    "background": [[Archive("images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718")]],
    "background-small": [
        [
            Archive(
                "images_background_small1.zip",
                "sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
            ),
            Archive(
                "images_background_small2.zip",
                "sha256:3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
            ),
        ]
    ],
    "evaluation": [
        [Archive("images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811")],
        # The same images, packed again: for mirrors that could not get the original archive.
        [
            Archive(
                "images_evaluation_repacked.zip",
                "sha256:9d4a06435df3232e1e797949d03addc4bd9874ee5febcfbe49434c889d6f0a3e",
                downloadable=False,
            )
        ],
    ],
}
"""Part -> alternatives, each a list of archives that make it up together."""


def _folders() -> list[Path]:
    from platformdirs import user_cache_path

    named = os.environ.get("COMPANION_DATA")
    return ([Path(named) / "omniglot"] if named else []) + [user_cache_path("paper-companions") / "omniglot"]


def _stored(archive: Archive) -> bytes | None:
    for folder in _folders():
        path = folder / archive.name
        if path.is_file():
            content = path.read_bytes()
            if archive.fits(content):
                return content
            raise DataMissing(f"{path} is damaged: its checksum is not {archive.checksum}; delete it and run again")
    return None


def _downloaded(archive: Archive) -> bytes:
    try:
        with urllib.request.urlopen(SOURCE + archive.name, timeout=60) as response:
            content: bytes = response.read()
    except (urllib.error.URLError, OSError) as error:
        folders = " or ".join(map(str, _folders()))
        raise DataMissing(
            f"Omniglot: {archive.name} is not in {folders}, and {SOURCE + archive.name} cannot be reached ({error}); "
            "put the file there, or name a folder that has omniglot/ in COMPANION_DATA"
        ) from error
    if not archive.fits(content):
        raise DataMissing(f"{SOURCE + archive.name}: the checksum of what came is not {archive.checksum}")
    target = _folders()[-1] / archive.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(target)  # never half a file under the good name
    return content


def _archives(part: str) -> list[bytes]:
    for alternative in PARTS[part]:
        stored = [_stored(archive) for archive in alternative]
        if all(content is not None for content in stored):
            return [content for content in stored if content is not None]
    return [_stored(archive) or _downloaded(archive) for archive in PARTS[part][0]]


def omniglot(part: str, size: int = 28) -> Part:
    """Drawings of one part, in the order of alphabet, character and drawer.

    Args:
        part: "background", "background-small" or "evaluation".
        size: images are scaled from 105 to this many pixels a side by averaging.

    Returns:
        x of shape (N, 1, size, size) with strokes 1 on 0, labels 0 .. C-1, 20 drawings each.

    Raises:
        ValueError: unknown part.
        DataMissing: no archive and no connection, or a damaged archive.
    """
    from PIL import Image

    if part not in PARTS:
        raise ValueError(f"part {part!r}: one of {', '.join(PARTS)}")
    drawings: dict[str, bytes] = {}  # alphabet/character/file -> PNG; the small sets have some in common
    for content in _archives(part):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
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
