import re
import time
from itertools import permutations, product

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from scipy import stats

from lib.data import _shapes, scene_sampling
from lib.data import scenes as scenes_module
from lib.data.scene_factors import BACKGROUNDS, COLOURS, PALETTE, SHAPES, SIZES, TEXTURES, Factors
from lib.data.scene_relations import POSITIONS, RELATIONS, places, relations
from lib.data.scene_sampling import sample_factors, split_base_novel
from lib.data.scene_text import LEXICON, TEMPLATES, VOCABULARY, captions, captions_hold, edit_captions, encode_captions
from lib.data.scenes import Scenes, contact_sheet, mask_boxes, paint, pixel_map, presence, redraw, scenes, videos

RICH = {"shapes": 12, "colours": 8, "textures": 6, "backgrounds": 6, "objects": (0, 4)}
SIDEWAYS = ("left of", "right of", "above", "below")


@pytest.fixture(scope="module")
def world() -> Scenes:
    return scenes(200, seed=3, overlap=0.6, **RICH)


def single(n: int = 1, pixels: int = 24, **options) -> Scenes:
    """One upright, untinted object in the middle of a plain scene."""
    base = scenes(n, seed=0, pixels=pixels, objects=1, rotation=0, tint=0, **options)
    return redraw(base, position=torch.full((n, 1, 2), pixels / 2))


def same(a: Factors, b: Factors) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True) if torch.is_tensor(x))


# Pictures


def test_value_by_hand_square():
    square = redraw(
        single(shapes=("square",), colours=("yellow",)),
        side=torch.tensor([[8.0]]),
        position=torch.tensor([[[10.0, 13.5]]]),
    )
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[10:17, 6:14] = True  # rows with centre in (9.5, 17.5), where 9.5 and 17.5 themselves are on the edge
    assert torch.equal(square.masks[0, 0], mask)
    assert square.boxes.tolist() == [[[6, 10, 14, 17]]]
    assert torch.allclose(square.images[0, :, 12, 9], PALETTE[COLOURS.index("yellow")])
    # The edges at 9.5 and 17.5 cut pixels in halves: half object, half background.
    ground, ink = square.images[0, :, 0, 0], PALETTE[COLOURS.index("yellow")]
    assert torch.allclose(square.images[0, :, 9, 9], (ground + ink) / 2, atol=1e-6)
    assert torch.equal(square.images[0, :, 8, 9], ground)


def test_value_by_hand_turn_and_keypoints():
    """A clockwise quarter turn sends an arrow's tip from the top to the right."""
    arrow = redraw(single(shapes=("arrow",)), side=torch.tensor([[10.0]]), angle=torch.tensor([[torch.pi / 2]]))
    assert torch.allclose(arrow.keypoints[0, 0, 0], torch.tensor([12 + 0.7 * 5, 12]), atol=1e-5)
    columns = arrow.amodal[0, 0].sum(0)
    assert columns.nonzero().flatten().tolist() == list(range(7, 16))  # the tip is too thin for the last
    assert columns[12:14].min() > columns[7:11].max()  # the head is on the right of the shaft


def test_value_by_hand_aspect():
    wide = redraw(single(shapes=("square",)), side=torch.tensor([[8.0]]), aspect=torch.tensor([[4.0]]))
    assert wide.boxes.tolist() == [[[4, 10, 20, 14]]]


@pytest.mark.parametrize("name", SHAPES)
def test_value_by_hand_outline(name):
    """Coverage sums to the shape's area, the outline fills the square, the keypoints lie inside."""
    code = torch.tensor([SHAPES.index(name)])
    ticks = (torch.arange(400) + 0.5) / 200 - 1
    u, v = ticks.expand(400, 400)[None].contiguous(), ticks[:, None].expand(400, 400)[None].contiguous()
    distance = _shapes.signed_distance(code, u, v, torch.tensor([0.01]))[0]
    inside = distance < 0
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    assert max(len(rows), len(columns)) >= 370
    assert abs(rows.min() + rows.max() - 399) <= 4
    assert abs(columns.min() + columns.max() - 399) <= 4
    area = inside.float().mean() * 200**2
    step = 1 / 200
    soft = (0.5 - distance / step / 4).clamp(0, 1).mean() * 200**2  # edges four samples wide
    assert float(soft) == pytest.approx(float(area), rel=0.03)
    marks = torch.tensor(_shapes.LANDMARKS[name])
    at = _shapes.signed_distance(code, marks[None, :, :1], marks[None, :, 1:], torch.tensor([0.01]))
    assert (at < -0.03).all()
    top, right, bottom, left = marks
    assert top[1] < min(left[1], right[1]) <= max(left[1], right[1]) <= bottom[1] + 1e-6
    assert left[0] < min(top[0], bottom[0]) or name == "moon"
    if name in _shapes.POLYGONS:  # independent: containment by matplotlib, distance to points along the edges
        corners = np.array(_shapes.POLYGONS[name])
        points = np.stack([u[0, ::20, ::20], v[0, ::20, ::20]], -1).reshape(-1, 2)
        assert np.array_equal(Outline(corners).contains_points(points), inside[::20, ::20].flatten().numpy())
        share = np.linspace(0, 1, 400, endpoint=False)[:, None]
        edge = np.concatenate([a + share * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)])
        nearest = np.linalg.norm(points[:, None] - edge[None], axis=-1).min(1)
        assert np.allclose(distance[::20, ::20].abs().flatten(), nearest, atol=6e-3)


