import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from lib.models import Conv4


@pytest.mark.parametrize(("channels", "size", "width", "dim"), [(1, 28, 16, 64), (3, 32, 8, 5), (1, 16, 8, 2)])
def test_value_by_hand_shape_and_count(channels, size, width, dim):
    """Weights: 9 c w + w of the first block, 3 (9 w^2 + w) of the others, 8 w of the norms, and the linear map."""
    network = Conv4(channels, width, dim, size)
    assert network(torch.zeros(2, channels, size, size)).shape == (2, dim)
    features = width * (size // 16) ** 2
    expected = 9 * channels * width + width + 3 * (9 * width**2 + width) + 8 * width + features * dim + dim
    assert sum(p.numel() for p in network.parameters()) == expected


def test_invariance_batch():
    """The embedding of an image does not depend on its batch, nor on training mode."""
    network, x = Conv4(width=8, dim=4), torch.rand(6, 1, 28, 28)
    torch.testing.assert_close(network(x)[:2], network.eval()(x[:2]))


def test_invariance_vmap():
    networks, x = [Conv4(width=8, dim=4) for _ in range(3)], torch.rand(5, 1, 28, 28)
    parameters, buffers = stack_module_state(networks)
    together = vmap(lambda p, b: functional_call(networks[0], (p, b), (x,)))(parameters, buffers)
    for out, network in zip(together, networks, strict=True):
        torch.testing.assert_close(out, network(x), rtol=1e-4, atol=1e-5)


def test_degenerate_sizes():
    with pytest.raises(ValueError, match="multiple of 8"):
        Conv4(width=12)
    with pytest.raises(ValueError, match="at least 16"):
        Conv4(size=8)
    assert Conv4(width=8)(torch.zeros(0, 1, 28, 28)).shape == (0, 64)
