"""torchvision beside a torch that its operators do not fit."""

import importlib
import subprocess
import sys

import pytest
import torch

from lib import _torchvision


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_with_operators_that_do_not_load():
    """A torchvision whose compiled part is missing, as with a wheel for another torch."""
    code = """
import torch
real = torch.ops.load_library
def refuse(path):
    raise OSError("undefined symbol")
torch.ops.load_library = refuse
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms" in str(error), error
else:
    raise SystemExit("this torchvision needs no help")
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
    del sys.modules[name]
from lib._torchvision import torchvision
package = torchvision()
assert package is torchvision()
assert package.datasets.MNIST.resources
assert package.transforms.functional.hflip(torch.arange(3.0)[None]).tolist() == [[2.0, 1.0, 0.0]]
boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6]])
print(torch.ops.torchvision.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist())
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[1, 2]"


def test_other_faults_are_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(importlib, "import_module", broken)
    _torchvision.torchvision.cache_clear()
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision.torchvision()
    _torchvision.torchvision.cache_clear()


def test_a_package_that_imports_is_left_alone(monkeypatch):
    package = object()
    monkeypatch.setattr(importlib, "import_module", lambda name: package)
    declared = len(_torchvision._declared)
    _torchvision.torchvision.cache_clear()
    assert _torchvision.torchvision() is package
    _torchvision.torchvision.cache_clear()
    assert len(_torchvision._declared) == declared


def test_value_by_hand_nms():
    # The second overlaps the first by 2/4 = 0.5, the third touches it.
    boxes = torch.tensor([[0.0, 0, 3, 1], [1, 0, 4, 1], [3, 0, 4, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert _torchvision.nms(boxes, scores, 0.4).tolist() == [0, 2]
    assert _torchvision.nms(boxes, scores, 0.6).tolist() == [0, 1, 2]


def test_parity_nms_with_the_definition():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(60, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(60, 2, generator=generator)], dim=1)
    scores = torch.rand(60, generator=generator)

    def overlap(a, b):
        low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
        shared = (high - low).clamp(min=0).prod()
        return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)

    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    assert 5 < len(kept) < 55
    assert _torchvision.nms(boxes, scores, 0.3).tolist() == kept


def test_degenerate_nms():
    assert _torchvision.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
    one = torch.tensor([[0.0, 0, 1, 1]])
    assert _torchvision.nms(one, torch.ones(1), 0.5).tolist() == [0]