@pytest.mark.parametrize("texture", TEXTURES)
def test_value_by_hand_texture(texture):
    """On a large square: the period along a row, and the two tones."""
    s = redraw(
        single(pixels=64, shapes=("square",), colours=("red",), textures=(texture,)),
        side=torch.tensor([[48.0]]),
        period=torch.tensor([[8.0]]),
    )
    inside = s.images[0, :, 9:55, 9:55]
    first = PALETTE[0]
    second = 0.3 * first + 0.7  # red is dark, its second tone is pale
    share = (inside[1] - first[1]) / (second[1] - first[1])
    assert torch.allclose(inside, first[:, None, None] + share * (second - first)[:, None, None], atol=1e-5)
    assert share.min() > -1e-5
    assert share.max() < 1 + 1e-5
    middle = share[:, 23 - 16 : 23 + 16].numpy()
    frequency = np.abs(np.fft.rfft(middle - middle.mean(1, keepdims=True), axis=1)).mean(0).argmax()
    if texture == "plain":
        assert share.abs().max() < 1e-5
    elif texture == "shaded":
        assert share[0, 0] < 0.2 < 0.8 < share[-1, -1]
    elif texture != "ringed":
        assert frequency == 4  # periods in 32 pixels
    else:
        along = share[22, 23:].numpy()
        assert np.abs(np.fft.rfft(along[:16] - along[:16].mean())).argmax() == 2
    if texture in ("striped", "checked"):
        assert 0.4 < share.mean() < 0.6


def test_invariance_boxes_are_extents_of_visible_masks(world):
    for mask, box, there in zip(
        world.masks.flatten(0, 1), world.boxes.flatten(0, 1), world.present.flatten(), strict=True
    ):
        rows, columns = np.nonzero(mask.numpy())
        if len(rows):
            assert there
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        else:
            assert box.tolist() == [0, 0, 0, 0]


def test_invariance_nearest_object_is_seen(world):
    depth = torch.where(world.amodal, world.depth[..., None, None], torch.inf)
    nearest = depth.argmin(1)
    some = world.amodal.any(1)
    for k in range(world.masks.shape[1]):
        assert torch.equal(world.masks[:, k], (nearest == k) & some)
    assert (world.masks.sum(1) <= 1).all()
    assert not world.amodal[~world.present].any()
    share = world.masks.sum((2, 3)) / world.amodal.sum((2, 3))
    assert torch.allclose(world.visible[world.present], share[world.present])
    assert (world.visible[world.present] < 1).any()  # the options do make objects hide each other
    assert (world.visible[~world.present] == 0).all()


@pytest.mark.parametrize("textures", [("plain",), ("striped", "dotted", "checked", "ringed", "shaded")])
def test_invariance_pixels_have_the_objects_colour(textures):
    s = scenes(60, seed=5, pixels=48, shapes=("circle", "square", "diamond"), textures=textures, tint=0, colours=8)
    other = torch.nn.functional.pad((~s.masks).float(), (1, 1, 1, 1), value=1)
    core = 1 - torch.nn.functional.max_pool2d(other, 3, 1)  # pixels whose neighbours all belong to the object
    checked = 0
    for i, k in s.present.nonzero().tolist():
        pixels = s.images[i].permute(1, 2, 0)[core[i, k] > 0]
        first = PALETTE[s.colour[i, k]]
        pale = first @ torch.tensor([0.3, 0.6, 0.1]) <= 0.45
        second = 0.3 * first + 0.7 if pale else 0.35 * first
        share = ((pixels - first) @ (second - first)) / (second - first).square().sum()
        assert torch.allclose(pixels, first + share[:, None] * (second - first), atol=1e-5)
        assert ((share > -1e-5) & (share < 1 + 1e-5)).all()
        if textures == ("plain",):
            assert share.abs().max() < 1e-5
        checked += len(pixels)
    assert checked > 5000


def test_invariance_background_shows_where_nothing_is(world):
    empty = redraw(world, present=torch.zeros_like(world.present))
    clear = ~torch.nn.functional.max_pool2d(world.amodal.any(1, keepdim=True).float(), 5, 1, 2).bool()
    clear = clear.expand_as(world.images)
    assert torch.equal(world.images[clear], empty.images[clear])
    flat = empty.background == BACKGROUNDS.index("plain")
    varies = empty.images.flatten(2).std(-1).amax(1)
    assert (varies[flat] < 1e-6).all()
    assert (varies[~flat] > 0.02).all()


def test_limit_smallest_objects_have_pixels():
    for seed in range(5):
        s = scenes(100, seed=seed, objects=1, shapes=12, sides=((3.0, 3.5),), rotation=4)
        assert s.amodal.sum((2, 3)).min() >= 1


def test_invariance_keypoints():
    s = scenes(300, seed=2, shapes=12, sides=((8, 14),), rotation=4, aspect=(0.7, 1.4), objects=(1, 3), overlap=0.8)
    column, row = s.keypoints.floor().long().unbind(-1)
    inside = s.amodal.flatten(2).gather(2, row * s.pixels + column)
    assert inside[s.present].float().mean() > 0.99  # a mark may round to the pixel beside a thin part
    for i, k in s.present.nonzero()[:100].tolist():
        for p in range(4):
            x, y = s.keypoints[i, k, p]
            assert s.keypoints_visible[i, k, p] == s.masks[i, k, int(y), int(x)]
    assert not s.keypoints_visible[s.present].all()


