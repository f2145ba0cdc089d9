"""The painter of `lib.data.scenes`: objects over a background, from far to near, antialiased over one pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.data._shapes import LANDMARKS, PATTERNS, pattern, signed_distance
from lib.data.scene_factors import BACKGROUNDS, PALETTE, SHAPES, TEXTURES, Factors


def tones_of(factors: Factors) -> Tensor:
    """First and second tone of each object: its colour, and a darker one (a paler one of dark colours)."""
    first = (PALETTE.to(factors.tint)[factors.colour] + factors.tint).clamp(0, 1)
    bright = first @ first.new_tensor([0.3, 0.6, 0.1])
    second = torch.where(bright[..., None] > 0.45, 0.35 * first, 0.3 * first + 0.7)
    return torch.stack([first, second], 2)


def _background(factors: Factors) -> Tensor:
    """Two tones mixed by the background's pattern, (N, 3, H, W)."""
    size = factors.pixels
    centres = torch.arange(size, device=factors.shift.device) + 0.5
    x = (centres + factors.shift[:, :1])[:, None, :].expand(-1, size, -1)
    y = (centres + factors.shift[:, 1:])[:, :, None].expand(-1, -1, size)
    codes = torch.tensor([PATTERNS.index(name) for name in BACKGROUNDS], device=x.device)
    turn = math.sqrt(0.5)  # diagonal, so that stripes differ from an object's
    ones = torch.ones_like(factors.shift[:, 0])
    centred = factors.background == BACKGROUNDS.index("shaded")  # goes once from corner to corner
    offset = torch.where(centred[:, None], factors.shift + size / 2, 0.0)
    x, y = x - offset[:, :1, None], y - offset[:, 1:, None]
    share = pattern(codes[factors.background], turn * (x + y), turn * (y - x), ones * size / 5.3, ones * size / 2)
    first, second = factors.ground.unbind(1)
    return first[:, :, None, None] + share[:, None] * (second - first)[:, :, None, None]


def paint_chunk(factors: Factors, canvas: Tensor | None, tones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images, visible masks and amodal masks."""
    n, k = factors.present.shape
    size = factors.pixels
    images = _background(factors) if canvas is None else canvas.to(factors.tint).clone()
    amodal = torch.zeros(n, k, size, size, dtype=torch.bool, device=images.device)
    cover = torch.zeros(n, k, size, size, device=images.device)
    share = torch.zeros_like(cover)
    at = factors.present
    if bool(at.any()):
        centres = torch.arange(size, device=images.device) + 0.5
        x = (centres - factors.position[at][:, :1])[:, None, :]
        y = (centres - factors.position[at][:, 1:])[:, :, None]
        angle, side, aspect = factors.angle[at][:, None, None], factors.side[at], factors.aspect[at]
        u, v = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
        half, wide = (side / 2)[:, None, None], aspect.sqrt()[:, None, None]
        distance = half * signed_distance(factors.shape[at], u / (half * wide), v * wide / half, 2 / side)
        amodal[at] = distance < 0
        cover[at] = (0.5 - distance).clamp_(0, 1)
        codes = torch.tensor([PATTERNS.index(name) for name in TEXTURES], device=x.device)[factors.texture[at]]
        share[at] = pattern(codes, u, v, factors.period[at], side / 2)
    free = torch.ones(n, size, size, dtype=torch.bool, device=images.device)
    masks = torch.zeros_like(amodal)
    order = factors.depth.argsort(1)  # near first
    each = torch.arange(n, device=images.device)
    for j in range(k):
        slot = order[:, j]
        masks[each, slot] = amodal[each, slot] & free
        free &= ~amodal[each, slot]
    for j in reversed(range(k)):
        slot = order[:, j]
        first, second = tones[each, slot].to(images)[..., None, None].unbind(1)
        ink = first + share[each, slot][:, None] * (second - first)
        images += cover[each, slot][:, None] * (ink - images)
    return images, masks, amodal


def keypoints_of(factors: Factors) -> Tensor:
    """Landmarks of the shapes, scaled, turned and moved to their places, (N, K, 4, 2)."""
    marks = torch.tensor([LANDMARKS[name] for name in SHAPES], device=factors.side.device)[factors.shape]
    half, wide = (factors.side / 2)[..., None], factors.aspect.sqrt()[..., None]
    u, v = marks[..., 0] * half * wide, marks[..., 1] * half / wide
    c, s = factors.angle.cos()[..., None], factors.angle.sin()[..., None]
    return torch.stack([c * u - s * v, s * u + c * v], -1) + factors.position[:, :, None]
