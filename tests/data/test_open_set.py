import pytest
import torch

from lib.data import digits, hold_out_classes, open_set_digits
from lib.runtime import generator


def test_open_set_digits():
    seen, unseen = open_set_digits()
    assert len(seen) + len(unseen) == 1797
    assert torch.equal(torch.sort(torch.cat([seen.index, unseen.index]))[0], torch.arange(1797))
    assert seen.y.unique().tolist() == unseen.y.unique().tolist() == [0, 1, 2, 3, 4]
    source = digits(standardise=False)
    original = dict(zip(source.train.index.tolist(), source.train.y.tolist(), strict=True))
    assert all(original.get(i, y) == y for i, y in zip(seen.index.tolist(), seen.y.tolist(), strict=True))
    assert all(original.get(i, y + 5) == y + 5 for i, y in zip(unseen.index.tolist(), unseen.y.tolist(), strict=True))
    assert (seen.x.min(), seen.x.max()) == (0, 1)


def test_open_set_digits_swapped():
    for first, second in zip(open_set_digits(), reversed(open_set_digits(swap=True)), strict=True):
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.y, second.y)


def test_hold_out_classes():
    seen, _ = open_set_digits()
    rest, held = hold_out_classes(seen, 2, generator(3))
    again, _ = hold_out_classes(seen, 2, generator(3))
    assert torch.equal(rest.index, again.index)
    assert set(rest.index.tolist()).isdisjoint(held.index.tolist())
    assert len(rest) + len(held) == len(seen)
    assert (rest.y.unique().tolist(), held.y.unique().tolist()) == ([0, 1, 2], [0, 1])
    original = dict(zip(seen.index.tolist(), seen.y.tolist(), strict=True))
    for part in (rest, held):  # one old label for each new one, in the same order
        pairs = sorted({(new, original[i]) for i, new in zip(part.index.tolist(), part.y.tolist(), strict=True)})
        assert [new for new, _ in pairs] == list(range(len(pairs)))
        assert [old for _, old in pairs] == sorted(old for _, old in pairs)


@pytest.mark.parametrize("count", [0, 5, 6])
def test_hold_out_classes_leaves_both_sides(count):
    with pytest.raises(ValueError, match="hold out"):
        hold_out_classes(open_set_digits()[0], count, generator(0))