# Sampling


def test_invariance_scene_does_not_depend_on_number(world):
    assert same(world[:7], scenes(7, seed=3, overlap=0.6, **RICH))
    assert not torch.equal(world.images[:7], scenes(7, seed=4, overlap=0.6, **RICH).images)
    a = scenes(20, seed=1, distinct=("colour",), classes=[("circle",), ("star",)], class_weights=[1, 3])
    b = scenes(90, seed=1, distinct=("colour",), classes=[("circle",), ("star",)], class_weights=[1, 3])
    assert same(a, b[:20])


def test_invariance_chunks(world, monkeypatch):
    monkeypatch.setattr(scenes_module, "_CHUNK", 5 * 4 * 32 * 32)
    assert same(world, scenes(200, seed=3, overlap=0.6, **RICH))


def test_invariance_one_option_changes_one_factor():
    a, b = scenes(50, seed=1), scenes(50, seed=1, backgrounds=6, textures=6)
    for name in ("position", "shape", "colour", "side", "depth", "present"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(a.background, b.background)


def test_invariance_streams_are_independent():
    """No two attributes of 4,000 objects are correlated: no two purposes share their random numbers."""
    f = sample_factors(4000, seed=0, objects=1, shapes=12, colours=8, textures=6, backgrounds=6)
    columns = [f.shape, f.colour, f.texture, f.size, f.background[:, None], f.angle, f.depth, f.position[..., 0]]
    columns += [f.position[..., 1], f.tint[..., 0], f.shift[:, :1], f.side * (f.size == 0)]
    table = torch.cat([c.double() for c in columns], 1).T
    off = torch.corrcoef(table)[:11, :11] - torch.eye(11)
    assert off.abs().max() < 5 / 4000**0.5


def test_limit_uniform_attributes_and_sides():
    f = sample_factors(6000, seed=0, objects=1, sides=((3, 20),))
    assert stats.chisquare(f.shape.flatten().bincount(minlength=6).numpy()).pvalue > 1e-3
    assert stats.chisquare(f.colour.flatten().bincount(minlength=6).numpy()).pvalue > 1e-3
    assert (f.size == SIZES.index("medium")).all()
    assert stats.kstest((f.side.flatten() / 3).log() / np.log(20 / 3), "uniform").pvalue > 1e-3
    two = sample_factors(2000, seed=0, objects=1, pixels=32)
    assert set(two.size.flatten().tolist()) == {0, 2}
    assert two.side[two.size == 0].max() < two.side[two.size == 2].min()


def test_invariance_objects_lie_in_the_frame_and_apart():
    options = {"rotation": 2, "aspect": (0.6, 1.6), "objects": (2, 3), "shapes": 12}
    f = sample_factors(500, seed=0, pixels=48, overlap=0, sides=((4, 10),), **options)
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, -1], [-1, 1]])
    u = corners[:, 0] * (f.side / 2 * f.aspect.sqrt())[..., None]
    v = corners[:, 1] * (f.side / 2 / f.aspect.sqrt())[..., None]
    c, s = f.angle.cos()[..., None], f.angle.sin()[..., None]
    x, y = c * u - s * v + f.position[..., :1], s * u + c * v + f.position[..., 1:]
    low, high = torch.stack([x.amin(-1), y.amin(-1)], -1), torch.stack([x.amax(-1), y.amax(-1)], -1)
    assert low[f.present].min() > -1e-3
    assert high[f.present].max() < 48 + 1e-3
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = f.present[:, i] & f.present[:, j]
        meet = ((low[:, i] < high[:, j] - 1e-4) & (low[:, j] < high[:, i] - 1e-4)).all(-1)
        assert not meet[both].any()
    free = scenes(500, seed=0, overlap=1, objects=3, sides=((10, 14),))
    assert (free.visible < 0.5).any()


def test_value_by_hand_classes():
    classes = [("red", "circle"), ("star", "blue"), ("red", "star")]
    s = scenes(3000, seed=0, classes=classes, class_weights=[6, 3, 1], textures=6)
    assert s.class_names == ("red circle", "blue star", "red star")
    counts = s.label[s.present].bincount().numpy()
    assert stats.chisquare(counts, np.array([0.6, 0.3, 0.1]) * counts.sum()).pvalue > 1e-3
    for label, (colour, shape) in enumerate((("red", "circle"), ("blue", "star"), ("red", "star"))):
        rows = s.label == label
        assert (s.colour[rows] == COLOURS.index(colour)).all()
        assert (s.shape[rows] == SHAPES.index(shape)).all()
    assert len(s.texture.unique()) == 6
    sized = scenes(50, seed=0, classes=[("small", "ring"), ("large", "ring")])
    assert ((sized.side > 9) == (sized.label == 1)).all()
    assert scenes(3, shapes=("sun", "bar")).class_names == ("sun", "bar")


