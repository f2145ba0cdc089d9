import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import DataUnavailable, sets
from lib.data.omniglot import omniglot

MIRROR = Path(os.environ.get("COMPANION_DATA") or "nowhere")
needs_data = pytest.mark.skipif(not (MIRROR / "omniglot").exists(), reason="no Omniglot in the mirror folder")


def archive(characters, root):
    """A zip like the original: strokes black on white, two drawings a character, told apart by their length."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for number, name in enumerate(characters):
            for drawing in (2, 1):
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[: 15 * (number + 1), :15] = 0
                png = io.BytesIO()
                Image.fromarray(pixels).convert("1").save(png, "PNG")
                target.writestr(f"{root}/{name}/{drawing:02}.png", png.getvalue())
    return buffer.getvalue()


ONE, TWO = archive(["A/1", "B/1"], "one"), archive(["B/1", "A/2"], "two")


@pytest.fixture
def mirror(tmp_path, monkeypatch, registered, no_network):
    """Two archives with a character in common, and a repacked third, in a mirror; an empty cache, no network."""
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    files = {f"images_background_small{k}.zip": content for k, content in ((1, ONE), (2, TWO))}
    files["images_evaluation_repacked.zip"] = archive(["A/1", "A/2", "B/1"], "three")
    folder = tmp_path / "mirror" / "omniglot"
    folder.mkdir(parents=True)
    for name, content in registered("omniglot", files).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["background-small", "evaluation"])
def test_value_by_hand(mirror, name):
    part = omniglot(name, size=7)
    assert part.x.shape == (6, 1, 7, 7)
    assert part.y.tolist() == [0, 0, 1, 1, 2, 2]  # A/1, A/2, B/1; what two archives share comes once
    strokes = {"background-small": [1, 1, 2, 2, 1, 1], "evaluation": [1, 1, 2, 2, 3, 3]}[name]
    assert part.x[:, 0, :, 0].sum(1).tolist() == strokes
    assert part.x[:, 0, :, 1:].sum() == 0
    assert torch.equal(part.index, torch.arange(6))


def test_degenerate_damaged(mirror):
    (mirror / "images_background_small2.zip").write_bytes(TWO[:-10])
    with pytest.warns(UserWarning, match=r"small2\.zip is damaged"), pytest.raises(DataUnavailable):
        omniglot("background-small")


def test_degenerate_absent_and_offline(mirror):
    with pytest.raises(DataUnavailable, match=r"images_background\.zip.*COMPANION_DATA"):
        omniglot("background")
    with pytest.raises(ValueError, match="background-small"):
        omniglot("everything")


@pytest.mark.data
@needs_data
def test_real_files(monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(MIRROR))
    for name, characters in {"background-small": 242, "evaluation": 659}.items():
        part = omniglot(name)
        assert torch.bincount(part.y).tolist() == [20] * characters
        assert 0.03 < part.x.mean() < 0.15
    for file in sets.find_set("omniglot").files.values():
        assert file.find() == (MIRROR / "omniglot" / file.name if "sha256" in file.hashes else None)
