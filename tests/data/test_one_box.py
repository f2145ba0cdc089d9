import os

import pytest
import torch

from lib.data import DataUnavailable
from lib.data.blood_cells import BloodCells, blood_cells
from lib.data.one_box import one_box_scenes


def test_value_by_hand_red_pixels_fill_the_box():
    """Red pixels (none of the distractors' colours comes near) span exactly the box."""
    images, boxes = one_box_scenes(100, seed=1)
    red = (images[:, 0] > 0.7) & (images[:, 1] < 0.35) & (images[:, 2] < 0.35)
    gaps = []
    for mask, box in zip(red, boxes * 32, strict=True):
        y, x = mask.nonzero().unbind(1)
        found = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        gaps.append((found - box).abs())
    gap = torch.stack(gaps)
    assert gap.max() <= 3  # the tip of a thin triangle fades away over a few pixels
    assert gap.mean() < 0.4


def test_invariance_prefix_and_seeds():
    images, boxes = one_box_scenes(8, seed=2)
    more, _ = one_box_scenes(16, seed=2)
    assert torch.equal(more[:8], images)
    assert not torch.equal(one_box_scenes(8, seed=3)[1], boxes)
    assert one_box_scenes(4, distractors=0, pixels=24)[0].shape == (4, 3, 24, 24)


def test_value_by_hand_one_cell():
    cells = BloodCells(
        torch.zeros(2, 3, 4, 4), [torch.eye(4)[:2], torch.eye(4)[:1]], [torch.tensor([0, 1]), torch.tensor([0])]
    )
    images, boxes = cells.one(1)
    assert images.shape == (1, 3, 4, 4)
    assert boxes.tolist() == [[0, 1, 0, 0]]


@pytest.mark.data
@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="no mirror folder")
def test_blood_cells():
    parts = [blood_cells(name, 32) for name in ("train", "val", "test")]
    assert [len(part.images) for part in parts] == [205, 87, 72]
    assert sum(int((labels == 1).sum()) for part in parts for labels in part.labels) == 372
    for part in parts:
        for boxes in part.boxes:
            assert ((boxes >= 0) & (boxes <= 1.01)).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_degenerate(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="split"):
        blood_cells("all")
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataUnavailable, match="bccd_320"):
        blood_cells()
    (tmp_path / "bccd").mkdir()
    (tmp_path / "bccd/bccd_320.zip").write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(DataUnavailable):
        blood_cells()
