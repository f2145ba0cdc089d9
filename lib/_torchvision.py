"""torchvision, also where its compiled operators do not load.

A CPU build of torch beside a CUDA build of torchvision (or the other way round) cannot load torchvision's operators;
``import torchvision`` then stops with "operator torchvision::nms does not exist".  Data sets, transforms and models
need none of them: with the two schemas that it misses declared, the import goes through.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a library's operators go when it does


@cache
def torchvision() -> ModuleType:
    """The package `torchvision`, its schemas declared where they are missing; matching builds are imported as they are.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    _declared.append(library)
    for name in ("nms", "qnms"):
        library.define(name + ARGUMENTS)  # type: ignore[no-untyped-call]
    library.impl("nms", nms, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression in plain torch, O(N^2) memory.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a box goes if a kept box of higher score overlaps it by more than this (intersection over union).

    Returns:
        Positions of the kept boxes, by descending score.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    overlaps = shared / (area[:, None] + area[None, :] - shared) > iou_threshold
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if kept[i]:
            kept[i + 1 :] &= ~overlaps[i, i + 1 :]
    return order[kept]
