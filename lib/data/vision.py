"""Image sets of torchvision, checked by its MD5 sums, from a mirror folder, the cache, or their download address.

Files are looked for in the folder named by `COMPANION_DATA`, then in the cache (`COMPANION_CACHE`, else the
user's cache folder), both laid out as torchvision does it (`MNIST/raw/train-images-idx3-ubyte.gz`).  They are read as
they are, compressed: nothing is unpacked that could be left half-written, and nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib._torchvision import torchvision
from lib.data.offline import Part, Split, digits, stratified

__all__ = ["DamagedFile", "DataUnavailable", "cache_folder", "image_split", "vision_dataset"]

SETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
"""Name -> class of `torchvision.datasets`; another set in MNIST's format is one more line."""
FILES = {"train": "train", "test": "t10k"}


class DataUnavailable(RuntimeError):
    """Files that are neither on this machine nor to be had; the text says which, and where to put them."""


class DamagedFile(RuntimeError):
    """A file whose MD5 sum is not the published one; it is not used, and no other file is touched."""


def cache_folder() -> Path:
    """Where downloads are kept: `COMPANION_CACHE`, else the user's cache folder."""
    import platformdirs

    named = os.environ.get("COMPANION_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("paper-companions", appauthor=False) / "data"


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
        DamagedFile: a file's MD5 sum is wrong.
    """
    if name not in SETS or split not in FILES:
        raise ValueError(f"no {split!r} of {name!r}: names {', '.join(SETS)}; splits {', '.join(FILES)}")
    images, labels = (
        _read(_find(name, f"{FILES[split]}-{kind}-ubyte.gz", download)) for kind in ("images-idx3", "labels-idx1")
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
    return Split(train, val, test, classes=len(_dataset(name).classes))


def _dataset(name: str) -> Any:
    return getattr(torchvision().datasets, SETS[name])


def _find(name: str, file: str, download: bool) -> Path:
    """Path of a file with the published MD5 sum: in the mirror, in the cache, or downloaded into the cache."""
    dataset = _dataset(name)
    expected = dict(dataset.resources)[file]
    place = Path(dataset.__name__) / "raw" / file
    mirror = os.environ.get("COMPANION_DATA")
    if mirror and (Path(mirror) / place).exists():
        return _checked(Path(mirror) / place, expected, "replace it")
    target = cache_folder() / place
    if target.exists():
        return _checked(target, expected, "delete it, and it is fetched again")
    reasons = ["downloading was not allowed"]
    if download:
        reasons = []
        for url in (address + file for address in dataset.mirrors):
            try:
                return _download(url, target, expected)
            except OSError as error:  # URLError, timeouts, and a full disk
                reasons.append(f"{url}: {error}")
    raise DataUnavailable(
        f"{name}: {file} is not here and could not be fetched ({'; '.join(reasons)}). Without a network, put the "
        f"files {', '.join(file for file, _ in dataset.resources)} into {target.parent}, or set COMPANION_DATA "
        f"to a folder that holds {place.parent.as_posix()}/ with them"
    )


def _checked(path: Path, expected: str, remedy: str) -> Path:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != expected:
        size = path.stat().st_size
        raise DamagedFile(f"{path} is damaged: MD5 {found} of {size:,} bytes, expected {expected}; {remedy}")
    return path


def _download(url: str, target: Path, expected: str) -> Path:
    """Fetch to a temporary file beside the target, check, rename: the target is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        with urllib.request.urlopen(url, timeout=30) as response, part.open("wb") as stream:
            shutil.copyfileobj(response, stream)
        _checked(part, expected, f"downloaded from {url} and not kept; try again")
        part.replace(target)
    return target


@lru_cache(maxsize=4)
def _read(path: Path) -> NDArray[np.uint8]:
    """An array in IDX format: two zero bytes, type (8: uint8), number of dimensions, sizes in 4 bytes each, values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise DamagedFile(f"{path}: not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy()
