"""SAM against hand values, a peer, its limits, its expansion, and bad input."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from lib.optim import SAM, frozen_statistics, m_sharpness_gradient, sam_gradient, sam_perturbation, sharpness


def quadratic(params):
    """0.5 (w1^2 + 10 w2^2)."""
    return 0.5 * (params["w"] ** 2 * torch.tensor([1.0, 10.0], dtype=params["w"].dtype)).sum()


def batch(n=24, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (n,), generator=generator)


def network(seed=0, dtype=torch.float32, *extra):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), *extra, nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def rows_of(model, x, y):
    """Loss as a function of parameters and of the samples (a slice), and the parameters."""

    def loss_of_rows(params, rows=slice(None)):
        return nn.functional.cross_entropy(torch.func.functional_call(model, params, (x[rows],)), y[rows])

    return loss_of_rows, {name: weight.detach().clone() for name, weight in model.named_parameters()}


def closure_of(model, optimizer, x, y, calls=None):
    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if calls is not None:
            calls.append(float(loss))
        return loss

    return closure


def total_norm(tensors, p=2.0):
    return torch.linalg.vector_norm(torch.cat([t.flatten() for t in tensors]), p)


# --- values by hand -------------------------------------------------------------------------------------------------


def test_value_by_hand_quadratic():
    grads, loss = sam_gradient(quadratic, {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}, rho=0.05)
    assert float(loss) == pytest.approx(5.5)  # at the unperturbed weights
    assert grads["w"].tolist() == pytest.approx([1.0049752, 10.4975186], abs=1e-7)
    step = sam_perturbation({"w": torch.tensor([1.0, 10.0], dtype=torch.float64)}, 0.05)["w"]
    assert step.tolist() == pytest.approx([0.0049752, 0.0497519], abs=1e-7)


def test_value_by_hand_norms():
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([-4.0, 0.0])}
    infinite = sam_perturbation(grads, 0.1, p=math.inf)  # rho sign(g)
    assert infinite["a"].tolist() == pytest.approx([0.1])
    assert infinite["b"].tolist() == pytest.approx([-0.1, 0.0])
    # p = 3, q = 3/2: e = rho sqrt|g| / (3^1.5 + 4^1.5)^(1/3)
    norm = (3**1.5 + 4**1.5) ** (1 / 3)
    cubic = sam_perturbation(grads, 0.1, p=3.0)
    assert cubic["a"].tolist() == pytest.approx([0.1 * 3**0.5 / norm], rel=1e-6)
    assert cubic["b"].tolist() == pytest.approx([-0.1 * 2 / norm, 0.0], rel=1e-6)


def test_value_by_hand_adaptive():
    # w = (2, -1), g = (1, 2): e = rho w^2 g / ||w g|| = rho (4, 2) / sqrt(8)
    step = sam_perturbation({"w": torch.tensor([1.0, 2.0])}, 0.1, weights={"w": torch.tensor([2.0, -1.0])})["w"]
    assert step.tolist() == pytest.approx([0.4 / 8**0.5, 0.2 / 8**0.5], rel=1e-6)


def test_value_by_hand_sharpness():
    # L = 0.5 (w1^2 + 10 w2^2) at (1, 1): L(w + e) - L(w) = <g, e> + e' H e / 2 with e = 0.5 (1, 10) / sqrt(101)
    rise = sharpness(quadratic, {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}, 0.5)
    assert float(rise) == pytest.approx(0.5 * 101**0.5 + 0.125 * (1 + 1000) / 101, rel=1e-12)
    assert float(sharpness(quadratic, {"w": torch.ones(2)}, 0.0)) == 0.0


def test_value_by_hand_optimizer_step():
    w = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = SAM([w], torch.optim.SGD, rho=0.05, lr=0.1, weight_decay=0.5)

    def closure():
        optimizer.zero_grad()
        loss = quadratic({"w": w})
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(5.5)
    # Weight decay is added to the SAM gradient at the original weights and is not part of the ascent.
    assert w.tolist() == pytest.approx([1 - 0.1 * (1.0049752 + 0.5), 1 - 0.1 * (10.4975186 + 0.5)], abs=1e-7)


# --- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parity_pytorch_optimizer(adaptive, dtype):
    peer_class = pytest.importorskip("pytorch_optimizer").SAM
    x, y = batch(dtype=dtype)
    options = {"rho": 0.3, "adaptive": adaptive, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    ours, theirs = network(0, dtype), network(0, dtype)
    optimizer = SAM(ours.parameters(), torch.optim.SGD, **options)
    peer = peer_class(theirs.parameters(), torch.optim.SGD, **options)
    for _ in range(5):
        optimizer.step(closure_of(ours, optimizer, x, y))
        peer_closure = closure_of(theirs, peer, x, y)
        peer_closure()  # the peer expects the first pass from its caller
        peer.step(peer_closure)
    tolerance = 1e-7  # the peer takes the norm in float32 whatever the weights are
    start = network(0, dtype)
    for first, second, before in zip(ours.parameters(), theirs.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)
        assert (first - before).abs().max() > 1e-2  # it did move


@pytest.mark.parametrize(("p", "adaptive"), [(2.0, False), (2.0, True), (math.inf, False), (3.0, True)])
def test_parity_optimizer_and_rows_of(p, adaptive):
    x, y = batch(dtype=torch.float64)
    model = network(0, torch.float64)
    loss_of_params, params = rows_of(copy.deepcopy(model), x, y)
    expected, loss = sam_gradient(loss_of_params, params, 0.2, p=p, adaptive=adaptive)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.2, p=p, adaptive=adaptive, lr=0.5)
    assert optimizer.step(closure_of(model, optimizer, x, y)).item() == pytest.approx(float(loss), rel=1e-12)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), params[name] - 0.5 * expected[name], rtol=1e-12, atol=1e-13)


def test_parity_vmap_and_loop():
    """A stack of models, each with a radius of its own, gives what one call a model gives."""
    x, y = batch(dtype=torch.float64)
    loss_of_params, _ = rows_of(network(0, torch.float64), x, y)
    each = [rows_of(network(s, torch.float64), x, y)[1] for s in range(4)]
    stacked = {name: torch.stack([params[name] for params in each]) for name in each[0]}
    radii = torch.tensor([0.0, 0.05, 0.2, 1.0], dtype=torch.float64)
    for p in (2.0, 3.0):
        grads, losses = torch.func.vmap(lambda at, rho, p=p: sam_gradient(loss_of_params, at, rho, p=p))(stacked, radii)
        for i, params in enumerate(each):
            single, loss = sam_gradient(loss_of_params, params, float(radii[i]), p=p)
            torch.testing.assert_close(losses[i], loss)
            for name in params:
                torch.testing.assert_close(grads[name][i], single[name], rtol=1e-10, atol=1e-12)


def test_parity_m_sharpness_is_the_weighted_mean_of_sub_batches():
    x, y = batch(20, torch.float64)
    loss_of_rows, params = rows_of(network(0, torch.float64), x, y)
    grads, loss = m_sharpness_gradient(loss_of_rows, params, 0.3, m=8, batch_size=20)  # 8 + 8 + 4
    parts = [
        sam_gradient(partial(loss_of_rows, rows=rows), params, 0.3)[0]
        for rows in (slice(0, 8), slice(8, 16), slice(16, 20))
    ]
    for name in params:
        expected = 0.4 * parts[0][name] + 0.4 * parts[1][name] + 0.2 * parts[2][name]
        torch.testing.assert_close(grads[name], expected, rtol=1e-12, atol=1e-14)
    assert float(loss) == pytest.approx(float(loss_of_rows(params)), rel=1e-12)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_limit_rho_zero_is_the_base_optimizer_bit_for_bit():
    x, y = batch()
    plain, sharp = network(0, torch.float32, nn.Dropout(0.3)), network(0, torch.float32, nn.Dropout(0.3))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    base, sam = torch.optim.SGD(plain.parameters(), **options), SAM(sharp.parameters(), torch.optim.SGD, 0.0, **options)
    for model, optimizer in ((plain, base), (sharp, sam)):
        torch.manual_seed(7)  # dropout draws one mask a step in both
        for _ in range(5):
            optimizer.step(closure_of(model, optimizer, x, y))
    for first, second in zip(plain.parameters(), sharp.parameters(), strict=True):
        assert torch.equal(first, second)


def test_limit_expansion():
    """g_SAM = g + rho H g / ||g|| + O(rho^2), H from the explicit Hessian of a small tanh network."""
    x, y = batch(dtype=torch.float64)
    loss_of_params, params = rows_of(network(0, torch.float64), x, y)
    names, shapes = list(params), [w.shape for w in params.values()]

    def flat_loss(flat):
        parts = flat.split([s.numel() for s in shapes])
        return loss_of_params({n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)})

    flat = torch.cat([w.flatten() for w in params.values()])
    g, hessian = torch.func.grad(flat_loss)(flat), torch.func.hessian(flat_loss)(flat)
    slope = hessian @ g / g.norm()

    def sam(rho):
        return torch.cat([v.flatten() for v in sam_gradient(loss_of_params, params, rho)[0].values()])

    quotient = (sam(1e-4) - g) / 1e-4
    assert float((quotient - slope).norm() / slope.norm()) < 1e-3
    radii = [1e-4, 1e-3, 1e-2]
    remainders = [float((sam(r) - g - r * slope).norm()) for r in radii]
    order = math.log(remainders[-1] / remainders[0]) / math.log(radii[-1] / radii[0])
    assert 1.9 < order < 2.1


def test_limit_m_sharpness_of_the_whole_batch_is_sam():
    x, y = batch(dtype=torch.float64)
    loss_of_rows, params = rows_of(network(0, torch.float64), x, y)
    expected, _ = sam_gradient(loss_of_rows, params, 0.3)
    for m in (len(x), 10 * len(x)):
        grads, _ = m_sharpness_gradient(loss_of_rows, params, 0.3, m=m, batch_size=len(x))
        for name in params:
            torch.testing.assert_close(grads[name], expected[name], rtol=1e-13, atol=1e-15)
    smaller, _ = m_sharpness_gradient(loss_of_rows, params, 0.3, m=4, batch_size=len(x))
    assert any((smaller[name] - expected[name]).abs().max() > 1e-4 for name in params)


# --- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_invariance_to_the_scale_of_the_loss(factor):
    generator = torch.Generator().manual_seed(1)
    grads = {"a": torch.randn(4, 3, generator=generator), "b": torch.randn(5, generator=generator)}
    scaled = {name: factor * g for name, g in grads.items()}
    for p in (2.0, 1.5, math.inf):
        one, other = sam_perturbation(grads, 0.05, p=p), sam_perturbation(scaled, 0.05, p=p)
        for name in grads:
            torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("p", [1.5, 2.0, 4.0, math.inf])
def test_invariance_norm_of_the_perturbation_is_rho(p):
    """... and <g, e> = rho ||g||_q attains Hölder's bound: nothing in the ball is worse to first order."""
    generator = torch.Generator().manual_seed(2)
    grads = {name: torch.randn(7, generator=generator, dtype=torch.float64) for name in "ab"}
    step = sam_perturbation(grads, 0.05, p=p)
    assert float(total_norm(step.values(), p)) == pytest.approx(0.05, rel=1e-10)
    q = 1.0 if math.isinf(p) else p / (p - 1)
    gain = sum(float((grads[name] * step[name]).sum()) for name in grads)
    assert gain == pytest.approx(0.05 * float(total_norm(grads.values(), q)), rel=1e-10)


