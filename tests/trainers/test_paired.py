"""The stack of runs against the plain loop, pairing, grids, gradient rules, checkpoints, losses that are not finite."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value

from lib import runtime
from lib.models import MLP
from lib.trainers import SGD, Adam, AdamW, Method, class_balanced, train_paired
from lib.trainers import _stack as stack_module

DTYPES = {torch.float64: 1e-10, torch.float32: 2e-4}


def blobs(seed=0, n=90, dtype=torch.float64):
    """Three overlapping classes in five dimensions."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centres = torch.randn(3, 5, generator=generator, dtype=dtype)
    return centres[y] + torch.randn(n, 5, generator=generator, dtype=dtype), y


def network(dtype=torch.float64):
    return MLP([5, 8, 3], activation="tanh").to(dtype)


def focal(output, y, gamma):
    log_p = output.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1)
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean()


def ascent(loss_of_params, params, rho):
    """Gradient one normalised step uphill: a rule that needs the function, not just its gradient."""
    grads, loss = grad_and_value(loss_of_params)(params)
    norm = torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt()
    moved = {key: params[key] + rho * grads[key] / norm for key in params}
    return grad_and_value(loss_of_params)(moved)[0], loss


def both_ways(methods, dtype=torch.float64, **settings):
    defaults = {"seeds": [3, 1, 4], "epochs": 4, "batch_size": 16, "device": "cpu"}
    return [
        train_paired(
            lambda: network(dtype), methods, lambda s: blobs(s, dtype=dtype), vectorised=v, **{**defaults, **settings}
        )
        for v in (True, False)
    ]


def assert_same(stack, loop, tolerance):
    for name in loop.parameters:
        torch.testing.assert_close(stack.history[name], loop.history[name], rtol=tolerance, atol=tolerance)
        for key, value in loop.parameters[name].items():
            torch.testing.assert_close(stack.parameters[name][key], value, rtol=tolerance, atol=tolerance)


OPTIMISERS = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.9, weight_decay=1e-2),
    SGD(lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    Adam(lr=1e-2),
    Adam(lr=1e-2, weight_decay=1e-2),
    AdamW(lr=1e-2, weight_decay=0.1),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=repr)
def test_parity_stack_with_loop(optimiser, dtype):
    methods = [
        Method("ce", F.cross_entropy),
        Method("focal 0", focal, {"gamma": 0.0}),
        Method("focal 2", focal, {"gamma": 2.0}, lr=0.03, weight_decay=0.05),
    ]
    stack, loop = both_ways(methods, dtype=dtype, optimiser=optimiser)
    assert_same(stack, loop, DTYPES[dtype])
    # the methods differ, so that the agreement above says something
    assert (loop.history["focal 2"] - loop.history["ce"]).abs().max() > 1e-2
    # focal loss at gamma 0 is cross-entropy, trained in another group
    torch.testing.assert_close(stack.history["focal 0"], stack.history["ce"], rtol=1e-3, atol=1e-3)


def test_parity_recorded_steps_with_loop(monkeypatch):
    monkeypatch.setattr(stack_module, "RECORD_FROM", 0)
    recorded = []
    record = stack_module.record

    def spy(function, args):
        result = record(function, args)
        recorded.append(getattr(result, "__self__", None) is not None and result != function)
        return result

    monkeypatch.setattr(stack_module, "record", spy)
    methods = [Method("ce", F.cross_entropy), Method("focal", focal, {"gamma": 2.0})]
    stack, loop = both_ways(methods, optimiser=Adam(lr=1e-2))
    assert recorded == [True, True]
    assert_same(stack, loop, 1e-10)


