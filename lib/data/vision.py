"""Image sets in MNIST's format, as they are published: nothing is unpacked on disk, and nothing is ever unpickled."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lib._torchvision import torchvision
from lib.data.offline import Part, Split, digits, stratified
from lib.data.sets import DamagedFile, find_file

__all__ = ["image_split", "vision_dataset"]

SETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
"""Name -> class of `torchvision.datasets`; another set in this format is one more line here and in the sources."""
FILES = {"train": "train", "test": "t10k"}


def vision_dataset(name: str, split: str = "train", download: bool = True) -> Part:
    """An image set with its official split.

    Args:
        name: "mnist" or "fashion-mnist".
        split: "train" or "test".
        download: whether files that are not on this machine may be fetched.

    Returns:
        x float32 in [0, 1], shape (N, 1, 28, 28); y int64.

    Raises:
        ValueError: unknown name or split.
        DataUnavailable: files are missing and cannot be, or may not be, downloaded.
        DamagedFile: what was downloaded has another hash.
    """
    if name not in SETS or split not in FILES:
        raise ValueError(f"no {split!r} of {name!r}: names {', '.join(SETS)}; splits {', '.join(FILES)}")
    images, labels = (
        _read(find_file(name, f"{FILES[split]}-{kind}-ubyte.gz", download)) for kind in ("images-idx3", "labels-idx1")
    )
    x = torch.from_numpy(images).unsqueeze(1).float() / 255
    return Part(x, torch.from_numpy(labels).long(), torch.arange(len(x)))


def image_split(name: str, seed: int = 0, sizes: Sequence[float] = (0.6, 0.4), download: bool = True) -> Split:
    """Digits or a set of `vision_dataset` in the same form, so that a chapter changes its data by one parameter.

    Args:
        name: "digits" (see `lib.data.offline.digits`), "mnist" or "fashion-mnist".
        seed: of the split; a downloaded set keeps its official test part, of which a random subset is drawn.
        sizes: (train, test) or (train, val, test), counts or fractions: for digits of the whole, for a downloaded
            set of its official training part (train and val) and of its official test part (test).
        download: whether files that are not on this machine may be fetched.

    Returns:
        Parts with x of shape (N, D), standardised by the training part: digits pixel by pixel, the others by one mean
        and one deviation over all pixels.

    Raises:
        ValueError: as `digits` and `vision_dataset`.
        DataUnavailable: as `vision_dataset`.
        DamagedFile: as `vision_dataset`.
    """
    if name == "digits":
        return digits(seed, sizes)
    if len(sizes) not in (2, 3):
        raise ValueError(f"sizes: (train, test) or (train, val, test), got {len(sizes)}")
    pool, test = vision_dataset(name, "train", download), vision_dataset(name, "test", download)
    rows = [torch.from_numpy(part) for part in stratified(pool.y, sizes[:-1], seed)]
    rows.insert(1, rows[1] if len(rows) > 1 else torch.empty(0, dtype=torch.int64))
    parts = [pool[rows[0]], pool[rows[1]], test[torch.from_numpy(stratified(test.y, sizes[-1:], seed)[0])]]
    deviation, mean = torch.std_mean(parts[0].x)
    train, val, test = (Part(((part.x - mean) / deviation).flatten(1), part.y, part.index) for part in parts)
    return Split(train, val, test, classes=len(getattr(torchvision().datasets, SETS[name]).classes))


@lru_cache(maxsize=4)
def _read(path: Path) -> NDArray[np.uint8]:
    """An array in IDX format: two zero bytes, type (8: uint8), number of dimensions, sizes in 4 bytes each, values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise DamagedFile(f"{path}: not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy()