def test_invariance_adaptive_to_rescaled_layers():
    """Scaling a weight by c and its gradient by 1/c (same function) scales ASAM's perturbation by c; SAM's does not."""
    w, g, c = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.1, -0.7]), 5.0
    before, after = (
        sam_perturbation({"w": grad}, 0.1, weights={"w": at})["w"] for at, grad in ((w, g), (c * w, g / c))
    )
    torch.testing.assert_close(after, c * before)


# --- degenerate input -----------------------------------------------------------------------------------------------


def test_degenerate_zero_gradient_is_no_perturbation():
    for p in (2.0, 3.0, math.inf):
        step = sam_perturbation({"w": torch.zeros(3)}, 0.1, p=p)["w"]
        assert torch.equal(step, torch.zeros(3))
    w = nn.Parameter(torch.ones(2))
    optimizer = SAM([w], torch.optim.SGD, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (0.0 * w).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(w.detach(), torch.ones(2))


def test_degenerate_single_scalar_parameter():
    grads, _ = sam_gradient(lambda params: params["w"] ** 2, {"w": torch.tensor(1.0)}, 0.5)
    assert float(grads["w"]) == pytest.approx(3.0)  # 2 (1 + 0.5)


def test_degenerate_nan_spreads_in_the_pure_function():
    step = sam_perturbation({"a": torch.tensor([1.0, math.nan]), "b": torch.ones(2)}, 0.1)
    assert step["a"].isnan().all()
    assert step["b"].isnan().all()
    step = sam_perturbation({"a": torch.tensor([1.0, math.inf])}, 0.1)["a"]
    assert step.tolist() == pytest.approx([0.0, math.nan], nan_ok=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_degenerate_non_finite_gradient_leaves_the_weights(bad):
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).sum()
        loss.backward()
        next(model.parameters()).grad[0, 0] = bad
        return loss

    with pytest.raises(FloatingPointError, match="not finite"):
        optimizer.step(closure)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_degenerate_closure_that_fails_in_the_second_pass_leaves_the_weights():
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer, calls = SAM(model.parameters(), torch.optim.SGD, lr=0.1), []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).sum()
        loss.backward()
        return loss

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_degenerate_arguments():
    w = nn.Parameter(torch.ones(2))
    for rho in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="rho"):
            SAM([w], torch.optim.SGD, rho=rho, lr=0.1)
    with pytest.raises(ValueError, match="rho"):
        sam_perturbation({"w": w}, -1.0)
    for p in (1.0, 0.5):
        with pytest.raises(ValueError, match="p must be above 1"):
            SAM([w], torch.optim.SGD, p=p, lr=0.1)
        with pytest.raises(ValueError, match="p must be above 1"):
            sam_perturbation({"w": w}, 0.1, p=p)
    with pytest.raises(ValueError, match="no gradients"):
        sam_perturbation({}, 0.1)
    optimizer = SAM([w], torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="backward"):
        optimizer.step(lambda: torch.tensor(0.0))
    w.grad = torch.ones(2)
    optimizer.ascend()
    with pytest.raises(RuntimeError, match="restore"):
        optimizer.ascend()
    loss_of_rows, params = rows_of(network(), *batch(4))
    for m, size in ((0, 4), (2, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            m_sharpness_gradient(loss_of_rows, params, 0.1, m=m, batch_size=size)


def test_degenerate_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = SAM(table.parameters(), torch.optim.SGD, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = table(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step(closure)


# --- the optimiser as an optimiser ----------------------------------------------------------------------------------


def test_invariance_batch_norm_sees_the_first_pass_only():
    x, y = batch()
    model, reference = network(0, torch.float32, nn.BatchNorm1d(8)), network(0, torch.float32, nn.BatchNorm1d(8))
    reference(x)  # one training-mode pass at the start weights
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, model=model, lr=0.1)
    optimizer.step(closure_of(model, optimizer, x, y))
    for name, value in reference[1].named_buffers():
        torch.testing.assert_close(dict(model[1].named_buffers())[name], value)
    assert model[1].track_running_stats
    loose = network(0, torch.float32, nn.BatchNorm1d(8))
    optimizer = SAM(loose.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    optimizer.step(closure_of(loose, optimizer, x, y))
    assert int(loose[1].num_batches_tracked) == 2  # without `model` both passes count


def test_invariance_frozen_statistics_normalise_by_the_batch():
    layer, x = nn.BatchNorm1d(6), batch()[0] + 3
    expected, before = copy.deepcopy(layer)(x), copy.deepcopy(layer.state_dict())
    with frozen_statistics(layer):
        torch.testing.assert_close(layer(x), expected)
    with pytest.raises(RuntimeError, match="elements"), frozen_statistics(layer):
        layer(x[:, :2])  # tracking comes back whatever happens
    assert layer.track_running_stats
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_invariance_dropout_repeats_in_the_second_pass():
    x, y = batch()
    model, masks = network(0, torch.float32, nn.Dropout(0.5)), []
    model[1].register_forward_hook(lambda layer, inputs, output: masks.append(output != 0))
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    for _ in range(2):
        optimizer.step(closure_of(model, optimizer, x, y))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


def test_parity_resumed_from_a_state_dict():
    x, y = batch()
    options = {"rho": 0.2, "lr": 0.1, "momentum": 0.9}
    model = network()
    optimizer = SAM(model.parameters(), torch.optim.SGD, **options)
    for _ in range(3):
        optimizer.step(closure_of(model, optimizer, x, y))
    resumed = copy.deepcopy(model)
    again = SAM(resumed.parameters(), torch.optim.SGD, rho=0.9, lr=0.7, momentum=0.1)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.param_groups[0]["rho"] == 0.2
    for net, opt in ((model, optimizer), (resumed, again)):
        for _ in range(3):
            opt.step(closure_of(net, opt, x, y))
    for first, second in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_parity_scheduler_reaches_the_base_optimizer():
    x, y = batch()
    model, frozen = network(), None
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.0)
    optimizer.step(closure_of(model, optimizer, x, y))
    scheduler.step()  # learning rate 0 from here
    frozen = copy.deepcopy(model.state_dict())
    optimizer.step(closure_of(model, optimizer, x, y))
    assert all(torch.equal(frozen[name], weight) for name, weight in model.state_dict().items())


def test_value_by_hand_groups_with_their_own_rho():
    """The norm runs over all groups, each group moves by its own radius: g = (3, 4), ||g|| = 5."""
    a, b = nn.Parameter(torch.tensor([0.0])), nn.Parameter(torch.tensor([0.0]))
    optimizer = SAM([{"params": [a], "rho": 0.5}, {"params": [b]}], torch.optim.SGD, rho=0.1, lr=0.1)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.ascend()
    assert (a.item(), b.item()) == pytest.approx((0.3, 0.08))
    optimizer.restore()
    assert (a.item(), b.item()) == (0.0, 0.0)
    with pytest.raises(ValueError, match="rho"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": -1.0})


def test_parity_maximise():
    """Maximising -L is minimising L: the ascent then goes down -L."""
    weights = []
    for sign in (1.0, -1.0):
        w = nn.Parameter(torch.tensor([1.0, 1.0]))
        optimizer = SAM([w], torch.optim.SGD, rho=0.05, lr=0.1, maximize=sign < 0)

        def closure(w=w, sign=sign, optimizer=optimizer):
            optimizer.zero_grad()
            loss = sign * quadratic({"w": w})
            loss.backward()
            return loss

        optimizer.step(closure)
        weights.append(w.detach())
    assert torch.equal(*weights)


# --- gradients, types, devices --------------------------------------------------------------------------------------


def test_gradcheck_is_the_gradient_at_the_perturbed_point():
    """Finite differences of the loss around w + e, e held fixed."""
    x, y = batch(8, torch.float64)
    loss_of_params, params = rows_of(network(0, torch.float64), x, y)
    step = sam_perturbation(torch.func.grad(loss_of_params)(params), 0.3)
    worst = {name: (weight + step[name]).requires_grad_() for name, weight in params.items()}
    assert torch.autograd.gradcheck(lambda *w: loss_of_params(dict(zip(params, w, strict=True))), tuple(worst.values()))
    expected = torch.autograd.grad(loss_of_params(worst), list(worst.values()))
    grads, _ = sam_gradient(loss_of_params, params, 0.3)
    for name, value in zip(params, expected, strict=True):
        torch.testing.assert_close(grads[name], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(dtype):
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        # The square of the large one overflows float16, the inverse norm of the small one too.
        for p, size in ((2.0, 300.0), (3.0, 300.0), (2.0, 1e-6)):
            grads = {"w": torch.full((8,), size, dtype=dtype, device=device)}
            step = sam_perturbation(grads, torch.tensor(0.5), p=p)["w"]
            assert (step.dtype, step.device.type) == (dtype, device)
            assert float(total_norm([step.double()], p)) == pytest.approx(0.5, rel=1e-2)
        w = nn.Parameter(torch.ones(3, dtype=dtype, device=device))
        optimizer = SAM([w], torch.optim.SGD, lr=0.1)

        def closure(w=w, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (w**2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        # 1 - 0.1 * 2 (1 + 0.05 / sqrt 3)
        assert w.tolist() == pytest.approx([1 - 0.2 * (1 + 0.05 / 3**0.5)] * 3, rel=1e-2)
        assert (w.dtype, w.device.type) == (dtype, device)