def test_parity_gradient_rule_with_loop(monkeypatch):
    methods = [Method(f"rho {rho}", F.cross_entropy, gradient=ascent, rule_hyper={"rho": rho}) for rho in (0.05, 0.5)]
    for first in (0, 10_000):  # recorded and not
        monkeypatch.setattr(stack_module, "RECORD_FROM", first)
        stack, loop = both_ways(methods, optimiser=SGD(lr=0.1, momentum=0.9))
        assert_same(stack, loop, 1e-10)
    assert (loop.history["rho 0.05"] - loop.history["rho 0.5"]).abs().max() > 1e-3


def test_parity_several_stacks(monkeypatch):
    grid = [Method(f"{gamma}", focal, {"gamma": gamma}, lr=0.05 * (1 + gamma)) for gamma in (0.0, 0.5, 1.0, 2.0, 3.0)]
    whole, loop = both_ways(grid)
    monkeypatch.setattr(stack_module, "MAX_RUNS", 4)
    pieces, _ = both_ways(grid, checkpoint_every=2)
    assert_same(pieces, loop, 1e-10)
    assert_same(pieces, whole, 1e-10)
    assert [len(pieces.checkpoints[name]) for name in pieces.checkpoints] == [3] * 5


def test_value_by_hand_full_batch_descent():
    """Least squares in one parameter: w <- w - lr * (w - mean(y))."""
    x, y = torch.ones(4, 1, dtype=torch.float64), torch.tensor([1.0, 2, 3, 6], dtype=torch.float64)

    def factory():
        layer = nn.Linear(1, 1, bias=False).double()
        nn.init.zeros_(layer.weight)
        return layer

    def half_square(output, y):
        return (output.squeeze(-1) - y).square().mean() / 2

    methods = [Method("a", half_square), Method("b", half_square, lr=0.5)]
    for vectorised in (True, False):
        out = train_paired(
            factory, methods, (x, y), seeds=[0], optimiser=SGD(lr=0.1), epochs=3, batch_size=4, vectorised=vectorised
        )
        assert out.parameters["a"]["weight"].item() == pytest.approx(3 * (1 - 0.9**3), abs=1e-12)
        assert out.parameters["b"]["weight"].item() == pytest.approx(3 * (1 - 0.5**3), abs=1e-12)
        # the loss before each update: variance / 2 + distance^2 / 2
        expected = [1.75 + (3 * 0.9**t) ** 2 / 2 for t in range(3)]
        assert out.history["a"][0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("vectorised", [True, False])
def test_invariance_pairing(vectorised):
    """Methods of one seed share initialisation and order; a seed's run does not depend on the others."""
    same = [Method("a", F.cross_entropy), Method("b", lambda output, y: F.cross_entropy(output, y))]
    settings = {"epochs": 2, "batch_size": 16, "vectorised": vectorised, "checkpoint_every": 2}
    out = train_paired(network, same, blobs(), seeds=[5, 6], **settings)
    assert torch.equal(out.history["a"], out.history["b"])
    start = out.checkpoints["a"][0]
    assert all(torch.equal(start[key], out.checkpoints["b"][0][key]) for key in start)
    assert not torch.equal(start["layers.0.weight"][0], start["layers.0.weight"][1])
    alone = train_paired(network, same[:1], blobs(), seeds=[6], **settings)
    torch.testing.assert_close(alone.history["a"][0], out.history["a"][1], rtol=1e-10, atol=1e-10)


def test_invariance_global_generator_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trained = train_paired(network, [Method("a", F.cross_entropy)], blobs(), seeds=[0], epochs=1)
    trained.logits("a", blobs()[0])
    trained.module("a", 0)
    assert torch.equal(torch.rand(3), expected)


def test_order_is_not_that_of_the_data_generator():
    """Labels corrupted by `generator(seed)` must not all fall into the first batches."""
    n, seen = 60, []

    def sampler(y, generator):
        seen.append(torch.randperm(n, generator=generator))
        return seen[-1].view(6, 10)

    train_paired(network, [Method("a", F.cross_entropy)], blobs(n=n), seeds=[2], epochs=1, sampler=sampler)
    assert not torch.equal(seen[0], torch.randperm(n, generator=runtime.generator(2)))


def test_order_covers_the_data_once_an_epoch():
    """With weights that select samples, every sample of a kept batch counts once; the rest is dropped."""
    counted = torch.zeros(50)
    x = torch.arange(50.0)[:, None]

    def count(output, y):
        counted[y] += 1
        return output.square().mean()

    train_paired(
        lambda: nn.Linear(1, 1),
        [Method("a", count)],
        (x, torch.arange(50)),
        seeds=[0],
        optimiser=SGD(lr=0.0),
        epochs=1,
        batch_size=16,
        vectorised=False,
    )
    assert counted.sum() == 48
    assert counted.max() == 1


@pytest.mark.parametrize("vectorised", [True, False])
def test_outputs(vectorised):
    x, y = blobs()
    out = train_paired(
        network, [Method("a", F.cross_entropy)], (x, y), seeds=[1, 2], epochs=5, vectorised=vectorised, batch_size=30
    )
    logits = out.logits("a", x)
    assert logits.shape == (2, 90, 3)
    assert not logits.requires_grad
    per_seed = out.logits("a", torch.stack([x[:7], x[7:14]]))
    torch.testing.assert_close(per_seed[1], logits[1, 7:14])
    torch.testing.assert_close(out.logits("a", x, batch=11), logits)
    module = out.module("a", 2)
    torch.testing.assert_close(module(x), logits[1])
    own = {key: value[1] for key, value in out.parameters["a"].items()}
    torch.testing.assert_close(functional_call(network(), own, (x,)), logits[1])
    assert (logits.argmax(-1) == y).double().mean() > 0.6
    with pytest.raises(ValueError, match="no seed 9"):
        out.module("a", 9)
    with pytest.raises(KeyError, match="no method 'b'; trained: a"):
        out.logits("b", x)
    with pytest.raises(ValueError, match="3 seeds"):
        out.logits("a", torch.stack([x, x, x]))


def test_schedule_and_sampler():
    methods = [Method("a", F.cross_entropy)]
    settings = {
        "schedule": lambda share: 1.0 - share,
        "sampler": class_balanced(classes=2, samples=4, steps=5),
        "optimiser": SGD(lr=0.2, momentum=0.9),
    }
    stack, loop = both_ways(methods, **settings)
    assert_same(stack, loop, 1e-10)
    assert stack.history["a"].shape == (3, 20)
    constant, _ = both_ways(methods, **{**settings, "schedule": None})
    assert (constant.history["a"] - stack.history["a"]).abs().max() > 1e-3


def test_checkpoints():
    stack, loop = both_ways([Method("a", F.cross_entropy)], epochs=4, checkpoint_every=2)
    assert len(stack.checkpoints["a"]) == len(loop.checkpoints["a"]) == 3
    for ours, theirs in zip(stack.checkpoints["a"], loop.checkpoints["a"], strict=True):
        for key in theirs:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-10, atol=1e-10)
    for key, value in stack.parameters["a"].items():
        assert torch.equal(stack.checkpoints["a"][-1][key], value)
    with runtime.isolated(3):
        fresh = network()
    assert torch.equal(stack.checkpoints["a"][0]["layers.0.weight"][0], fresh.layers[0].weight)


