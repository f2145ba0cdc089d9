"""Begin a chapter: module, test and notebook of a paper, with everything that the catalogue knows filled in.

What is left to write says so and fails: the module raises NotImplementedError, each test names its oracle, and the
chapter cannot be executed, so that it has no record.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import nbformat

from lib import catalogue
from lib.run import notebook as nb
from lib.run import rooms
from lib.run.files import write_atomically

ORACLES = {
    "value_by_hand": "a small case computed by hand, with the computation in the docstring",
    "parity": "a well-kept peer package (pytest.importorskip), or delete this test",
    "limit": "a parameter value at which the method becomes a known one",
    "invariance": "what must not change the result: permutation, shift, scale",
    "gradcheck": "torch.autograd.gradcheck in float64; delete it where nothing is differentiated",
    "degenerate": "empty, one sample, huge values, NaN in: the behaviour that the docstring states",
    "dtype_device": "float32 and float64 kept, the device of the input kept",
}


def names(paper: catalogue.Paper) -> list[str]:
    """Public names that the catalogue promises (``PolyLoss(epsilon=2.0)``); else one made of the slug."""
    found = [name for name in re.findall(r"\b([A-Za-z_]\w*)\(", paper.component) if not name.startswith("_")]
    return list(dict.fromkeys(found)) or ["".join(word.capitalize() for word in paper.slug.split("-"))]


def create(paper: catalogue.Paper) -> list[Path]:
    """Write the skeletons that are missing; returns their paths.

    Raises:
        FileExistsError: all of them are there.
    """
    if all(path.exists() for path in (paper.source, paper.test, paper.notebook)):
        raise FileExistsError(f"{paper.slug} has module, test and notebook already; nothing was written")
    room = paper.source.parent / "__init__.py"
    if not room.exists():
        write_atomically(room, _room(paper.source.parent.name))
    made = []
    for path, write in ((paper.source, module), (paper.test, test)):
        if not path.exists():
            write_atomically(path, write(paper))
            made.append(path)
    if not paper.notebook.exists():
        nb.write(paper.notebook, notebook(paper))
        made.append(paper.notebook)
    rooms.write_stubs()
    return made


def _room(name: str) -> str:
    return (
        f'"""{name.capitalize()}, one module a paper; names are imported when first used."""\n\nimport lazy_loader\n\n'
        "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
    )


def _source(paper: catalogue.Paper) -> str:
    return f"arXiv {paper.arxiv}" if paper.arxiv else f"{paper.authors[-1]} {paper.year}"


def module(paper: catalogue.Paper) -> str:
    """Text of the module."""
    idea = textwrap.fill(paper.idea, 110).replace("\\", "\\\\").replace('"""', "'''")
    exported = names(paper)
    listed = ", ".join(f'"{name}"' for name in sorted(exported))
    title = textwrap.fill(f"{paper.short_title} ({_source(paper)}).", 110)
    parts = [
        f'"""{title}\n\n{idea}\n"""\n',
        "from __future__ import annotations\n",
        "from typing import Any\n",
        textwrap.fill(f"__all__ = [{listed}]", 110, subsequent_indent="    ", break_long_words=False) + "\n\n",
    ]
    for name in exported:
        todo = f'raise NotImplementedError("{name}: to be written from the paper")'
        doc = f'"""{name} of {_source(paper)}: formula, shapes, units, errors."""'
        if name[0].isupper():
            signature = "def __init__(self, *args: Any, **options: Any) -> None:"
            body = f"class {name}:\n    {doc}\n\n    {signature}\n        {todo}\n\n"
        else:
            body = f"def {name}(*args: Any, **options: Any) -> Any:\n    {doc}\n    {todo}\n\n"
        parts.append(body)
    return "\n".join(parts).rstrip() + "\n"


def test(paper: catalogue.Paper) -> str:
    """Text of the test file: one failing test an oracle."""
    lines = ["import pytest", "", f"import {paper.module} as module", ""]
    for oracle, wanted in ORACLES.items():
        lines += ["", f"def test_{oracle}():", f"    assert module.{sorted(names(paper))[0]}"]
        lines += [f'    pytest.fail("to be written: {wanted}")', ""]
    return "\n".join(lines).rstrip() + "\n"


