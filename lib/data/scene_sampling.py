"""Draws the factors of `lib.data.scenes` from a seed, before a single pixel is painted.

Every attribute has its own stream of random numbers, filled scene by scene: scene i of a seed is the same whatever the
number of scenes, and changing the options of one attribute leaves the others as they were (so two worlds that differ
in their backgrounds hold the same objects).
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.data.scene_factors import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Factors, half_extent

__all__ = ["sample_factors", "split_base_novel"]

_WORDS = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES}
_TRIES = 24  # candidate positions of an object, of which the first one with room is taken


def uniform(seed: int, purpose: str, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1) for one purpose, float64; the first rows do not depend on how many rows are asked."""
    return torch.from_numpy(np.random.default_rng((seed, zlib.crc32(purpose.encode()))).random(shape))


def _codes(name: str, chosen: int | Sequence[str], words: tuple[str, ...]) -> Tensor:
    """Positions of the chosen words, an int for the first ones."""
    if isinstance(chosen, int):
        if not 1 <= chosen <= len(words):
            raise ValueError(f"{name}: a number in [1, {len(words)}] or words, got {chosen}")
        return torch.arange(chosen)
    unknown = [word for word in chosen if word not in words]
    if unknown or not chosen or len(set(chosen)) < len(chosen) or isinstance(chosen, str):
        raise ValueError(f"{name}: different words out of {', '.join(words)}; got {chosen!r}")
    return torch.tensor([words.index(word) for word in chosen])


