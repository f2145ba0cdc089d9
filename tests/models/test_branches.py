"""Heads side by side."""

import torch
from torch import nn

from lib.models import Branches


def test_value_by_hand():
    torch.manual_seed(0)
    net = Branches(nn.Linear(3, 4), nn.Linear(4, 2), nn.Identity(), scalars=(0.5, -1.0))
    x = torch.randn(6, 3)
    r, first, second, scalars = net(x)
    assert torch.equal(r, net.encoder(x))
    assert torch.equal(first, net.heads[0](r))
    assert torch.equal(second, r)
    assert torch.equal(scalars, torch.tensor([[0.5, -1.0]]).expand(6, 2))


def test_degenerate_no_head_no_scalar():
    (r,) = Branches(nn.Identity())(torch.ones(2, 3))
    assert r.shape == (2, 3)


def test_gradcheck_scalars_are_trained():
    net = Branches(nn.Identity(), scalars=(2.0,))
    net(torch.ones(5, 1))[-1].mean().backward()
    assert net.scalars.grad is not None
    assert torch.allclose(net.scalars.grad, torch.ones(1))
