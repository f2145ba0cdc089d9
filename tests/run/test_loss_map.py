"""The map of losses says what `lib.losses.relations` says."""

from lib.losses.relations import RELATIONS
from lib.run.pages import loss_map


def test_every_relation_is_drawn_and_listed():
    edges = loss_map.edges()
    assert [(one.general, one.special, one.when) for one in edges] == [
        (one.general, one.special, one.when) for one in RELATIONS
    ]
    text = loss_map.page()
    names = {name for one in RELATIONS for name in (one.general, one.special)}
    assert text.count("<rect") == len(names)
    assert text.count("<line") == len(RELATIONS)
    assert all(f">{name}</text>" in text for name in names)


def test_boxes_do_not_overlap_and_stay_inside():
    at = loss_map.places(list(dict.fromkeys(name for one in RELATIONS for name in (one.general, one.special))))
    half = {name: loss_map._width(name) / 2 for name in at}
    boxes = [(x - half[name], y - 13, x + half[name], y + 13) for name, (x, y) in at.items()]
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= loss_map.WIDTH
        assert bottom <= loss_map.HEIGHT
        for other in boxes[:i]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top