def declaration(name: str, value: Any) -> str:
    """Line of the parameters cell for a registered parameter."""
    if isinstance(value, str):
        try:
            read = json.loads(value)
            value = read if isinstance(read, list) else value
        except ValueError:
            pass
    if isinstance(value, list) and len({type(item) for item in value} - {int, float}) == 0:
        kind = "list[float]" if any(isinstance(item, float) for item in value) else "list[int]"
    elif isinstance(value, list):
        kind, value = "list[str]", [str(item) for item in value]
    elif value is None:
        kind = "int | None"
    elif type(value) in (bool, int, float, str):
        kind = type(value).__name__
    else:
        kind, value = "str", json.dumps(value)
    return f"{name}: {kind} = {value!r}  # meaning (paper section)"


def notebook(paper: catalogue.Paper) -> Any:
    """The chapter with all its sections."""
    room, stem = paper.module.split(".")[1:]
    profiles = ", ".join(dict.fromkeys(["default", "reduced", "full", *paper.profiles]))
    declared = [
        *(declaration(name, value) for name, value in paper.parameters.items()),
        f'profile: str = "default"  # which parameter set this is; one of {profiles}',
        'device: str = "auto"  # where to compute; one of auto, cpu, cuda',
    ]
    tests = "\n".join(
        f'report.test("{claim.id}", claims.value_above(0.0, 0.0))  # {claim.test}'[:115] for claim in paper.claims
    )
    first = names(paper)[0]
    include = f"```{{literalinclude}} ../../lib/{room}/{stem}.py\n:pyobject: {first}\n:language: python\n```"
    cells: list[tuple[str, str, list[str]]] = [
        ("markdown", f"# {paper.short_title}: what the reader learns\n\nWhy the problem matters.", []),
        ("markdown", f"## The idea\n\n{{cite:t}}`{paper.slug}`", []),
        ("markdown", "## Parameters\n\nEverything below follows from these values.", []),
        ("code", "\n".join(declared), ["parameters"]),
        ("code", _setup(paper, first), []),
        ("markdown", "## The method\n\nEquations in the symbols of the paper.", []),
        ("markdown", f"## The implementation\n\n{include}", []),
        ("markdown", "## A sanity check\n\nWhich oracle, and why it must hold.", []),
        ("code", f'print("{first}: value against the oracle")', ["nbval-check-output"]),
        ("markdown", "## The experiment\n\nMethod and baselines, equal effort of tuning, paired seeds.", []),
        ("code", f'raise NotImplementedError("the experiment of {paper.slug}")', []),
        ("code", 'fig, ax = plots.figure()\nplots.show(fig, alt="What is drawn, and what it shows.")', []),
        ("markdown", "What the figure says.", []),
        ("markdown", "## The claims\n\nHow each claim is measured here.", []),
        ("code", f"{tests}\nreport.finish()", []),
        ("markdown", "## Turning the main parameter", []),
        ("code", 'fig, ax = plots.figure()\nplots.show(fig, alt="What is drawn, and what it shows.")', []),
        ("markdown", f"## What this scale cannot show\n\n{paper.beyond_scale}", []),
        ("markdown", f"## Run it again\n\n```bash\npython -m lib run {paper.slug} -p NAME=VALUE\n```", []),
        ("markdown", "## References\n\n```{footbibliography}\n```", []),
    ]
    made = []
    for index, (kind, text, tags) in enumerate(cells):
        cell: dict[str, Any] = {
            "id": f"cell-{index}",
            "cell_type": kind,
            "metadata": {"tags": tags} if tags else {},
            "source": text,
        }
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    plain = {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return nb.normalise(nbformat.from_dict(plain), digest="")  # type: ignore[no-untyped-call]


def _setup(paper: catalogue.Paper, name: str) -> str:
    room = paper.module.split(".")[1]
    return (
        "from lib import claims, plots, runtime\n"
        f"from lib.{room} import {name}\n"
        "from lib.record import Report\n\n"
        "plots.use_style()\n"
        f'report = Report("{paper.slug}", profile)\n'
        "where = runtime.device(device)"
    )
