"""The queue with places for every class, against a plain list for each class."""

import pytest
import torch
from torch.func import vmap

from lib.trainers import ClassQueue


def test_value_by_hand_places():
    """Ten places, two for each of three classes, the other four shared as 6 : 3 : 1, with rounded borders."""
    queue = ClassQueue([6, 3, 1], 10, 1)
    assert queue.places.tolist() == [4, 4, 2]  # borders 4.4, 7.6, 10
    assert queue.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 2


def test_parity_with_lists():
    """Random batches of one to nine keys: the same keys as first in, first out of each class."""
    queue = ClassQueue([30, 8, 2], 12, 2)
    generator, state = torch.Generator().manual_seed(0), queue.start()
    lists: list[list[tuple[float, int]]] = [[], [], []]
    number = 0
    for _ in range(40):
        size = int(torch.randint(1, 10, (1,), generator=generator))
        labels = torch.randint(3, (size,), generator=generator)
        index = torch.arange(number, number + size)
        keys = torch.randn(size, 2, generator=generator)
        state = queue.push(state, keys, labels, index)
        for k in range(3):
            places = int(queue.places[k])
            new = [(float(keys[i, 0]), int(index[i])) for i in range(size) if labels[i] == k][:places]
            lists[k] = (lists[k] + new)[-places:]
        number += size
        held, of, filled = queue.filled(state)
        for k in range(3):
            here = (queue.labels == k) & (filled > 0)
            found = sorted(zip(held[here][:, 0].tolist(), of[here].long().tolist(), strict=True))
            assert found == sorted(lists[k])


def test_invariance_under_vmap():
    queue = ClassQueue([5, 2], 6, 3)
    generator = torch.Generator().manual_seed(1)
    keys, labels = torch.randn(4, 7, 3, generator=generator), torch.randint(2, (4, 7), generator=generator)
    index = torch.arange(7).expand(4, 7)
    start = {name: value.expand(4, *value.shape) for name, value in queue.start().items()}
    together = vmap(queue.push)(start, keys, labels, index)
    for run in range(4):
        alone = queue.push(queue.start(), keys[run], labels[run], index[run])
        for name in ("seen", "index"):
            assert torch.equal(together[name][run][:-1], alone[name][:-1])
        assert torch.equal(together["keys"][run][:-1], alone["keys"][:-1])  # the last row takes what has no place


def test_degenerate():
    queue = ClassQueue([5, 2], 6, 3)
    keys, _, filled = queue.filled(queue.start())
    assert filled.sum() == 0
    assert keys.shape == (6, 3)
    for size, base in ((3, 2), (6, 0)):
        with pytest.raises(ValueError, match="places"):
            ClassQueue([5, 2], size, 3, base)
    held = queue.push(queue.start(), torch.ones(1, 3, requires_grad=True), torch.tensor([1]), torch.tensor([0]))
    assert not held["keys"].requires_grad