@pytest.mark.parametrize("kind", ["shape", "colour", "class"])
def test_invariance_distinct(kind):
    classes = list(product(("red", "blue"), ("circle", "star"))) if kind == "class" else None
    weights = [8, 4, 2, 1] if kind == "class" else None
    f = sample_factors(2000, seed=0, objects=3, distinct=(kind,), classes=classes, class_weights=weights)
    codes = f.label if kind == "class" else getattr(f, kind)
    assert (codes.sort(1).values.diff(dim=1) > 0).all()
    if weights:  # the first of a race has the plain probabilities
        first = codes[:, 0].bincount().numpy()
        assert stats.chisquare(first, np.array(weights) / 15 * 2000).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.95, 0.5, 0.0])
def test_limit_spurious_background(probability):
    grounds = ("striped", "dotted", "cloudy")
    f = sample_factors(4000, seed=1, shapes=("circle", "star", "cross"), backgrounds=grounds, objects=(1, 2))
    g = sample_factors(
        4000,
        seed=1,
        shapes=("circle", "star", "cross"),
        backgrounds=grounds,
        objects=(1, 2),
        spurious=("shape", "background", probability),
    )
    assert torch.equal(f.shape, g.shape)
    ground = torch.tensor([BACKGROUNDS.index(name) for name in grounds])
    partner = ground[g.label[:, 0]]
    hits = int((g.background == partner).sum())
    assert stats.binomtest(hits, 4000, probability).pvalue > 1e-3
    for label, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):  # the others are equally frequent
        rows = g.background[g.label[:, 0] == label]
        counts = [int((rows == ground[o]).sum()) for o in others]
        assert stats.binomtest(counts[0], sum(counts)).pvalue > 1e-3


def test_limit_spurious_colour():
    g = sample_factors(3000, seed=1, shapes=3, colours=("red", "blue"), spurious=("shape", "colour", 0.9))
    partner = torch.tensor([COLOURS.index("red"), COLOURS.index("blue")])[g.shape % 2]
    hits = int((g.colour == partner).sum())
    assert stats.binomtest(hits, g.shape.numel(), 0.9).pvalue > 1e-3
    h = sample_factors(500, seed=1, colours=2, shapes=2, spurious=("colour", "shape", 1.0))
    assert torch.equal(h.label, h.shape)
    assert torch.equal(h.shape, h.colour)
    c = sample_factors(
        500, classes=[("red", "star"), ("blue", "ring")], backgrounds=2, spurious=("class", "background", 1)
    )
    assert torch.equal(c.background, c.label[:, 0])


def test_invariance_split_base_novel():
    classes = list(product(COLOURS[:4], SHAPES[:3]))
    for seed in range(5):
        base, novel = split_base_novel(classes, 4, seed)
        assert len(novel) == 4
        assert not set(base) & set(novel)
        assert sorted(base + novel) == sorted(classes)
        seen = {word for words in base for word in words}
        assert all(word in seen for words in novel for word in words)
    assert split_base_novel(classes, 4, 0) == split_base_novel(classes, 4, 0)
    assert split_base_novel(classes, 4, 0) != split_base_novel(classes, 4, 1)
    a, b = scenes(60, classes=base), scenes(60, classes=novel)
    pairs = [set(zip(s.colour[s.present].tolist(), s.shape[s.present].tolist(), strict=True)) for s in (a, b)]
    assert not pairs[0] & pairs[1]
    with pytest.raises(ValueError, match="can be spared"):
        split_base_novel([("red", "circle"), ("blue", "star")], 1)


# Changes, maps, videos


def test_invariance_redraw(world):
    assert same(world, redraw(world))
    blue = redraw(world, colour=torch.full_like(world.colour, COLOURS.index("blue")))
    assert torch.equal(blue.masks, world.masks)
    rows = (world.present & (world.colour != COLOURS.index("blue")) & (world.visible > 0.5)).any(1)
    assert (blue.images != world.images).flatten(1).any(1)[rows].all()
    assert (blue.images == world.images).flatten(1).all(1)[~world.present.any(1)].all()
    canvas = torch.rand(200, 3, 32, 32)
    over = redraw(world, canvas=canvas)
    clear = ~torch.nn.functional.max_pool2d(world.amodal.any(1, keepdim=True).float(), 5, 1, 2).bool()
    assert torch.equal(over.images[clear.expand_as(canvas)], canvas[clear.expand_as(canvas)])
    hidden = redraw(
        world,
        tones=world.ground[:, None].expand(-1, 4, -1, -1),
        background=torch.zeros(200),
        texture=torch.zeros(200, 4),
    )
    assert hidden.images.flatten(2).std(-1).max() < 1e-6  # a plain object in the background's own first tone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": torch.zeros(200, 4)}, "no such factor: color"),
        ({"colour": torch.zeros(200, 3)}, "colour has shape"),
        ({"colour": torch.full((200, 4), 8)}, "colour: positions in 0..7"),
        ({"canvas": torch.zeros(2, 3, 32, 32)}, "canvas: shape"),
        ({"tones": torch.zeros(2, 3)}, "tones: shape"),
    ],
)
def test_degenerate_redraw(world, changes, message):
    with pytest.raises(ValueError, match=message):
        redraw(world, **changes)


def test_value_by_hand_maps(world):
    depth = pixel_map(world, world.depth, background=2.0)
    labels = pixel_map(world, world.label + 1)
    assert labels.dtype == torch.int64
    for i in range(0, 200, 17):
        for y, x in product(range(0, 32, 5), range(0, 32, 5)):
            owners = world.masks[i, :, y, x].nonzero().flatten().tolist()
            assert len(owners) <= 1
            assert depth[i, y, x] == (world.depth[i, owners[0]] if owners else 2.0)
            assert labels[i, y, x] == (world.label[i, owners[0]] + 1 if owners else 0)
    with pytest.raises(ValueError, match="pixel_map"):
        pixel_map(world, world.depth[:3])


