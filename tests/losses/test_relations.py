"""Every edge of the map of losses is an identity."""

import pytest
import torch

from lib.losses.registry import registered_losses
from lib.losses.relations import RELATIONS

ENTRIES = {entry.name: entry for entry in registered_losses()}
COUNTS = torch.tensor([40.0, 20.0, 10.0, 5.0, 2.0], dtype=torch.float64)


def value_and_gradient(name, hyper, z, y):
    z = z.clone().requires_grad_()
    entry = ENTRIES[name]
    value = entry.bind(COUNTS)(z, y, **{**entry.defaults, **hyper})
    return value.detach(), torch.autograd.grad(value, z)[0]


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda one: f"{one.general} to {one.special}")
@pytest.mark.parametrize("seed", range(3))
def test_invariance_of_every_relation(relation, seed):
    """Value and gradient in float64, at random logits with confident and hesitant samples."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(60, 5, generator=draw, dtype=torch.float64) * torch.tensor([0.5, 2.0, 6.0]).repeat(20)[:, None]
    y = torch.randint(5, (60,), generator=draw)
    value, gradient = value_and_gradient(relation.general, relation.at, z, y)
    wanted, slope = value_and_gradient(relation.special, relation.special_at, z, y)
    tolerance = 1e-5 if relation.limit else 1e-11
    torch.testing.assert_close(value, wanted + relation.offset(5), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient, slope, rtol=tolerance, atol=tolerance)


def test_degenerate_no_relation_twice_and_none_of_a_loss_with_itself():
    edges = [(one.general, one.special) for one in RELATIONS]
    assert len(set(edges)) == len(edges)
    assert all(general != special for general, special in edges)


def test_a_relation_that_does_not_hold_is_seen():
    """At its default the general loss is another function (that is what makes it one)."""
    z = 6 * torch.randn(30, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    y = torch.arange(30) % 5
    for relation in RELATIONS:
        entry = ENTRIES[relation.general]
        if not entry.tunable:
            continue
        other = {key: wide.at(0.7) for key, wide in entry.tunable.items()}
        value, _ = value_and_gradient(relation.general, {**relation.at, **other}, z, y)
        wanted, _ = value_and_gradient(relation.special, relation.special_at, z, y)
        assert abs(value - wanted - relation.offset(5)) > 1e-3, f"{relation.general} to {relation.special}"
