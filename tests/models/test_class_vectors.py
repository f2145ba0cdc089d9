import torch
from torch.nn.functional import normalize

from lib.losses import CircleClassifier
from lib.losses.circle_loss import circle_loss
from lib.models import MLP, ClassVectors


def test_value_by_hand():
    network = ClassVectors(torch.nn.Identity(), 2, 2)
    network.weight.data = torch.tensor([[2.0, 0.0], [-3.0, 3.0]])
    out = network(torch.tensor([[0.0, 5.0]]))
    torch.testing.assert_close(out, torch.tensor([[0.0, 5.0, 0.0, 0.5**0.5]]))


def test_parity_circle_classifier():
    """The class form of the loss from the network's cosines is that of the loss's own class vectors."""
    torch.manual_seed(0)
    network, loss = ClassVectors(MLP([6, 16, 4]), 4, 5), CircleClassifier(4, 5, m=0.3, gamma=20.0)
    loss.weight.data = network.weight.data
    x, y = torch.randn(12, 6), torch.randint(5, (12,))
    out = network(x)
    torch.testing.assert_close(
        circle_loss(out[:, 4:], y[:, None] == torch.arange(5), None, 0.3, 20.0).mean(), loss(out[:, :4], y)
    )
    torch.testing.assert_close(out[:, :4], network.encoder(x))
    assert out[:, 4:].abs().max() <= 1 + 1e-6


def test_degenerate_direction_only():
    """Scaling a class vector changes nothing, and the gradient is orthogonal to it."""
    network = ClassVectors(torch.nn.Identity(), 3, 4)
    x = torch.randn(5, 3)
    before = network(x)
    before[:, 3:].square().sum().backward()
    assert (network.weight.grad * network.weight).sum(1).abs().max() < 1e-5
    network.weight.data *= 7
    torch.testing.assert_close(network(x), before)
    torch.testing.assert_close(normalize(network(x)[:, :3]), normalize(x))
