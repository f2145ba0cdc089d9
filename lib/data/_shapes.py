"""Signed distances, landmarks and patterns of the shapes in `lib.data.scenes`.

Every shape lives in the square [-1, 1]^2 with v pointing down (as rows of an image do) and touches its longer sides;
the distance is negative inside, and exact at least outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon", "diamond", "arrow", "bar", "sun")
PATTERNS = ("plain", "striped", "dotted", "checked", "ringed", "shaded", "cloudy")


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    """Corners of a star with its first tip up, stretched so that it fills the square."""
    radius = [1.0, inner] * points
    corners = [(r * math.sin(math.pi * i / points), -r * math.cos(math.pi * i / points)) for i, r in enumerate(radius)]
    us, vs = [c[0] for c in corners], [c[1] for c in corners]
    middle = (min(vs) + max(vs)) / 2
    half = max(max(us), (max(vs) - min(vs)) / 2)
    return [(u / half, (v - middle) / half) for u, v in corners]


def _heart(corners: int) -> list[tuple[float, float]]:
    """Points of the curve (16 sin^3 t, 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t), scaled to fill the square."""
    out = []
    for i in range(corners):
        t = 2 * math.pi * i / corners
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        out.append((math.sin(t) ** 3, -(height + 2.5) / 16))
    return out


_ARM = 0.34
POLYGONS = {
    "heart": _heart(24),
    "triangle": [(0.0, -0.87), (1.0, 0.87), (-1.0, 0.87)],
    "star": _star(5, 0.45),
    "cross": [
        *[(_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM), (_ARM, 1)],
        *[(-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM), (-_ARM, -1)],
    ],
    "diamond": [(0.0, -1.0), (0.66, 0.0), (0.0, 1.0), (-0.66, 0.0)],
    "arrow": [(0.0, -1.0), (0.8, 0.0), (0.28, 0.0), (0.28, 1.0), (-0.28, 1.0), (-0.28, 0.0), (-0.8, 0.0)],
}

# Top, right, bottom and left point of each shape as it stands upright, well inside the outline so that even small
# objects have them within their masks.
_FOUR = ((0.0, -0.8), (0.8, 0.0), (0.0, 0.8), (-0.8, 0.0))
LANDMARKS = {
    "circle": _FOUR,
    "square": _FOUR,
    "triangle": ((0.0, -0.5), (0.7, 0.7), (0.0, 0.7), (-0.7, 0.7)),
    "star": ((0.0, -0.5), (0.5, -0.12), (0.33, 0.5), (-0.5, -0.12)),
    "cross": _FOUR,
    "ring": ((0.0, -0.74), (0.74, 0.0), (0.0, 0.74), (-0.74, 0.0)),
    "heart": ((0.0, -0.2), (0.6, -0.1), (0.0, 0.6), (-0.6, -0.1)),
    "moon": ((0.15, -0.82), (-0.32, 0.0), (0.15, 0.82), (-0.65, 0.0)),
    "diamond": ((0.0, -0.65), (0.45, 0.0), (0.0, 0.65), (-0.45, 0.0)),
    "arrow": ((0.0, -0.7), (0.48, -0.15), (0.0, 0.8), (-0.48, -0.15)),
    "bar": ((0.0, -0.8), (0.07, 0.0), (0.0, 0.8), (-0.07, 0.0)),
    "sun": _FOUR,
}


def _polygon(u: Tensor, v: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Exact signed distance to a simple polygon: nearest edge, sign by the number of edges crossed by a ray."""
    nearest = torch.full_like(u, torch.inf)
    inside = torch.zeros_like(u, dtype=torch.bool)
    for (au, av), (bu, bv) in zip(corners, corners[1:] + corners[:1], strict=True):
        eu, ev = bu - au, bv - av
        wu, wv = u - au, v - av
        t = ((wu * eu + wv * ev) / (eu * eu + ev * ev)).clamp_(0, 1)
        nearest = torch.minimum(nearest, (wu - t * eu).square_() + (wv - t * ev).square_())
        if ev:
            inside ^= ((v >= av) != (v >= bv)) & (u < au + wv * (eu / ev))
    distance = nearest.sqrt_()
    return torch.where(inside, -distance, distance)


def _box(u: Tensor, v: Tensor, half_u: Tensor | float, half_v: Tensor | float) -> Tensor:
    du, dv = u.abs() - half_u, v.abs() - half_v
    return torch.hypot(du.clamp(min=0), dv.clamp(min=0)) + torch.maximum(du, dv).clamp_(max=0)