def test_value_by_hand_presence(world):
    hits = presence(world, "colour")
    for row, codes, there in zip(hits.tolist(), world.colour.tolist(), world.present.tolist(), strict=True):
        assert row == [any(c == v and t for c, t in zip(codes, there, strict=True)) for v in range(len(COLOURS))]
    with pytest.raises(ValueError, match="presence"):
        presence(world, "depth")


def test_value_by_hand_mask_boxes():
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 1:4, 2] = mask[0, 3, 5] = True
    assert mask_boxes(mask).tolist() == [[2, 1, 6, 4], [0, 0, 0, 0]]


def test_invariance_videos():
    n, frames = 30, 10
    clips = videos(n, frames, seed=2, speed=(0.5, 2.5), spin=0.2, overlap=1, objects=3, shapes=12)
    assert len(clips) == n * frames
    for name in ("shape", "colour", "texture", "side", "depth", "present", "tint", "label"):  # a slot is an identity
        value = getattr(clips, name).unflatten(0, (n, frames))
        assert (value == value[:, :1]).all()
    place, speed = clips.position.unflatten(0, (n, frames)), clips.velocity.unflatten(0, (n, frames))
    straight = (speed[:, 1:] == speed[:, :-1]).all(-1)
    step = place[:, 1:] - place[:, :-1]
    still = clips.angle.unflatten(0, (n, frames)).diff(dim=1)
    assert still.abs().max() <= 0.2 + 1e-5
    assert straight.float().mean() > 0.6
    calm = videos(n, frames, seed=2, speed=(0.5, 2.5), overlap=1, objects=3)
    place, speed = calm.position.unflatten(0, (n, frames)), calm.velocity.unflatten(0, (n, frames))
    straight = (speed[:, 1:] == speed[:, :-1]).all(-1)
    step = place[:, 1:] - place[:, :-1]
    assert torch.allclose(step[straight], speed[:, :-1][straight], atol=1e-4)
    assert not straight.all()
    length = speed.norm(dim=-1)
    assert length.min() > 0.5 - 1e-4
    assert length.max() < 2.5 + 1e-4
    assert torch.allclose(length, length[:, :1].expand_as(length), atol=1e-4)
    middles = (mask_boxes(calm.amodal)[..., :2] + mask_boxes(calm.amodal)[..., 2:]) / 2
    symmetric = torch.isin(calm.shape, torch.tensor([SHAPES.index(s) for s in ("circle", "square", "cross", "ring")]))
    assert (middles - calm.position).abs()[symmetric].max() < 1.1  # the painted object is where the factors say
    assert (calm.boxes[..., :2] >= 0).all()
    assert (calm.visible.unflatten(0, (n, frames)).amin(1) < calm.visible.unflatten(0, (n, frames)).amax(1)).any()


def test_value_by_hand_headings():
    clips = videos(40, 3, seed=0, headings=4, speed=(1, 1), objects=1, sides=((6, 6),))
    first = clips.velocity.unflatten(0, (40, 3))[:, 0, 0].round().abs()
    assert (first.sum(-1) == 1).all()
    assert same(videos(2, 3, seed=0, headings=4), videos(5, 3, seed=0, headings=4)[:6])
    resting = videos(4, 3, speed=(0, 0))
    assert torch.equal(resting.images[0], resting.images[2])


@pytest.mark.parametrize("options", [{"frames": 0}, {"speed": (2, 1)}, {"headings": 0}])
def test_degenerate_videos(options):
    with pytest.raises(ValueError, match="videos"):
        videos(2, **options)


# Words


def parse(text: str):
    """Independent reading of a caption: phrases, relation, background."""
    for frame in sorted(TEMPLATES, key=len, reverse=True):
        start = frame.replace("{}", "")
        if start and text.startswith(start):
            text = text[len(start) :]
    ground = re.search(r" on a (\w+) background$", text)
    text = text[: ground.start()] if ground else text
    found = re.search(rf" ({'|'.join(sorted(RELATIONS, key=len, reverse=True))}) an? ", text)
    relation = found.group(1) if found else None
    if found:
        text = text[: found.start(1)] + "and" + text[found.end(1) :]
    phrases = []
    for part in [] if text == "nothing" else text.split(" and "):
        match = re.fullmatch(r"(a|an|the) (.*?)(?: at the ([a-z ]+))?", part)
        words = match.group(2).split()
        assert (match.group(1) == "an") == (words[0][0] in "aeiou") or match.group(1) == "the"
        assert words[-1] in (*SHAPES, "object")
        phrases.append((words, match.group(3)))
    return phrases, relation, ground and ground.group(1)