def _class_table(classes: Sequence[Sequence[str]]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Attribute -> its code for each class, and the names of the classes."""
    kinds = {word: kind for kind, words in _WORDS.items() for word in words}
    rows = [{kinds.get(word, ""): word for word in words} for words in classes]
    if any("" in row or len(row) < len(words) for row, words in zip(rows, classes, strict=True)):
        raise ValueError(
            f"classes: each a tuple of words, at most one an attribute ({', '.join(_WORDS)}); got {classes}"
        )
    if not rows or not rows[0] or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("classes: at least one, all with words for the same attributes")
    names = tuple(" ".join(row[kind] for kind in _WORDS if kind in row) for row in rows)
    if len(set(names)) < len(names):
        raise ValueError("classes: one is given twice")
    return {k: torch.tensor([_WORDS[k].index(row[k]) for row in rows]) for k in _WORDS if k in rows[0]}, names


def _span(name: str, span: tuple[float, float]) -> tuple[float, float]:
    if len(span) != 2 or not 0 < span[0] <= span[1] < math.inf:
        raise ValueError(f"{name}: (low, high) with 0 < low <= high, got {span}")
    return span


def _ranks(seed: int, kind: str, n: int, k: int, weights: Tensor, distinct: bool) -> Tensor:
    """One of V options for each object, (N, K); all different within a scene where asked."""
    if not distinct:
        edges = (weights / weights.sum()).cumsum(0)[:-1]
        return torch.bucketize(uniform(seed, kind, n, k), edges, right=True)
    if k > len(weights):
        raise ValueError(f"distinct {kind}: {k} objects need as many values, there are {len(weights)}")
    # Exponential race (Efraimidis and Spirakis): weighted drawing without replacement.
    race = -torch.log1p(-uniform(seed, kind, n, len(weights))) / weights
    return race.argsort(1)[:, :k]


def _bond(u: Tensor, source: Tensor, options: int, probability: float) -> Tensor:
    """The source's partner (source modulo the number of options) with this probability, else any other option."""
    partner = source % options
    other = (partner + 1 + (u[..., 1] * (options - 1)).long()) % options
    return torch.where(u[..., 0] < probability, partner, other)


def _place(u: Tensor, extent: Tensor, present: Tensor, pixels: int, overlap: float) -> Tensor:
    """Middles (N, K, 2) inside the frame, one object after the other, from candidates u (N, K, T, 2).

    A candidate has room if its rectangle, shrunk by the factor 1 - overlap about its middle, is clear of those of the
    objects before it (shrunk likewise); without such a candidate the roomiest one is taken.
    """
    low = extent.clamp(max=pixels / 2)[:, :, None]
    candidates = low + u * (pixels - 2 * low)
    placed = candidates[:, :, 0].clone()
    for k in range(1, u.shape[1]):
        apart = (candidates[:, k, :, None] - placed[:, None, :k]).abs() / (
            extent[:, None, k, None] + extent[:, None, :k]
        )
        room = apart.amax(-1).masked_fill(~present[:, None, :k], torch.inf).amin(-1)
        first = torch.where(room.amax(1) >= 1 - overlap, (room >= 1 - overlap).int().argmax(1), room.argmax(1))
        placed[:, k] = candidates[:, k].gather(1, first[:, None, None].expand(-1, 1, 2))[:, 0]
    return placed


def sample_factors(
    n: int,
    seed: int = 0,
    *,
    pixels: int = 32,
    objects: int | tuple[int, int] = (1, 3),
    shapes: int | Sequence[str] = 6,
    colours: int | Sequence[str] = 6,
    textures: int | Sequence[str] = 1,
    backgrounds: int | Sequence[str] = 1,
    classes: Sequence[Sequence[str]] | None = None,
    class_weights: Sequence[float] | None = None,
    distinct: Sequence[str] = (),
    spurious: tuple[str, str, float] | None = None,
    sides: Sequence[tuple[float, float]] | None = None,
    aspect: tuple[float, float] = (1.0, 1.0),
    rotation: float = 0.15,
    period: tuple[float, float] | None = None,
    overlap: float = 0.25,
    tint: float = 0.04,
) -> Factors:
    """Draw the factors of scenes; the options are those of `lib.data.scenes.scenes`, which paints them.

    Args:
        n: number of scenes N.
        seed: not negative.
        pixels: height and width of the images.
        objects: number of objects, or (least, most), drawn uniformly; K is the most.
        shapes: words of `SHAPES`, or how many of the first ones; drawn uniformly and independently, as are
        colours: words of `COLOURS`, likewise;
        textures: words of `TEXTURES`, likewise;
        backgrounds: words of `BACKGROUNDS`, likewise.
        classes: what the objects are, as words: ``[("red", "circle"), ("blue", "star")]``. All classes name the same
            attributes, the others are drawn as above; `label` is the class. Without: the classes are the shapes.
        class_weights: relative frequencies of the classes, positive; uniform without.
        distinct: attributes ("shape", "colour", "texture", "class") in which the objects of a scene all differ.
        spurious: (source, target, probability), e.g. ("shape", "background", 0.95): with this probability the target
            takes the value that belongs to the source's (i-th value to i-th value, around again when they run out),
            else uniformly one of the others, so 0 reverses the bond. Source: "shape", "colour", "texture" or "class";
            target: "background" (of the first object), "shape", "colour" or "texture" (of each object).
        sides: range of the objects' sides in pixels for each size word, one range ("medium"), two ("small", "large")
            or three; log-uniform within a range, each range as often as the others.
            Default: small 0.20 to 0.27 and large 0.36 to 0.46 of the image.
        aspect: range of width over height, log-uniform.
        rotation: angles are uniform in [-rotation, rotation] radians.
        period: range of the texture's period in pixels, log-uniform; default an eighth of the image, at least 3.
        overlap: 0: the objects' upright boxes do not meet (where there is room), 1: objects lie anywhere.
        tint: colours depart from the palette by up to this in each channel.

    Returns:
        The factors; objects lie within the frame (a larger one in its middle), their order and depth are random.

    Raises:
        ValueError: an option out of its range, an unknown word, options that contradict each other.
    """
    least, most = (objects, objects) if isinstance(objects, int) else objects
    if n < 0 or seed < 0 or pixels < 4 or not 0 <= least <= most:
        raise ValueError(
            "n and seed not negative, pixels at least 4, 0 <= least <= most objects; "
            f"got n={n}, seed={seed}, pixels={pixels}, objects={objects}"
        )
    if not 0 <= overlap <= 1 or not 0 <= tint <= 1 or rotation < 0:
        raise ValueError(f"overlap and tint in [0, 1], rotation not negative; got {overlap}, {tint}, {rotation}")
    ranges = sides if sides is not None else ((0.20 * pixels, 0.27 * pixels), (0.36 * pixels, 0.46 * pixels))
    if not 1 <= len(ranges) <= 3:
        raise ValueError(f"sides: one to three ranges, got {len(ranges)}")
    # Each attribute is a rank (which of its options) and a code for every option (its place in the vocabulary).
    codes = {
        "shape": _codes("shapes", shapes, SHAPES),
        "colour": _codes("colours", colours, COLOURS),
        "texture": _codes("textures", textures, TEXTURES),
        "size": torch.tensor({1: [1], 2: [0, 2], 3: [0, 1, 2]}[len(ranges)]),
        "background": _codes("backgrounds", backgrounds, BACKGROUNDS),
    }
    names = tuple(SHAPES[i] for i in codes["shape"])
    fixed: set[str] = set()
    which_range = torch.full((3,), -1).scatter(0, codes["size"], torch.arange(len(ranges)))
    if classes is not None:
        table, names = _class_table(classes)
        codes, fixed = codes | table, set(table)
        if (which_range[codes["size"]] < 0).any():
            raise ValueError("classes: a size word without its range in sides")
    elif class_weights is not None:
        raise ValueError("class_weights: only with classes")
    ranks = _attributes(n, seed, most, codes, fixed, len(names), class_weights, distinct)
    if spurious is not None:
        _apply_bond(seed, spurious, ranks, codes, fixed | set(distinct))
        if not fixed:
            ranks["class"] = ranks["shape"]
    value = {kind: codes[kind][ranks[kind]] for kind in codes}

    def spread(kind: str, span: tuple[float, float]) -> Tensor:
        low, high = (math.log(end) for end in _span(kind, span))
        return (low + (high - low) * uniform(seed, kind, n, most)).exp()

    bounds = torch.tensor([_span("sides", span) for span in ranges], dtype=torch.float64).log()
    low, high = bounds[which_range[value["size"]]].unbind(-1)
    side = (low + (high - low) * uniform(seed, "side", n, most)).exp()
    ratio = spread("aspect", aspect)
    angle = rotation * (2 * uniform(seed, "angle", n, most) - 1)
    count = least + (uniform(seed, "count", n) * (most - least + 1)).long()
    present = torch.arange(most) < count[:, None]
    spots = uniform(seed, "position", n, most, _TRIES, 2)
    base = 0.38 + 0.24 * uniform(seed, "ground", n, 1) + 0.08 * (uniform(seed, "ground tint", n, 3) - 0.5)
    floats = {
        "side": side,
        "aspect": ratio,
        "angle": angle,
        "period": spread("period", period or (max(3.0, pixels / 8),) * 2),
        "position": _place(spots, half_extent(side, ratio, angle), present, pixels, overlap),
        "velocity": torch.zeros(n, most, 2),
        "depth": uniform(seed, "depth", n, most),
        "tint": tint * (2 * uniform(seed, "tint", n, most, 3) - 1),
        "ground": torch.stack([base, base + torch.where(base.mean(1, keepdim=True) < 0.5, 0.2, -0.2)], 1),
        "shift": pixels * uniform(seed, "shift", n, 2),
    }
    return Factors(
        pixels=pixels,
        class_names=names,
        present=present,
        label=ranks["class"],
        **{kind: codes_ for kind, codes_ in value.items() if kind != "class"},
        **{name: number.float() for name, number in floats.items()},
    )


def _attributes(
    n: int,
    seed: int,
    k: int,
    codes: dict[str, Tensor],
    fixed: set[str],
    classes: int,
    class_weights: Sequence[float] | None,
    distinct: Sequence[str],
) -> dict[str, Tensor]:
    """Ranks (N, K) of every attribute and of the class, (N,) of the background."""
    allowed = ({"shape", "colour", "texture"} - fixed) | ({"class"} if fixed else set())
    if bad := sorted(set(distinct) - allowed):
        raise ValueError(f"distinct: out of {', '.join(sorted(allowed))}; got {', '.join(bad)}")
    weights = torch.tensor(class_weights or [1.0] * classes, dtype=torch.float64)
    if len(weights) != classes or not bool((weights > 0).all()) or not bool(weights.isfinite().all()):
        raise ValueError(f"class_weights: {classes} positive numbers, got {class_weights}")
    ranks = {}
    for kind in ("shape", "colour", "texture", "size"):
        if kind not in fixed:
            ranks[kind] = _ranks(seed, kind, n, k, torch.ones(len(codes[kind])).double(), kind in distinct)
    ranks["class"] = _ranks(seed, "class", n, k, weights, "class" in distinct) if fixed else ranks["shape"]
    ranks |= dict.fromkeys(fixed, ranks["class"])
    ranks["background"] = (uniform(seed, "background", n) * len(codes["background"])).long()
    return ranks


def _apply_bond(
    seed: int, bond: tuple[str, str, float], ranks: dict[str, Tensor], codes: dict[str, Tensor], taken: set[str]
) -> None:
    """Replace the target's ranks by those bound to the source's."""
    source, target, probability = bond
    targets = {"background", "shape", "colour", "texture"} - taken
    if source not in {"class", "shape", "colour", "texture"} or target not in targets or source == target:
        raise ValueError(f"spurious: from class, shape, colour or texture to another of {sorted(targets)}; got {bond}")
    options = len(codes[target])
    if options < 2 or not 0 <= probability <= 1:
        raise ValueError(f"spurious: {target} needs two values or more, and a probability in [0, 1]; got {bond}")
    n, k = ranks["class"].shape
    if target != "background":
        ranks[target] = _bond(uniform(seed, "bond", n, k, 2), ranks[source], options, probability)
    elif k:
        ranks[target] = _bond(uniform(seed, "bond", n, 2), ranks[source][:, 0], options, probability)


def split_base_novel(
    classes: Sequence[Sequence[str]], novel: int, seed: int = 0
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Part classes into base and novel ones such that every word of a novel class is seen in some base class.

    Args:
        classes: tuples of words, as for `sample_factors`.
        novel: how many classes become novel.
        seed: of the order in which classes are tried.

    Returns:
        Base and novel classes, each in the order of `classes`.

    Raises:
        ValueError: not so many classes can be spared.
    """
    rows = [tuple(words) for words in classes]
    uses = Counter(word for words in rows for word in words)
    chosen = set[int]()
    for i in np.random.default_rng((seed, zlib.crc32(b"novel"))).permutation(len(rows)).tolist():
        if len(chosen) < novel and all(uses[word] > 1 for word in rows[i]):
            chosen.add(i)
            uses.subtract(rows[i])
    if novel < 0 or len(chosen) < novel:
        raise ValueError(f"novel: {len(chosen)} of {len(rows)} classes can be spared, {novel} asked for")
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]
