"""Two phases in one stack: against `train_paired`, and against two plain loops with torch's optimiser."""

import pytest
import torch

from lib import runtime
from lib.losses import class_balanced_loss
from lib.models import MLP
from lib.optim import sam_gradient
from lib.runtime import NonFiniteLoss
from lib.trainers import SGD, DeferredMethod, Method, shuffled, train_deferred, train_paired

COUNTS = torch.tensor([40.0, 15.0, 5.0], dtype=torch.float64)


def blobs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(COUNTS.long())
    return torch.randn(3, 4, generator=generator, dtype=torch.float64)[y] + torch.randn(
        len(y), 4, generator=generator, dtype=torch.float64
    ), y


def network():
    return MLP([4, 6, 3], activation="tanh").double()


def weighted(z, y, beta):
    return class_balanced_loss(z, y, COUNTS, beta)


SETTINGS = {"seeds": [3, 1], "epochs": 5, "batch_size": 20, "optimiser": SGD(lr=0.2, momentum=0.9), "device": "cpu"}


def drw(name="drw", **late):
    return DeferredMethod(name, weighted, {"beta": 0.0}, late=late, gradient=sam_gradient, rule_hyper={"rho": 0.1})


def test_limit_without_late_values_it_is_train_paired():
    plain = Method("plain", weighted, {"beta": 0.0}, gradient=sam_gradient, rule_hyper={"rho": 0.1})
    expected = train_paired(network, [plain], blobs, **SETTINGS)
    ours = train_deferred(network, [drw()], blobs, switch=0.4, **SETTINGS)
    torch.testing.assert_close(ours.history["drw"], expected.history["plain"])
    for key, value in expected.parameters["plain"].items():
        torch.testing.assert_close(ours.parameters["drw"][key], value)
    x = torch.stack([blobs(seed)[0] for seed in (3, 1)])
    torch.testing.assert_close(ours.logits("drw", x), expected.logits("plain", x))


def test_limit_switch_at_the_ends():
    """A switch at 0 is the late value throughout, at 1 the early one; and the history differs from the switch on."""
    late, early = ({"beta": b} for b in (0.99, 0.0))
    for switch, hyper in ((0.0, late), (1.0, early)):
        reference = DeferredMethod("ref", weighted, hyper, gradient=sam_gradient, rule_hyper={"rho": 0.1})
        ours = train_deferred(network, [drw(beta=0.99)], blobs, switch=switch, **SETTINGS)
        theirs = train_deferred(network, [reference], blobs, **SETTINGS)
        torch.testing.assert_close(ours.history["drw"], theirs.history["ref"])
    both = train_deferred(network, [drw("a", beta=0.99), drw("b")], blobs, switch=0.4, **SETTINGS)
    differ = (both.history["a"] != both.history["b"]).all(0)
    assert differ.nonzero()[0].item() == 2 * 3  # two epochs of three batches


def test_parity_with_a_plain_loop():
    """DRW of the loss and of rho at once, by autograd and torch.optim, one seed."""
    method = drw(beta=0.9, rho=0.3)
    ours = train_deferred(network, [method], blobs, switch=0.6, **SETTINGS)
    seed = 1
    with runtime.isolated(seed):
        net = network()
    x, y = blobs(seed)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    order = runtime.generator(seed, stream=1)
    for epoch in range(5):
        beta, rho = (0.9, 0.3) if epoch >= 3 else (0.0, 0.1)
        for rows in shuffled(20)(y, order):
            parameters = list(net.parameters())
            grads = torch.autograd.grad(weighted(net(x[rows]), y[rows], beta), parameters)
            length = torch.cat([g.flatten() for g in grads]).norm()
            with torch.no_grad():
                for w, g in zip(parameters, grads, strict=True):
                    w += rho * g / length
            second = torch.autograd.grad(weighted(net(x[rows]), y[rows], beta), parameters)
            with torch.no_grad():
                for w, g, h in zip(parameters, grads, second, strict=True):
                    w -= rho * g / length
                    w.grad = h
            optimiser.step()
    for key, value in net.named_parameters():
        torch.testing.assert_close(ours.parameters["drw"][key][1], value.detach())


def test_degenerate():
    with pytest.raises(ValueError, match="unknown numbers: gamma"):
        drw(gamma=1.0)
    with pytest.raises(ValueError, match="unique"):
        train_deferred(network, [drw(), drw()], blobs, **SETTINGS)
    with pytest.raises(ValueError, match="switch"):
        train_deferred(network, [drw()], blobs, switch=1.5, **SETTINGS)
    broken = DeferredMethod("nan", lambda z, y, f: f * z.sum(), {"f": 1.0}, late={"f": float("nan")})
    with pytest.raises(NonFiniteLoss) as caught:
        train_deferred(network, [broken], blobs, switch=0.4, **{**SETTINGS, "optimiser": SGD(lr=1e-4)})
    assert (caught.value.run, caught.value.step) == ("nan", 6)