def _ring(u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    half = (0.9 * pixel).clamp(0.26, 0.5)
    return (torch.hypot(u, v) - (1 - half)).abs() - half


def _moon(u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    """A disc of radius 1 around (0.19, 0) without one of radius 0.8 around (0.64, 0); exact, also beyond the tips."""
    apart, inner = 0.45, 0.8
    x, y = u - 0.19, v.abs()
    tip_x = (1 - inner**2 + apart**2) / (2 * apart)
    tip_y = math.sqrt(1 - tip_x**2)
    beyond = x * tip_y - y * tip_x > apart * (tip_y - y).clamp(min=0)
    body = torch.maximum(torch.hypot(x, y) - 1, inner - torch.hypot(x - apart, y))
    return torch.where(beyond, torch.hypot(x - tip_x, y - tip_y), body)


def _sun(u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    """A disc with eight thin rays, at least 1.2 pixels wide."""
    turn = torch.atan2(v, u)
    turn = turn - torch.round(turn / (math.pi / 4)) * (math.pi / 4)
    radius = torch.hypot(u, v)
    ray = _box(radius * torch.cos(turn) - 0.75, radius * torch.sin(turn), 0.25, (0.6 * pixel).clamp(min=0.09))
    return torch.minimum(radius - 0.55, ray)


_OTHERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "circle": lambda u, v, pixel: torch.hypot(u, v) - 1,
    "square": lambda u, v, pixel: _box(u, v, 1.0, 1.0),
    "ring": _ring,
    "moon": _moon,
    "bar": lambda u, v, pixel: _box(u, v, (0.75 * pixel).clamp(0.2, 1.0), 1.0),
    "sun": _sun,
}


def signed_distance(shape: Tensor, u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    """Signed distance of points to shapes, in units of the half side.

    Args:
        shape: positions in `SHAPES`, shape (M,).
        u: to the right, shape (M, H, W).
        v: down, shape (M, H, W).
        pixel: size of a pixel in these units, shape (M,); thin parts stay at least about 1.5 pixels wide.

    Returns:
        Shape (M, H, W), negative inside.
    """
    out = torch.empty_like(u)
    for code in sorted(set(shape.tolist())):
        rows = torch.nonzero(shape == code).flatten()
        name = SHAPES[code]
        if name in POLYGONS:
            out[rows] = _polygon(u[rows], v[rows], POLYGONS[name])
        else:
            out[rows] = _OTHERS[name](u[rows], v[rows], pixel[rows, None, None])
    return out


def pattern(kind: Tensor, x: Tensor, y: Tensor, period: Tensor, half: Tensor) -> Tensor:
    """Share of the second tone at points of textured surfaces.

    Args:
        kind: positions in `PATTERNS`, shape (M,).
        x: to the right in the surface's own frame, pixels, shape (M, H, W).
        y: down, likewise.
        period: of the pattern in pixels, shape (M,).
        half: half the extent of the surface in pixels (for "shaded"), shape (M,).

    Returns:
        Shape (M, H, W) in [0, 1]; 0 for "plain".
    """
    out = torch.zeros_like(x)
    for code in sorted(set(kind.tolist())):
        name = PATTERNS[code]
        if name == "plain":
            continue
        rows = torch.nonzero(kind == code).flatten()
        px, py = x[rows], y[rows]
        wave = (2 * math.pi / period[rows])[:, None, None]
        if name == "shaded":
            out[rows] = (0.5 + 0.5 * (px + py) / (1.3 * half[rows, None, None])).clamp_(0, 1)
        elif name == "cloudy":
            slow = 0.45 * wave
            sea = torch.sin(slow * (px + 0.6 * py)) + torch.sin(slow * (1.3 * py - 0.5 * px) + 1)
            out[rows] = (0.5 + 0.25 * (sea + torch.sin(slow * (1.9 * px + 1.7 * py) + 2))).clamp_(0, 1)
        else:
            out[rows] = (0.5 + _periodic(name, px, py, wave)).clamp_(0, 1)
    return out


def _periodic(name: str, x: Tensor, y: Tensor, wave: Tensor) -> Tensor:
    """A periodic pattern as a function that is positive on the second tone, with edges about a pixel wide."""
    sharp = 1 / wave  # the sine rises by `wave` per pixel where it crosses zero
    if name == "striped":
        return sharp * torch.sin(wave * x)
    if name == "ringed":
        return sharp * torch.sin(wave * torch.hypot(x, y) - math.pi / 2)
    if name == "checked":
        return 2 * sharp * torch.sin(wave * x) * torch.sin(wave * y)
    return sharp * (torch.cos(wave * x) + torch.cos(wave * y) - 0.6)  # dotted, a dot in the middle
