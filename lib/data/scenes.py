"""Small pictures of coloured shapes with everything about them known: boxes, masks, depth, landmarks, attributes.

A seeded world for vision chapters that would otherwise need downloads and labels::

    from lib.data.scenes import scenes

    train = scenes(2000, seed=0, pixels=24, objects=(1, 2), textures=3)
    train.images        # (2000, 3, 24, 24) in [0, 1]
    train.boxes         # (2000, 2, 4) xyxy in pixels

Words about the pictures (captions, relations, one-word edits) come from `lib.data.scene_text`, the random numbers from
`lib.data.scene_sampling`. Shapes are signed distance functions evaluated at the pixel centres of all scenes at once;
their edges are antialiased over one pixel. No noise is added: ``images + 0.05 * torch.randn(...)`` is one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lib.data._scene_paint import keypoints_of, paint_chunk, tones_of
from lib.data.scene_factors import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Factors, half_extent
from lib.data.scene_sampling import sample_factors, uniform

__all__ = ["Scenes", "contact_sheet", "mask_boxes", "paint", "pixel_map", "presence", "redraw", "scenes", "videos"]

_CHUNK = 4_000_000  # object pixels that are worked on at once


@dataclass(frozen=True, kw_only=True)
class Scenes(Factors):
    """Painted scenes: the factors, and what can be seen. H = W = `pixels`.

    Attributes:
        images: (N, 3, H, W) float32 RGB in [0, 1].
        masks: visible pixels of each object, (N, K, H, W) bool; the masks of a scene are disjoint.
        amodal: pixels of each object as if nothing were in front of it, (N, K, H, W) bool: those whose centre lies
            inside the outline.
        boxes: smallest boxes around the visible pixels, (N, K, 4) float32, (x1, y1, x2, y2) with x2, y2 exclusive, so
            that width is x2 - x1; zeros for absent and for wholly hidden objects. Of amodal masks: `mask_boxes`.
        visible: visible share of the amodal mask, (N, K); 0 for absent objects.
        keypoints: top, right, bottom and left point of each object in its own frame (they turn with it), inside its
            outline, (N, K, 4, 2) as (x, y); of objects below 8 pixels a few round to a pixel beside the mask.
        keypoints_visible: the keypoint's pixel is in the visible mask, (N, K, 4) bool.
    """

    images: Tensor
    masks: Tensor
    amodal: Tensor
    boxes: Tensor
    visible: Tensor
    keypoints: Tensor
    keypoints_visible: Tensor


def scenes(n: int, seed: int = 0, **options: Any) -> Scenes:
    """N painted scenes; scene i of a seed is the same for every N.

    Args:
        n: number of scenes.
        seed: not negative; another seed gives independent scenes (train, validation, test).
        options: of `lib.data.scene_sampling.sample_factors`: pixels, objects, shapes, colours, textures, backgrounds,
            classes, class_weights, distinct, spurious, sides, aspect, rotation, period, overlap, tint.

    Raises:
        ValueError: an option out of its range.
        TypeError: an unknown option.
    """
    return paint(sample_factors(n, seed, **options))


def redraw(original: Factors, *, canvas: Tensor | None = None, tones: Tensor | None = None, **changes: Any) -> Scenes:
    """The same scenes with some factors changed, everything else equal: counterfactuals, edits, given factors.

    ``redraw(s, colour=torch.full_like(s.colour, 2))`` makes every object blue, ``present=...`` removes objects,
    ``background=other.background`` takes the backgrounds of other scenes. Nothing else follows a change: with a new
    `shape` pass the new `label`, with a new `side` the new `size`.

    Args:
        original: the scenes.
        canvas: see `paint`; not kept.
        tones: see `paint`; not kept.
        changes: fields of `Factors`, of the same shape.

    Raises:
        ValueError: an unknown field, a shape that differs, or an index outside its vocabulary.
    """
    own = {f.name: getattr(original, f.name) for f in fields(Factors)}
    if unknown := changes.keys() - own.keys():
        raise ValueError(f"redraw: no such factor: {', '.join(sorted(unknown))}; there are {', '.join(own)}")
    for name, value in changes.items():
        if isinstance(own[name], Tensor):
            if value.shape != own[name].shape:
                raise ValueError(f"redraw: {name} has shape {tuple(own[name].shape)}, got {tuple(value.shape)}")
            changes[name] = value.to(own[name])
    return paint(Factors(**own | changes), canvas=canvas, tones=tones)


def paint(factors: Factors, *, canvas: Tensor | None = None, tones: Tensor | None = None) -> Scenes:
    """Paint scenes from far to near, on the factors' device.

    Args:
        factors: what to paint.
        canvas: pictures to use as backgrounds, (N, 3, H, W) in [0, 1]; `background` is then not painted.
        tones: first and second colour of each object, (N, K, 2, 3) RGB; instead of `colour` and `tint`, e.g. the
            background's own tones for a camouflaged object.

    Raises:
        ValueError: a shape that differs, or an index outside its vocabulary.
    """
    n, k = factors.present.shape
    size = factors.pixels
    for name, words in (("shape", SHAPES), ("colour", COLOURS), ("texture", TEXTURES), ("background", BACKGROUNDS)):
        codes = getattr(factors, name)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < len(words):
            raise ValueError(f"{name}: positions in 0..{len(words) - 1}, got {int(codes.min())}..{int(codes.max())}")
    for name, given, shape in (("canvas", canvas, (n, 3, size, size)), ("tones", tones, (n, k, 2, 3))):
        if given is not None and given.shape != shape:
            raise ValueError(f"{name}: shape {shape}, got {tuple(given.shape)}")
    rows = max(1, _CHUNK // (max(k, 1) * size * size))
    parts = [
        paint_chunk(
            factors[start : start + rows],
            None if canvas is None else canvas[start : start + rows],
            (tones_of(factors) if tones is None else tones)[start : start + rows],
        )
        for start in range(0, max(n, 1), rows)
    ]
    images, masks, amodal = (torch.cat(part) for part in zip(*parts, strict=True))
    area = amodal.sum((2, 3))
    points = keypoints_of(factors)
    column, row = points.floor().long().clamp(0, size - 1).unbind(-1)
    seen = masks.flatten(2).gather(2, row * size + column) if k else points[..., 0].bool()
    return Scenes(
        **{f.name: getattr(factors, f.name) for f in fields(Factors)},
        images=images,
        masks=masks,
        amodal=amodal,
        boxes=mask_boxes(masks),
        visible=masks.sum((2, 3)) / area.clamp(min=1),
        keypoints=points,
        keypoints_visible=seen,
    )


def mask_boxes(masks: Tensor) -> Tensor:
    """Smallest boxes around masks.

    Args:
        masks: shape (..., H, W) bool.

    Returns:
        (x1, y1, x2, y2) in pixels, x2 and y2 exclusive, shape (..., 4) float32; zeros for empty masks.
    """
    ends = []
    for hit in (masks.any(-2), masks.any(-1)):  # columns, rows
        count = torch.arange(hit.shape[-1], device=hit.device)
        last = torch.where(hit, count + 1, 0).amax(-1)
        ends.append((torch.where(hit, count, hit.shape[-1]).amin(-1).minimum(last), last))
    (x1, x2), (y1, y2) = ends
    return torch.stack([x1, y1, x2, y2], -1).float()


def pixel_map(painted: Scenes, values: Tensor, background: float = 0) -> Tensor:
    """A value for every pixel: that of the object seen there.

    Semantic labels: ``pixel_map(s, s.label + 1)``; instances: ``pixel_map(s, torch.arange(1, K + 1).expand(N, K))``;
    depth: ``pixel_map(s, s.depth, background=1)``.

    Args:
        painted: scenes.
        values: one for each object, (N, K).
        background: value where there is no object.

    Returns:
        Shape (N, H, W), the type of `values`.

    Raises:
        ValueError: values of another shape.
    """
    if values.shape != painted.present.shape:
        raise ValueError(f"pixel_map: values {tuple(painted.present.shape)}, got {tuple(values.shape)}")
    out = values.new_full((len(painted), painted.pixels, painted.pixels), background)
    for k in range(values.shape[1]):
        out = torch.where(painted.masks[:, k], values[:, k, None, None], out)
    return out


def presence(factors: Factors, attribute: str) -> Tensor:
    """Which values of an attribute occur in each scene: multi-label targets.

    Args:
        factors: scenes.
        attribute: "shape", "colour", "texture", "size" or "label".

    Returns:
        Shape (N, V) bool, V the size of the vocabulary (for "label": of `class_names`).

    Raises:
        ValueError: unknown attribute.
    """
    sizes = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "size": SIZES, "label": factors.class_names}
    if attribute not in sizes:
        raise ValueError(f"presence: attribute out of {', '.join(sizes)}; got {attribute!r}")
    codes = getattr(factors, attribute)
    hits = torch.zeros(len(codes), len(sizes[attribute]) + 1, dtype=torch.bool, device=codes.device)
    hits.scatter_(1, torch.where(factors.present, codes, len(sizes[attribute])), True)
    return hits[:, :-1]


def videos(
    n: int,
    frames: int = 8,
    seed: int = 0,
    *,
    speed: tuple[float, float] = (0.3, 1.2),
    headings: int | None = None,
    spin: float = 0.0,
    **options: Any,
) -> Scenes:
    """Short clips of moving objects, as n * frames scenes: frame t of clip c is row ``c * frames + t``.

    ``s.images.unflatten(0, (n, frames))`` has the clips apart. Slot k of a clip holds the same object in every frame:
    the slot is its identity. Objects move on straight lines (their sampled place is that of the middle of the clip)
    and bounce off the frame's edges; they pass in front of each other by their depth, and `visible` tells who is
    hidden. `velocity` is that of the frame, so position(t+1) = position(t) + velocity(t) but for a bounce in between.

    Args:
        n: number of clips.
        frames: T, at least 1.
        seed: not negative.
        speed: range in pixels per frame, uniform.
        headings: directions of movement, 2 pi i / headings from "to the right" clockwise; any direction without.
        spin: largest turn in radians per frame, uniform in [-spin, spin].
        options: as for `scenes`.

    Raises:
        ValueError: frames below 1, a negative speed, headings below 1, or an option out of its range.
    """
    if frames < 1 or not 0 <= speed[0] <= speed[1] or (headings is not None and headings < 1):
        raise ValueError(
            f"videos: frames and headings at least 1, 0 <= slowest <= fastest; got {frames}, {headings}, {speed}"
        )
    still = sample_factors(n, seed, **options)
    k = still.present.shape[1]
    fast = speed[0] + (speed[1] - speed[0]) * uniform(seed, "speed", n, k)
    turn = uniform(seed, "heading", n, k)
    heading = 2 * math.pi * (turn if headings is None else (turn * headings).floor() / headings)
    velocity = torch.stack([fast * heading.cos(), fast * heading.sin()], -1).float()
    whirl = spin * (2 * uniform(seed, "spin", n, k) - 1).float()
    clips = still[torch.arange(n).repeat_interleave(frames)]
    time = (torch.arange(frames) - (frames - 1) / 2).repeat(n)
    angle = clips.angle + whirl.repeat_interleave(frames, 0) * time[:, None]
    velocity = velocity.repeat_interleave(frames, 0)
    # A path that bounces between two walls is a straight one, folded.
    reach = half_extent(clips.side, clips.aspect, angle).clamp(max=still.pixels / 2)
    room = (still.pixels - 2 * reach).clamp(min=1e-6)
    place = clips.position + velocity * time[:, None, None] - reach
    phase = place.remainder(2 * room)
    back = phase > room
    moved = replace(
        clips,
        angle=angle,
        position=torch.where(back, 2 * room - phase, phase) + reach,
        velocity=torch.where(back, -velocity, velocity),
    )
    return paint(moved)


def contact_sheet(images: Tensor, columns: int = 8, gap: int = 1) -> Tensor:
    """Pictures side by side on white, row by row.

    Args:
        images: (N, 3, H, W) in [0, 1].
        columns: in a row.
        gap: white pixels between pictures.

    Returns:
        One picture, (rows * (H + gap) - gap, columns * (W + gap) - gap, 3), as matplotlib wants it.

    Raises:
        ValueError: no images, or no columns.
    """
    if not len(images) or columns < 1:
        raise ValueError("contact_sheet: at least one image and one column")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    padded = torch.nn.functional.pad(images, (0, gap, 0, gap), value=1.0)
    blank = padded.new_ones(rows * columns - len(images), *padded.shape[1:])
    tiles = torch.cat([padded, blank])
    height, width = tiles.shape[2:]
    grid = tiles.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    return grid[: rows * height - gap, : columns * width - gap]
