"""BCCD, blood cells under a microscope with a box around each (Shenggan/BCCD_Dataset, MIT licence).

364 pictures with 4,155 red cells, 372 white cells and 361 platelets, in the official parts.  The copy in use is scaled
to 320 x 240 pixels; there is no address to download it from.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.data.sets import find_file

__all__ = ["BloodCells", "blood_cells"]

KINDS = ("RBC", "WBC", "Platelets")


@dataclass(frozen=True)
class BloodCells:
    """N pictures.

    Attributes:
        images: (N, 3, S, S) float32 in [0, 1]; the pictures are squeezed from 4:3 to squares.
        boxes: for each picture (K_i, 4) as xyxy in units of the picture.
        labels: for each picture (K_i,), positions in ("RBC", "WBC", "Platelets").
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]

    def one(self, label: int) -> tuple[Tensor, Tensor]:
        """The pictures with exactly one cell of a kind, (M, 3, S, S), and its box, (M, 4)."""
        rows = [i for i, own in enumerate(self.labels) if int((own == label).sum()) == 1]
        found = [self.boxes[i][self.labels[i] == label] for i in rows]
        return self.images[rows], torch.cat(found) if found else torch.empty(0, 4)


def blood_cells(split: str = "train", size: int = 64) -> BloodCells:
    """One official part, scaled to square pictures.

    Args:
        split: "train" (205 pictures), "val" (87) or "test" (72).
        size: S.

    Raises:
        ValueError: unknown part.
        DataUnavailable: the archive is not on this machine.
    """
    from PIL import Image

    if split not in ("train", "val", "test"):
        raise ValueError(f"split {split!r}: one of train, val, test")
    images, boxes, labels = [], [], []
    with zipfile.ZipFile(find_file("blood-cells", "bccd_320.zip")) as archive:
        for name in archive.read(f"BCCD/ImageSets/Main/{split}.txt").decode().split():
            with Image.open(io.BytesIO(archive.read(f"BCCD/JPEGImages/{name}.jpg"))) as picture:
                width, height = picture.size
                small = picture.convert("RGB").resize((size, size), Image.Resampling.BOX)
                images.append(np.asarray(small, np.float32) / 255)
            rows = []
            for cell in ET.fromstring(archive.read(f"BCCD/Annotations/{name}.xml")).iter("object"):
                x1, y1, x2, y2 = (
                    float(cell.findtext(f"bndbox/{key}", "0")) for key in ("xmin", "ymin", "xmax", "ymax")
                )
                if x2 > x1 and y2 > y1:  # two boxes of the original have no area
                    box = (x1 / width, y1 / height, x2 / width, y2 / height)
                    rows.append((*box, KINDS.index(cell.findtext("name", ""))))
            table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
            boxes.append(table[:, :4])
            labels.append(table[:, 4].long())
    return BloodCells(torch.from_numpy(np.stack(images)).movedim(-1, 1), boxes, labels)