class WithConstants(nn.Module):
    """A frozen random layer, a buffer, and a layer that is trained."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(5, 16).double().requires_grad_(False)
        self.register_buffer("scale", torch.rand(16, dtype=torch.float64))
        self.last = nn.Linear(16, 3).double()

    def forward(self, x):
        return self.last(self.scale * torch.tanh(self.frozen(x)))


def test_parity_frozen_parameters_and_buffers():
    out = [
        train_paired(WithConstants, [Method("a", F.cross_entropy)], blobs(), seeds=[0, 1], epochs=3, vectorised=v)
        for v in (True, False)
    ]
    assert_same(*out, 1e-10)
    assert set(out[0].parameters["a"]) == {"last.weight", "last.bias"}
    for trained in out:
        scale = trained.constants["a"]["scale"]
        assert not torch.equal(scale[0], scale[1])
        torch.testing.assert_close(trained.module("a", 1)(blobs()[0]), trained.logits("a", blobs()[0])[1])
    torch.testing.assert_close(out[0].logits("a", blobs()[0]), out[1].logits("a", blobs()[0]))


def normalised():
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()


def test_batch_norm_trains_in_the_loop_only():
    methods = [Method("a", F.cross_entropy)]
    with pytest.raises(ValueError, match="vectorised=False"):
        train_paired(normalised, methods, blobs(), seeds=[0], epochs=1)
    out = train_paired(normalised, methods, blobs(), seeds=[0, 1], epochs=5, vectorised=False)
    assert out.constants["a"]["1.running_mean"].abs().max() > 0
    torch.testing.assert_close(out.module("a", 1)(blobs()[0]), out.logits("a", blobs()[0])[1])


# --- losses that are not finite ---------------------------------------------------------------------------------


def breaks_for(seeds, broken, step, value=torch.nan):
    """Data, and a sampler that hands the seed `broken` a sample with a bad input in the given step only."""

    def data(seed):
        x, y = blobs(seed)
        x[0] = value if seed == broken else 0.0
        return x, y

    def sampler(y, generator):
        rows = torch.randint(1, len(y), (12, 8), generator=generator)
        rows[step, 0] = 0
        return rows

    return data, sampler


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("step", [0, 7, 11])
def test_nonfinite_raises_with_step_and_last_losses(vectorised, step):
    data, sampler = breaks_for([1, 2, 3], broken=2, step=step)
    methods = [Method("steady", F.cross_entropy), Method("other", F.cross_entropy, lr=0.01)]
    settings = {"seeds": [1, 2, 3], "epochs": 1, "sampler": sampler, "vectorised": vectorised}
    with pytest.raises(runtime.NonFiniteLoss) as caught:
        train_paired(network, methods, data, **settings)
    error = caught.value
    assert (error.run, error.seed, error.step) == ("steady", 2, step)
    assert f"steady, seed 2: loss not finite at step {step}" in str(error)
    healthy = train_paired(network, methods, lambda s: blobs(s), **settings)
    assert list(error.last_finite) == pytest.approx(healthy.history["steady"][1, max(0, step - 3) : step].tolist())


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("step", [0, 7])
def test_nonfinite_stop_keeps_the_last_finite_parameters(vectorised, step):
    data, sampler = breaks_for([1, 2, 3], broken=2, step=step)
    methods = [Method("a", F.cross_entropy), Method("b", F.cross_entropy, lr=0.01)]
    settings = {"seeds": [1, 2, 3], "sampler": sampler, "optimiser": SGD(lr=0.1, momentum=0.9)}
    settings |= {"vectorised": vectorised, "checkpoint_every": 1}
    out = train_paired(network, methods, data, epochs=2, on_nonfinite="stop", **settings)
    assert out.diverged["a"].tolist() == out.diverged["b"].tolist() == [-1, step, -1]
    history = out.history["a"]
    assert history[1, :step].isfinite().all()
    assert history[1, step:].isnan().all()
    assert history[[0, 2]].isfinite().all()

    # the same seed on sound data: parameters after each of the first steps
    sound = train_paired(network, methods[:1], lambda s: blobs(s), epochs=1, **{**settings, "seeds": [2]})
    torch.testing.assert_close(sound.history["a"][0, :step], history[1, :step], rtol=1e-9, atol=1e-9)
    at_most = max(step - 1, 0)  # the last parameters whose loss was finite have seen step - 1 updates
    short = train_paired(
        network,
        methods[:1],
        lambda s: blobs(s),
        epochs=1,
        **{**settings, "seeds": [2], "sampler": lambda y, g: sampler(y, g)[: max(at_most, 1)]},
        schedule=None if at_most else (lambda share: 0.0),
    )
    for key, value in out.parameters["a"].items():
        assert value.isfinite().all()
        torch.testing.assert_close(value[1], short.parameters["a"][key][0], rtol=1e-9, atol=1e-9)
        assert torch.equal(out.checkpoints["a"][-1][key], value)


@pytest.mark.parametrize("vectorised", [True, False])
def test_nonfinite_stop_holds_for_checkpoints_too(vectorised):
    """The loss breaks in the first step of the second epoch: the checkpoint before it is the one that is kept."""
    x, y = blobs()
    x[0] = torch.nan
    order = iter([torch.arange(1, 81).view(10, 8), torch.arange(0, 80).view(10, 8), torch.arange(1, 81).view(10, 8)])
    out = train_paired(
        network, [Method("a", F.cross_entropy)], (x, y), seeds=[0], epochs=3, sampler=lambda y, g: next(order),
        on_nonfinite="stop", checkpoint_every=1, vectorised=vectorised,
    )  # fmt: skip
    assert out.diverged["a"].tolist() == [10]
    first, *others = out.checkpoints["a"]
    assert len(others) == 3
    for kept in others:
        assert all(torch.equal(kept[key], value) for key, value in out.parameters["a"].items())
    assert not torch.equal(first["layers.0.weight"], others[0]["layers.0.weight"])


@pytest.mark.parametrize("vectorised", [True, False])
def test_nonfinite_gradient_of_a_finite_loss(vectorised):
    """The last update breaks the parameters; no loss after it can tell."""

    def loss(output, y):
        return (output * 0).square().sum().sqrt() + output.square().mean()  # derivative of sqrt at 0

    settings = {"seeds": [0], "epochs": 1, "batch_size": 90, "vectorised": vectorised}
    with pytest.raises(runtime.NonFiniteLoss) as caught:
        train_paired(network, [Method("a", loss)], blobs(), **settings)
    assert caught.value.step == 1
    assert len(caught.value.last_finite) == 1
    out = train_paired(network, [Method("a", loss)], blobs(), on_nonfinite="stop", **settings)
    assert out.diverged["a"].tolist() == [1]
    assert out.history["a"].isfinite().all()
    with runtime.isolated(0):
        fresh = network()
    assert torch.equal(out.parameters["a"]["layers.0.weight"][0], fresh.layers[0].weight)


@pytest.mark.parametrize("step", [0, 4, 5, 23, 39])
def test_nonfinite_step_is_exact_at_any_time(monkeypatch, step):
    monkeypatch.setattr(stack_module, "CHECK_EVERY", 5)
    x, y = blobs()
    x[0] = torch.nan
    rows = torch.randint(1, 90, (40, 8), generator=torch.Generator().manual_seed(0))
    rows[step, 3] = 0
    with pytest.raises(runtime.NonFiniteLoss) as caught:
        train_paired(network, [Method("a", F.cross_entropy)], (x, y), seeds=[1], epochs=1, sampler=lambda y, g: rows)
    assert caught.value.step == step
    assert len(caught.value.last_finite) == min(step, 3)


def test_nonfinite_late_step_is_exact(monkeypatch):
    """Losses are looked at in intervals; the step that is reported is that of the first bad loss all the same."""
    monkeypatch.setattr(stack_module, "CHECK_EVERY", 5)
    data, sampler = breaks_for([1], broken=1, step=8)
    with pytest.raises(runtime.NonFiniteLoss) as caught:
        train_paired(network, [Method("a", F.cross_entropy)], data, seeds=[1], epochs=1, sampler=sampler)
    assert caught.value.step == 8
    monkeypatch.setattr(stack_module, "CHECK_EVERY", 50)
    with pytest.raises(runtime.NonFiniteLoss) as caught:
        train_paired(network, [Method("a", F.cross_entropy)], data, seeds=[1], epochs=9, sampler=sampler)
    assert caught.value.step == 8


def test_degenerate_one_sample_one_seed():
    x, y = blobs(n=1)
    stack, loop = (
        train_paired(network, [Method("a", F.cross_entropy)], (x, y), seeds=[0], epochs=3, vectorised=v)
        for v in (True, False)
    )
    assert stack.history["a"].shape == (1, 3)
    assert_same(stack, loop, 1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "unique names"),
        ({"methods": [Method("a", F.cross_entropy), Method("a", focal, {"gamma": 1.0})]}, "unique names"),
        ({"epochs": 0}, "at least one epoch"),
        ({"seeds": []}, "at least one epoch and one seed"),
        ({"batch_size": 0}, "at least 1, got 0"),
        ({"on_nonfinite": "ignore"}, "'raise' or 'stop'"),
        ({"data": (torch.zeros(0, 5), torch.zeros(0))}, "0 samples"),
        ({"data": (torch.zeros(4, 5), torch.zeros(3))}, "x has 4 samples, y has 3"),
        ({"data": lambda seed: blobs(n=30 + seed)}, "shapes differ between seeds"),
    ],
)
def test_degenerate_settings_are_refused(change, message):
    settings = {"methods": [Method("a", F.cross_entropy)], "data": blobs(), "seeds": [0, 1], "epochs": 1}
    with pytest.raises(ValueError, match=message):
        train_paired(network, **{**settings, **change})


def test_faults_of_a_loss_are_raised_as_they_are():
    def broken(output, y):
        raise ZeroDivisionError("in the loss")

    with pytest.raises(ZeroDivisionError, match="in the loss"):
        train_paired(network, [Method("a", broken)], blobs(), seeds=[0], epochs=100)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dtype_device_cuda_agrees_with_cpu():
    methods = [Method("ce", F.cross_entropy), Method("focal", focal, {"gamma": 2.0})]
    on = {}
    for device in ("cpu", "cuda"):
        for vectorised in (True, False):
            on[device, vectorised] = train_paired(
                network, methods, blobs, seeds=[0, 1], epochs=5, vectorised=vectorised, device=device
            )
    assert on["cuda", True].parameters["ce"]["layers.0.weight"].is_cuda
    for key in (("cuda", True), ("cuda", False)):
        for name in ("ce", "focal"):
            torch.testing.assert_close(on[key].history[name], on["cpu", True].history[name], rtol=1e-7, atol=1e-7)
    assert not on["cuda", True].logits("ce", blobs()[0]).is_cuda


class Tempered(nn.Module):
    """A linear map with a parameter of shape ()."""

    def __init__(self):
        super().__init__()
        self.linear, self.log_scale = nn.Linear(5, 3), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.linear(x) * self.log_scale.exp()


def test_parameter_of_no_dimension():
    stack, loop = (
        train_paired(
            lambda: Tempered().double(), [Method("ce", F.cross_entropy)], blobs, epochs=3, seeds=[0, 1], vectorised=v
        )
        for v in (True, False)
    )
    assert_same(stack, loop, 1e-10)
    assert (stack.parameters["ce"]["log_scale"] != 0).all()


def test_one_number_for_each_seed():
    """Hyperparameters (also tensors) and learning rates that differ between seeds, stacked and in a loop."""

    def weighted(output, y, gamma, weights):
        return focal(output, y, gamma) + F.cross_entropy(output, y, weight=weights)

    weights = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    hyper = {"gamma": [0.0, 1.0, 2.0], "weights": weights}
    stack, loop = both_ways([Method("own", weighted, hyper, lr=[0.1, 0.05, 0.2])])
    assert_same(stack, loop, 1e-10)
    alone = both_ways([Method("own", weighted, {"gamma": 2.0, "weights": weights[2:]}, lr=0.2)], seeds=[4])[1]
    torch.testing.assert_close(alone.history["own"][0], loop.history["own"][2])