def related(s: Scenes, i: int, a: int, b: int, relation: str) -> bool:
    (xa, ya), (xb, yb) = s.position[i, a].tolist(), s.position[i, b].tolist()
    sideways = abs(xa - xb) >= abs(ya - yb)
    box = mask_boxes(s.amodal[i])
    overlap = bool((s.amodal[i, a] & s.amodal[i, b]).any())
    ya_xa, yb_xb = s.amodal[i, a].nonzero(), s.amodal[i, b].nonzero()
    near = (ya_xa[:, None] - yb_xb[None]).abs().amax(-1).min() <= 1 if len(ya_xa) and len(yb_xb) else False
    within = box[a, 0] >= box[b, 0] and box[a, 1] >= box[b, 1] and box[a, 2] <= box[b, 2] and box[a, 3] <= box[b, 3]
    truth = {
        "left of": sideways and xa < xb,
        "right of": sideways and xa > xb,
        "above": not sideways and ya < yb,
        "below": not sideways and ya > yb,
        "in front of": overlap and s.depth[i, a] < s.depth[i, b],
        "behind": overlap and s.depth[i, a] > s.depth[i, b],
        "larger than": s.side[i, a] >= 1.2 * s.side[i, b],
        "smaller than": s.side[i, b] >= 1.2 * s.side[i, a],
        "inside": bool(within) and box[a].tolist() != box[b].tolist(),
        "touching": bool(near),
        "of the same colour as": s.colour[i, a] == s.colour[i, b],
        "of the same shape as": s.shape[i, a] == s.shape[i, b],
    }
    return bool(truth[relation])


def true_of(text: str, s: Scenes, i: int) -> bool:
    phrases, relation, ground = parse(text)
    if ground and BACKGROUNDS[s.background[i]] != ground:
        return False

    def fits(k: int, words: list[str], place: str | None) -> bool:
        own = {SIZES[s.size[i, k]], TEXTURES[s.texture[i, k]], COLOURS[s.colour[i, k]], SHAPES[s.shape[i, k]], "object"}
        x, y = s.position[i, k].tolist()
        third = s.pixels / 3
        vertical = "top" if y < third else "bottom" if y >= 2 * third else ""
        across = "left" if x < third else "right" if x >= 2 * third else ""
        return set(words) <= own and place in (None, f"{vertical} {across}".strip() or "centre")

    there = s.present[i].nonzero().flatten().tolist()
    return any(
        all(fits(k, *phrase) for k, phrase in zip(slots, phrases, strict=True))
        and (relation is None or related(s, i, slots[0], slots[1], relation))
        for slots in permutations(there, len(phrases))
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attributes": ("size", "texture", "colour", "shape", "position"), "background": True},
        {"attributes": ("colour",), "relation": SIDEWAYS, "template": TEMPLATES[1]},
        {"relation": RELATIONS[::-1], "reverse": True, "background": True, "template": TEMPLATES[3]},
        {"attributes": ("texture", "shape", "position"), "relation": ("in front of", "behind", "touching")},
    ],
)
def test_invariance_captions_are_true(world, options):
    said = captions(world, **options)
    assert all(true_of(str(caption), world, i) for i, caption in enumerate(said))
    assert captions_hold(said, world).all()
    assert len({str(caption) for caption in said}) > 50
    for caption, there in zip(said, world.present.sum(1).tolist(), strict=True):
        assert len(caption.phrases) == there


@pytest.mark.parametrize("kinds", [("colour",), ("shape", "size"), ("position",), ("texture", "background")])
def test_invariance_edits_are_false(kinds):
    s = scenes(150, seed=8, shapes=4, colours=4, textures=4, backgrounds=4, objects=(1, 3))
    said = captions(s, ("size", "texture", "colour", "shape", "position"), background=True)
    wrong = edit_captions(said, s, kinds=kinds)
    for i, (old, new) in enumerate(zip(said, wrong, strict=True)):
        assert not true_of(str(new), s, i)
        a, b = str(old).replace(" an ", " a ").split(), str(new).replace(" an ", " a ").split()
        a[0] = b[0] = "a"
        assert len(a) == len(b)
        assert sum(x != y for x, y in zip(a, b, strict=True)) == 1
    assert not captions_hold(wrong, s).any()
    seen = {word for caption in said for word in str(caption).split()}
    assert {word for caption in wrong for word in str(caption).split()} <= seen
    again = edit_captions(said, s, kinds=kinds)
    assert wrong == again
    assert wrong != edit_captions(said, s, seed=1, kinds=kinds)


def test_invariance_relation_and_swap_edits():
    s = scenes(200, seed=8, objects=2, distinct=("colour", "shape"))
    said = captions(s, relation=SIDEWAYS)
    assert all(caption.relation for caption in said)
    for kinds in (("relation",), ("swap",)):
        wrong = edit_captions(said, s, kinds=kinds)
        assert not any(true_of(str(caption), s, i) for i, caption in enumerate(wrong))
    for old, new in zip(said, wrong, strict=True):  # swap: the same words in another order
        assert sorted(str(old).replace("an ", "a ").split()) == sorted(str(new).replace("an ", "a ").split())
    alike = redraw(s, colour=torch.zeros_like(s.colour), shape=torch.zeros_like(s.shape))
    with pytest.raises(ValueError, match="no false edit"):
        edit_captions(captions(alike), alike, kinds=("swap",))


