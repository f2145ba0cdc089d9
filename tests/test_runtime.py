"""Device, seeds, threads, progress, and the error of a run that breaks."""

import io
import random
import sys

import numpy as np
import pytest
import torch

from lib import runtime


def cuda(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "environment", "devices", "expected"),
    [
        ("auto", None, 0, "cpu"),
        ("auto", None, 1, "cuda"),
        ("auto", "cpu", 1, "cpu"),
        ("auto", "cuda:1", 2, "cuda:1"),
        ("auto", "", 0, "cpu"),
        ("auto", "auto", 0, "cpu"),
        ("cpu", "cuda", 1, "cpu"),
        ("cuda", "cpu", 1, "cuda"),
        ("cuda:0", None, 1, "cuda:0"),
    ],
)
def test_value_by_hand_device(monkeypatch, name, environment, devices, expected):
    cuda(monkeypatch, devices)
    monkeypatch.delenv("COMPANION_DEVICE", raising=False)
    if environment is not None:
        monkeypatch.setenv("COMPANION_DEVICE", environment)
    assert runtime.device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "environment", "devices", "message"),
    [
        ("cuda", None, 0, "'cuda' asked for, but this machine has 0 CUDA devices"),
        ("cuda:2", None, 2, "'cuda:2' asked for, but this machine has 2"),
        ("auto", "cuda", 0, "'cuda' asked for"),
        ("gpu", None, 1, "unknown device 'gpu'; one of auto, cpu, cuda"),
        ("", None, 1, "unknown device ''"),
        ("meta", None, 1, "not supported"),
    ],
)
def test_degenerate_device(monkeypatch, name, environment, devices, message):
    cuda(monkeypatch, devices)
    monkeypatch.delenv("COMPANION_DEVICE", raising=False)
    if environment:
        monkeypatch.setenv("COMPANION_DEVICE", environment)
    with pytest.raises(runtime.DeviceError, match=message):
        runtime.device(name)


def draws():
    return random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002


def test_seed_everything():
    runtime.seed_everything(3)
    first = draws()
    runtime.seed_everything(3)
    assert draws() == first
    runtime.seed_everything(4)
    assert draws() != first
    runtime.seed_everything(2**40)  # beyond NumPy's 32 bits


def test_generators():
    expected = torch.rand(5, generator=torch.Generator().manual_seed(7))
    torch.rand(100)
    assert torch.equal(torch.rand(5, generator=runtime.generator(7)), expected)
    numbers = [
        tuple(torch.rand(5, generator=runtime.generator(seed, stream=stream)).tolist())
        for seed in range(20)
        for stream in range(5)
    ]
    assert len(set(numbers)) == 100
    again = torch.rand(5, generator=runtime.generator(3, stream=2))
    assert tuple(again.tolist()) == numbers[3 * 5 + 2]
    # streams of one seed are not correlated
    many = torch.stack([torch.rand(20_000, generator=runtime.generator(0, stream=stream)) for stream in range(4)])
    assert (torch.corrcoef(many) - torch.eye(4)).abs().max() < 0.03


def test_isolated_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with runtime.isolated(5):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4), inside)
    torch.manual_seed(1)
    with pytest.raises(KeyError), runtime.isolated(5):
        raise KeyError
    assert torch.equal(torch.rand(4), expected)


def test_threads():
    before = torch.get_num_threads()
    try:
        runtime.threads(1)
        assert torch.get_num_threads() == 1
        with pytest.raises(ValueError, match="at least 1"):
            runtime.threads(0)
    finally:
        runtime.threads(before)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("quiet", "stream", "shows"), [(None, Terminal, True), ("1", Terminal, False), (None, io.StringIO, False)]
)
def test_progress(monkeypatch, quiet, stream, shows):
    monkeypatch.delenv("COMPANION_QUIET", raising=False)
    if quiet:
        monkeypatch.setenv("COMPANION_QUIET", quiet)
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    seen = []
    for value in runtime.progress(iter(range(3)), "training", total=3):
        seen.append(value)
        if shows:  # the bar waits half a second before it shows
            import time

            time.sleep(0.6)
    assert seen == [0, 1, 2]
    assert ("training" in sys.stderr.getvalue()) == shows


def test_value_by_hand_nonfinite_loss():
    error = runtime.NonFiniteLoss("sam", 4, 17, [0.5, 0.25, 1e9])
    assert (error.run, error.seed, error.step, error.last_finite) == ("sam", 4, 17, (0.5, 0.25, 1e9))
    assert str(error) == "sam, seed 4: loss not finite at step 17; last finite losses: 0.5, 0.25, 1e+09"
    assert str(runtime.NonFiniteLoss("run", None, 0)) == "run: loss not finite at step 0; last finite losses: none"
