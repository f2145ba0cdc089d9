"""Image sets in MNIST's format: read as they are, as torchvision reads them; faults of files: see `test_sets`."""

import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import catalogue
from lib._torchvision import torchvision
from lib.data import DamagedFile, DataUnavailable, image_split, sets, vision
from lib.data.vision import vision_dataset

MIRROR = Path(os.environ.get("COMPANION_DATA") or catalogue.root().parent / "shared" / "data")
PLACE = Path("MNIST") / "raw"
needs_data = pytest.mark.skipif(not (MIRROR / PLACE).exists(), reason="no MNIST in the mirror folder")


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path, no_network):
    """No mirror, an empty cache, no network."""
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    vision._read.cache_clear()


def idx(array):
    header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def small_mnist():
    """File name -> content: 40 training and 20 test images in MNIST's format."""
    rng = np.random.default_rng(0)
    files = {}
    for prefix, n in (("train", 40), ("t10k", 20)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx((np.arange(n) % 10).astype(np.uint8))
    return files


@pytest.fixture
def published(registered):
    """The register with the hashes of a small MNIST."""
    return registered("mnist", small_mnist())


def store(folder, files):
    (folder / PLACE).mkdir(parents=True)
    for name, content in files.items():
        (folder / PLACE / name).write_bytes(content)
    return folder


def test_value_by_hand_reads_images_and_labels(published, tmp_path):
    store(tmp_path / "cache", published)
    train, test = vision_dataset("mnist"), vision_dataset("mnist", "test")
    assert (train.x.shape, test.x.shape) == ((40, 1, 28, 28), (20, 1, 28, 28))
    assert train.x.dtype == torch.float32
    assert test.y.tolist() == list(range(10)) * 2
    expected = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    torch.testing.assert_close(train.x[:, 0], torch.from_numpy(expected).float() / 255)


def test_mirror_is_looked_at_first(published, tmp_path, monkeypatch):
    store(tmp_path / "mirror", published)
    store(tmp_path / "cache", dict.fromkeys(published, b"never read"))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "mirror"))
    assert len(vision_dataset("mnist")) == 40


def test_damaged_file_in_the_mirror_is_passed_over(published, tmp_path, monkeypatch):
    name = "train-images-idx3-ubyte.gz"
    store(tmp_path / "mirror", {**published, name: published[name][:-7]})
    store(tmp_path / "cache", published)
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "mirror"))
    with pytest.warns(UserWarning, match=f"{name} is damaged"):
        assert len(vision_dataset("mnist")) == 40


@pytest.mark.parametrize("download", [True, False])
def test_missing_says_what_to_put_where(published, tmp_path, download):
    with pytest.raises(DataUnavailable) as caught:
        vision_dataset("mnist", download=download)
    text = str(caught.value)
    assert "train-images-idx3-ubyte.gz" in text
    assert str(tmp_path / "cache" / PLACE) in text
    assert ("COMPANION_DATA" in text) == download


def test_degenerate_arguments_and_content(published, tmp_path):
    with pytest.raises(ValueError, match=r"'imagenet'.*mnist, fashion-mnist"):
        vision_dataset("imagenet")
    with pytest.raises(ValueError, match="splits train, test"):
        vision_dataset("mnist", "val")
    with pytest.raises(ValueError, match="got 1"):
        image_split("mnist", sizes=(1.0,))
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"\x80\x04pickle"))
    with pytest.raises(DamagedFile, match="not an IDX file"):
        vision._read(path)


def test_image_split_of_a_downloaded_set(published, tmp_path):
    store(tmp_path / "cache", published)
    split = image_split("mnist", seed=3, sizes=(20, 10, 10))
    assert (len(split.train), len(split.val), len(split.test)) == (20, 10, 10)
    assert split.train.x.shape == (20, 784)
    assert split.train.y.bincount().tolist() == [2] * 10
    assert split.test.y.bincount().tolist() == [1] * 10
    assert not set(split.train.index.tolist()) & set(split.val.index.tolist())
    assert split.train.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert split.train.x.std().item() == pytest.approx(1, abs=1e-5)
    raw = vision_dataset("mnist").x.flatten(1)
    seen = raw[split.train.index]
    torch.testing.assert_close(split.val.x, (raw[split.val.index] - seen.mean()) / seen.std(), rtol=1e-4, atol=1e-4)
    two = image_split("mnist", seed=3, sizes=(0.5, 1.0))
    assert (len(two.train), len(two.val), len(two.test)) == (20, 0, 20)
    assert not torch.equal(split.train.index, image_split("mnist", seed=4, sizes=(20, 10, 10)).train.index)


def test_image_split_of_digits():
    split = image_split("digits", seed=1, sizes=(0.5, 0.2, 0.3))
    assert split.train.x.shape[1] == 64
    assert split.classes == 10


# --- the real files ---------------------------------------------------------------------------------------------


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_parity_with_torchvision_on_the_real_files(name, monkeypatch, tmp_path):
    """The same arrays as torchvision's own class, which unpacks a copy; sums as in `data/sources.yaml`."""
    monkeypatch.setenv("COMPANION_DATA", str(MIRROR))
    dataset = getattr(torchvision().datasets, vision.SETS[name])
    source = sets.find_set(name)
    raw = Path(dataset.__name__) / "raw"
    folder = MIRROR / raw
    shutil.copytree(folder, tmp_path / raw)
    for split in ("train", "test"):
        reference = dataset(tmp_path, train=split == "train", download=True)
        part = vision_dataset(name, split)
        assert torch.equal((part.x[:, 0] * 255).round().byte(), reference.data)
        assert torch.equal(part.y, reference.targets)
    for file in source.files.values():
        assert file.places()[0] == folder / file.name
        assert file.find() == folder / file.name
        assert file.urls[0].removesuffix(file.name) in dataset.mirrors
    assert {file for file, _ in dataset.resources} == set(source.files)


def test_every_loaded_set_has_its_source():
    assert set(vision.SETS) <= set(sets.data_sets())
