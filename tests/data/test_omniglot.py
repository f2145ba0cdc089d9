import hashlib
import importlib
import io
import os
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

module = importlib.import_module("lib.data.omniglot")


def archive(folder, characters, root):
    """A zip like the original: strokes black on white, one drawing of one pixel block a file."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for number, name in enumerate(characters):
            for drawing in (2, 1):
                pixels = np.full((105, 105), 255, np.uint8)
                pixels[: 15 * (number + 1), :15] = 0
                png = io.BytesIO()
                Image.fromarray(pixels).convert("1").save(png, "PNG")
                target.writestr(f"{root}/{name}/{drawing:02}.png", png.getvalue())
    content = buffer.getvalue()
    (folder / f"{root}.zip").write_bytes(content)
    return module.Archive(f"{root}.zip", f"sha256:{hashlib.sha256(content).hexdigest()}")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Two overlapping archives in a mirror, an empty cache, and no network."""
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "mirror" / "omniglot"
    parts = [archive(folder, names, root) for names, root in ((["A/1", "B/1"], "one"), (["B/1", "A/2"], "two"))]
    monkeypatch.setattr(module, "PARTS", {"background-small": [parts]})

    def unreachable(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(module.urllib.request, "urlopen", unreachable)
    return folder


def test_value_by_hand(mirror):
    part = module.omniglot("background-small", size=7)
    assert part.x.shape == (6, 1, 7, 7)
    assert part.y.tolist() == [0, 0, 1, 1, 2, 2]  # A/1, A/2, B/1; what two archives share comes once
    assert part.x[:, 0, :, 0].sum(1).tolist() == [1, 1, 2, 2, 1, 1]
    assert part.x[:, 0, :, 1:].sum() == 0
    assert torch.equal(part.index, torch.arange(6))


def test_degenerate_damaged(mirror):
    path = mirror / "two.zip"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(module.DataMissing, match=r"two\.zip is damaged.*sha256:"):
        module.omniglot("background-small")


def test_degenerate_absent_and_offline(mirror):
    (mirror / "one.zip").unlink()
    with pytest.raises(module.DataMissing, match=r"one\.zip is not in .*mirror.* or .*COMPANION_DATA"):
        module.omniglot("background-small")
    with pytest.raises(ValueError, match="background-small"):
        module.omniglot("everything")


def test_degenerate_download(mirror, monkeypatch, tmp_path):
    """A good download is kept in the cache under its name; a truncated one is refused and leaves nothing."""
    good = (mirror / "one.zip").read_bytes()
    (mirror / "one.zip").unlink()
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(good[:-1]))
    with pytest.raises(module.DataMissing, match="checksum"):
        module.omniglot("background-small")
    cache = module._folders()[-1]
    assert not cache.exists() or os.listdir(cache) == []
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(good))
    assert len(module.omniglot("background-small")) == 6
    assert os.listdir(cache) == ["one.zip"]


@pytest.mark.data
@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="COMPANION_DATA is not set")
def test_real_counts():
    for name, characters in {"background-small": 242, "evaluation": 659}.items():
        part = module.omniglot(name)
        assert torch.bincount(part.y).tolist() == [20] * characters
        assert 0.03 < part.x.mean() < 0.15