def test_value_by_hand_caption_needs_an_object_for_each_phrase():
    """Two red circles cannot be claimed of one."""
    s = redraw(single(), colour=torch.zeros(1, 1), shape=torch.zeros(1, 1))
    (one,) = captions(s)
    assert str(one) == "a red circle"
    two = type(one)(one.phrases * 2)
    assert captions_hold([one], s).tolist() == [True]
    assert captions_hold([two], s).tolist() == [False]
    nothing = captions(redraw(s, present=torch.zeros(1, 1)), background=True)
    assert str(nothing[0]) == "nothing on a plain background"
    assert str(captions(s, ("size",), article="the")[0]).endswith(" object")
    assert str(captions(redraw(s, colour=torch.full((1, 1), 5)))[0]) == "an orange circle"


def test_value_by_hand_named():
    s = scenes(30, objects=3, distinct=("colour",))
    target = torch.arange(30) % 3
    said = captions(s, named=target[:, None], article="the")
    for i, caption in enumerate(said):
        assert caption.slots == (int(target[i]),)
        assert str(caption).startswith(f"the {COLOURS[s.colour[i, target[i]]]} ")


def test_invariance_relations(world):
    """Against definitions written out pair by pair."""
    holds = relations(world)
    for i in range(0, 200, 4):
        there = world.present[i].nonzero().flatten().tolist()
        for a, b in permutations(there, 2):
            expected = [related(world, i, a, b, name) for name in RELATIONS]
            assert holds[i, a, b].tolist() == expected
            assert sum(expected[:4]) == 1
    assert not holds[~world.present].any()
    assert not holds.transpose(1, 2)[~world.present].any()
    for there, back in (
        ("left of", "right of"),
        ("above", "below"),
        ("in front of", "behind"),
        ("larger than", "smaller than"),
    ):
        assert torch.equal(holds[..., RELATIONS.index(there)], holds[..., RELATIONS.index(back)].mT)
    assert all(holds[..., r].any() for r, name in enumerate(RELATIONS) if name != "inside")
    with pytest.raises(ValueError, match="ratio"):
        relations(world, ratio=1)


def test_value_by_hand_inside_and_touching():
    s = scenes(1, objects=2, shapes=("circle", "ring"), rotation=0)
    centre = torch.full((1, 2, 2), 16.0)
    s = redraw(s, shape=torch.tensor([[5, 0]]), position=centre, side=torch.tensor([[20.0, 6.0]]))
    holds = relations(s)[0, 1, 0]
    assert holds[RELATIONS.index("inside")]
    assert not holds[RELATIONS.index("touching")]  # the circle lies in the hole
    assert not holds[RELATIONS.index("in front of")]
    assert relations(s)[0, 0, 1, RELATIONS.index("larger than")]
    beside = redraw(
        s, shape=torch.tensor([[1, 1]]), side=torch.full((1, 2), 8.0), position=torch.tensor([[[8.0, 8], [16.0, 8]]])
    )
    assert relations(beside)[0, 0, 1, RELATIONS.index("touching")]
    apart = redraw(beside, position=torch.tensor([[[8.0, 8], [18.0, 8]]]))
    assert not relations(apart)[0, 0, 1, RELATIONS.index("touching")]


def test_value_by_hand_places():
    s = scenes(9, objects=1, pixels=30)
    where = torch.tensor([[x, y] for y in (5.0, 15, 25) for x in (5.0, 15, 25)])[:, None]
    assert places(redraw(s, position=where)).flatten().tolist() == list(range(9))
    assert POSITIONS[2] == "top right"


def test_value_by_hand_tokens(world):
    tokens = encode_captions(["a red circle", "a quux", ""], length=4)
    assert [VOCABULARY[t] for t in tokens[0]] == ["a", "red", "circle", "<pad>"]
    assert tokens[1].tolist()[1:] == [1, 0, 0]
    assert tokens[2].tolist() == [0, 0, 0, 0]
    said = captions(world, ("size", "texture", "colour", "shape", "position"), relation=RELATIONS, background=True)
    said += [c for t in TEMPLATES for c in captions(world[:5], template=t, article="the")]
    assert not (encode_captions(said) == 1).any()
    assert LEXICON["striped"] == "texture"
    assert LEXICON["star"] == "shape"
    with pytest.raises(ValueError, match="length"):
        encode_captions(["a red circle"], length=2)


# Limits of the options


