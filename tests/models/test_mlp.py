"""The multilayer perceptron and the small convolutional network."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from lib.models import CNN, MLP


def with_weights(model, value):
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def test_value_by_hand_mlp():
    x = torch.tensor([[1.0, 2.0]])
    plain = with_weights(MLP([2, 2, 2, 1]), 1.0)
    # 1+2+1 = 4 twice; 4+4+1 = 9 twice; 9+9+1 = 19
    assert plain(x).item() == 19
    skips = with_weights(MLP([2, 2, 2, 1], residual=True), 1.0)
    # the first layer has no skip: 4; 4 + 9 = 13; 13+13+1 = 27
    assert skips(x).item() == 27
    assert skips.features(x).tolist() == [[13.0, 13.0]]
    assert with_weights(MLP([2, 2, 1], activation="relu"), -1.0)(x).item() == -1.0


def test_limit_identity_is_one_linear_map():
    model = MLP([3, 5, 4, 2], activation="identity").double()
    x = torch.randn(6, 3, dtype=torch.float64)
    first, second, third = (layer.weight for layer in model.layers)
    offset = model(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(model(x), x @ (third @ second @ first).T + offset)


def test_parity_mlp_is_a_sequence_of_layers():
    torch.manual_seed(0)
    model = MLP([4, 8, 3], activation="gelu")
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    x = torch.randn(5, 4)
    torch.testing.assert_close(model(x), reference(x))


def test_invariance_residual_only_where_the_width_stays():
    torch.manual_seed(0)
    plain = MLP([6, 8, 4, 2])
    skips = MLP([6, 8, 4, 2], residual=True)
    skips.load_state_dict(plain.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(plain(x), skips(x))


@pytest.mark.parametrize("sizes", [[3], [], [3, 0, 2]])
def test_degenerate_sizes(sizes):
    with pytest.raises((ValueError, IndexError), match=r"sizes"):
        MLP(sizes)


def test_degenerate_inputs():
    with pytest.raises(ValueError, match="one of relu, tanh"):
        MLP([2, 2], activation="sigmoidal")
    assert MLP([3, 4, 2])(torch.zeros(0, 3)).shape == (0, 2)
    assert MLP([3, 4, 2])(torch.full((1, 3), torch.nan)).isnan().all()
    with pytest.raises(ValueError, match="4 pixels"):
        CNN(size=3)


@pytest.mark.parametrize("factory", [lambda: MLP([12, 4, 4, 3], residual=True), lambda: CNN(4, width=2, hidden=3)])
def test_gradcheck(factory):
    torch.manual_seed(0)
    model = factory().double()
    x = torch.randn(2, 12 if isinstance(model, MLP) else 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    for model, width in ((MLP([16, 3]), 16), (CNN(size=4), 16)):
        out = model.to(dtype)(torch.zeros(2, width, dtype=dtype))
        assert out.dtype == dtype


def test_cnn_shapes_and_flat_input():
    model = CNN(size=28, width=8, hidden=32, classes=7)
    x = torch.randn(3, 1, 28, 28)
    assert model(x).shape == (3, 7)
    torch.testing.assert_close(model(x.flatten(1)), model(x))
    assert model.features(x).shape == (3, 32)
    count = (8 * 9 + 8) + (16 * 8 * 9 + 16) + (16 * 49 * 32 + 32) + (32 * 7 + 7)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("factory", [lambda: MLP([16, 8, 3], residual=True), lambda: CNN(size=4, width=2, hidden=5)])
def test_parity_stacked_networks(factory):
    torch.manual_seed(0)
    models = [factory() for _ in range(3)]
    stack = {
        key: torch.stack([dict(m.named_parameters())[key].detach() for m in models])
        for key, _ in models[0].named_parameters()
    }
    x = torch.randn(3, 5, 16)
    together = vmap(lambda own, x: functional_call(models[0], own, (x,)))(stack, x)
    for index, model in enumerate(models):
        torch.testing.assert_close(together[index], model(x[index]), rtol=1e-4, atol=1e-5)
