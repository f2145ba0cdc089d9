"""Where the objects of `lib.data.scenes` are, and how they stand to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.data.scene_factors import Factors
from lib.data.scenes import Scenes, mask_boxes

__all__ = ["POSITIONS", "RELATIONS", "places", "relations"]

POSITIONS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
RELATIONS = (
    *("left of", "right of", "above", "below", "in front of", "behind", "larger than", "smaller than"),
    *("inside", "touching", "of the same colour as", "of the same shape as"),
)


def places(factors: Factors) -> Tensor:
    """Cell of a 3 x 3 grid that each object's middle lies in, as position in `POSITIONS`, (N, K) int64."""
    cell = (factors.position * 3 / factors.pixels).long().clamp(0, 2)
    return 3 * cell[..., 1] + cell[..., 0]


def relations(painted: Scenes, ratio: float = 1.2) -> Tensor:
    """Which relations hold between the objects of each scene.

    With the middles (x, y) of two objects: "left of", "right of" where they differ more (or as much) in x than in y,
    else "above", "below", so that just one of the four holds unless the middles coincide. "in front of", "behind":
    amodal masks meet and one is nearer. "larger than", "smaller than": sides in at least the given ratio.
    "inside": the amodal box within the other one's, and smaller. "touching": amodal masks meet or are adjacent
    (by an edge or a corner of a pixel).

    Args:
        painted: scenes.
        ratio: from which on an object is larger, above 1.

    Returns:
        Shape (N, K, K, R) bool, R the number of `RELATIONS`; entry (n, i, j, r): i stands in relation r to j.
        False where an object is absent, and for i = j.

    Raises:
        ValueError: ratio not above 1.
    """
    if ratio <= 1:
        raise ValueError(f"ratio: above 1, got {ratio}")
    gap = painted.position[:, None] - painted.position[:, :, None]  # from i to j
    dx, dy = gap.unbind(-1)
    wide = dx.abs() >= dy.abs()
    amodal = painted.amodal.float()
    grown = (
        torch.nn.functional.max_pool2d(amodal, 3, stride=1, padding=1).flatten(2)
        if amodal.numel()
        else amodal.flatten(2)
    )
    amodal = amodal.flatten(2)
    meet, adjacent = amodal @ amodal.mT > 0, grown @ amodal.mT > 0
    boxes = mask_boxes(painted.amodal)
    a, b = boxes[:, :, None], boxes[:, None]
    inside = (a[..., :2] >= b[..., :2]).all(-1) & (a[..., 2:] <= b[..., 2:]).all(-1) & (a != b).any(-1)
    nearer = painted.depth[:, :, None] < painted.depth[:, None]
    larger = painted.side[:, :, None] >= ratio * painted.side[:, None]
    holds = torch.stack(
        [
            wide & (dx > 0),
            wide & (dx < 0),
            ~wide & (dy > 0),
            ~wide & (dy < 0),
            meet & nearer,
            meet & nearer.mT,
            larger,
            larger.mT,
            inside,
            adjacent,
            painted.colour[:, :, None] == painted.colour[:, None],
            painted.shape[:, :, None] == painted.shape[:, None],
        ],
        -1,
    )
    both = painted.present[:, :, None] & painted.present[:, None]
    both &= ~torch.eye(both.shape[1], dtype=torch.bool, device=both.device)
    return holds & both[..., None]