def test_degenerate_counts():
    none = scenes(0)
    assert none.images.shape == (0, 3, 32, 32)
    empty = scenes(3, objects=0, backgrounds=6)
    assert empty.images.shape == (3, 3, 32, 32)
    assert empty.boxes.shape == (3, 0, 4)
    assert empty.keypoints_visible.shape == (3, 0, 4)
    assert relations(empty).shape == (3, 0, 0, len(RELATIONS))
    assert [str(c) for c in captions(empty)] == ["nothing"] * 3
    assert presence(empty, "shape").sum() == 0
    assert relations(none).shape[0] == 0
    one = scenes(1, seed=9, objects=(0, 2))
    assert len(one) == 1
    assert captions_hold(captions(one), one).all()
    assert len(videos(1, 1)) == 1
    sometimes = scenes(300, objects=(0, 8), pixels=48)
    assert set(sometimes.present.sum(1).tolist()) == set(range(9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "not negative"),
        ({"seed": -1}, "not negative"),
        ({"pixels": 2}, "pixels at least 4"),
        ({"objects": (3, 1)}, "least <= most"),
        ({"shapes": 13}, r"shapes: a number in \[1, 12\]"),
        ({"shapes": 0}, "shapes"),
        ({"shapes": ("circel",)}, "shapes: different words out of circle"),
        ({"colours": "red"}, "colours: different words"),
        ({"colours": ("red", "red")}, "colours: different words"),
        ({"backgrounds": ("ringed",)}, "backgrounds"),
        ({"classes": []}, "at least one"),
        ({"classes": [("red", "blue")]}, "at most one an attribute"),
        ({"classes": [("red", "star"), ("blue",)]}, "same attributes"),
        ({"classes": [("red", "star"), ("star", "red")]}, "given twice"),
        ({"classes": [("medium", "star")]}, "size word"),
        ({"class_weights": [1, 2]}, "only with classes"),
        ({"classes": [("star",)], "class_weights": [1, 2]}, "class_weights: 1 positive"),
        ({"classes": [("star",), ("ring",)], "class_weights": [1, 0]}, "class_weights: 2 positive"),
        ({"distinct": ("size",)}, "distinct: out of"),
        ({"distinct": ("class",)}, "distinct: out of"),
        ({"distinct": ("colour",), "colours": 2}, "3 objects need as many"),
        ({"distinct": ("shape",), "classes": [("star",)]}, "distinct: out of class"),
        ({"spurious": ("shape", "background", 0.9)}, "needs two values"),
        ({"spurious": ("shape", "background", 1.1), "backgrounds": 2}, r"probability in \[0, 1\]"),
        ({"spurious": ("shape", "size", 0.9)}, "spurious: from"),
        ({"spurious": ("shape", "shape", 0.9)}, "spurious: from"),
        ({"spurious": ("shape", "colour", 0.9), "distinct": ("colour",)}, "spurious: from"),
        ({"sides": ()}, "sides: one to three"),
        ({"sides": ((5, 3),)}, "sides"),
        ({"aspect": (0, 1)}, "aspect"),
        ({"period": (4, 2)}, "period"),
        ({"overlap": 1.5}, "overlap"),
        ({"rotation": -1}, "rotation"),
    ],
)
def test_degenerate_options(options, message):
    with pytest.raises(ValueError, match=message):
        scenes(**({"n": 2} | options))


def test_degenerate_unknown_names(world):
    with pytest.raises(TypeError, match="colors"):
        scenes(2, colors=3)
    for options in ({"attributes": ("hue",)}, {"relation": ("near",)}, {"template": "none"}, {"article": "some"}):
        with pytest.raises(ValueError):
            captions(world, **options)
    with pytest.raises(ValueError, match="named"):
        captions(world, named=torch.zeros(3, 1))
    with pytest.raises(ValueError, match="one caption a scene"):
        captions_hold([], world)
    with pytest.raises(ValueError, match="one caption a scene"):
        edit_captions([], world)
    with pytest.raises(ValueError, match="kinds"):
        edit_captions(captions(world), world, kinds=("hue",))


def test_degenerate_too_large_an_object_sits_in_the_middle():
    s = scenes(3, objects=1, pixels=16, sides=((40, 40),), shapes=("square",), rotation=0)
    assert torch.allclose(s.position, torch.tensor(8.0))
    assert s.masks.all()


def test_value_by_hand_contact_sheet():
    pictures = torch.arange(3.0)[:, None, None, None].expand(3, 3, 2, 4) / 4
    sheet = contact_sheet(pictures, columns=2, gap=1)
    assert sheet.shape == (5, 9, 3)
    assert (sheet[:2, 5:] == 0.25).all()
    assert (sheet[3:, :4] == 0.5).all()
    assert (sheet[2] == 1).all()
    assert (sheet[3:, 4:] == 1).all()
    assert contact_sheet(pictures, gap=0).shape == (2, 12, 3)
    with pytest.raises(ValueError, match="contact_sheet"):
        contact_sheet(pictures[:0])


def test_dtype_device(world):
    for name in ("images", "boxes", "visible", "keypoints", "position", "side", "depth", "ground"):
        assert getattr(world, name).dtype == torch.float32
    for name in ("shape", "colour", "texture", "size", "label", "background"):
        assert getattr(world, name).dtype == torch.int64
    for name in ("present", "masks", "amodal", "keypoints_visible"):
        assert getattr(world, name).dtype == torch.bool
    assert world.images.min() >= 0
    assert world.images.max() <= 1
    assert same(world.to("cpu"), world)
    index = torch.tensor([5, 2])
    assert torch.equal(world[index].images, world.images[index])
    assert world[index].class_names == world.class_names


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_dtype_device_gpu():
    factors = sample_factors(50, seed=1, **RICH)
    there, here = paint(factors.to("cuda")), paint(factors)
    assert torch.allclose(there.images.cpu(), here.images, atol=1e-4)
    assert (there.masks.cpu() != here.masks).float().mean() < 1e-4
    assert relations(there).device.type == "cuda"


def test_invariance_random_numbers_by_purpose():
    a = scene_sampling.uniform(0, "a", 6, 3)
    assert torch.equal(a[:2], scene_sampling.uniform(0, "a", 2, 3))
    assert not torch.equal(a, scene_sampling.uniform(0, "b", 6, 3))
    assert not torch.equal(a, scene_sampling.uniform(1, "a", 6, 3))


@pytest.mark.slow
def test_limit_ten_thousand_scenes_in_ten_seconds():
    start = time.process_time()
    scenes(10_000, seed=0, shapes=12, colours=8, textures=6, backgrounds=6)
    assert time.process_time() - start < 10
