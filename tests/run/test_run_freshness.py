"""What makes a chapter stale, and what does not."""

import ast

import nbformat
import pytest

from lib import catalogue
from lib.run import freshness
from lib.run import notebook as nb

CELL = "from lib.losses import Method\nprint(Method)"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A checkout whose `lib` has just enough modules."""
    texts = {
        "data/parts.yaml": "[]",
        "lib/__init__.py": '__version__ = "1"',
        "lib/catalogue.py": "x = 1",
        "lib/stats.py": "def mean(x):\n    return sum(x) / len(x)\n",
        "lib/plots.py": "def local():\n    from lib import stats\n    return stats\n",
        "lib/losses/__init__.py": "import lazy_loader",
        "lib/losses/__init__.pyi": "from .method import Method as Method\nfrom .other import Other as Other\n",
        "lib/losses/method.py": '"""Doc."""\nfrom ._shared import helper\nclass Method:\n  """Doc."""\n  x = helper',
        "lib/losses/other.py": "from ..stats import mean\n\nOther = mean\n",
        "lib/losses/_shared.py": "helper = 1\n",
        "lib/plain/__init__.py": "from .inner import thing\n",
        "lib/plain/inner.py": "thing = 1\n",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("COMPANION_ROOT", str(tmp_path))

    def forget():
        catalogue.root.cache_clear()
        freshness.forget()

    def change(name, old, new):
        path = tmp_path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        forget()

    forget()
    yield change
    monkeypatch.undo()
    forget()


class Paper:
    claims = (catalogue.Claim("a", "statement", "metric", "test", "exact", {}),)


def digest(*cells, paper=Paper):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    return freshness.digest(paper, notebook)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("from lib.losses import Method", ["lib.losses._shared", "lib.losses.method"]),
        ("from lib.losses import Other", ["lib.losses.other", "lib.stats"]),
        ("from lib.losses.method import Method", ["lib.losses._shared", "lib.losses.method"]),
        ("from lib.losses import method", ["lib.losses._shared", "lib.losses.method"]),
        ("import lib.losses.other as o", ["lib.losses.other", "lib.stats"]),
        ("import lib.losses", ["lib.losses._shared", "lib.losses.method", "lib.losses.other", "lib.stats"]),
        ("from lib.losses import *", ["lib.losses._shared", "lib.losses.method", "lib.losses.other", "lib.stats"]),
        ("from lib import plots", ["lib.plots", "lib.stats"]),
        ("from lib.plain import thing", ["lib.plain", "lib.plain.inner"]),
        ("def f():\n    from lib import stats", ["lib.stats"]),
        ("%matplotlib inline\nfrom lib import stats", ["lib.stats"]),
        ("import torch\nfrom lib import catalogue, __version__", []),
        ("import library", []),
    ],
)
def test_modules_that_code_reaches(library, code, modules):
    assert freshness.modules([code]) == modules


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("lib/losses/_shared.py", "helper = 1", "helper = 2"),
        ("lib/losses/method.py", "x = helper", "x = -helper"),
    ],
)
def test_code_that_counts(library, name, old, new):
    before = digest(CELL)
    library(name, old, new)
    assert digest(CELL) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("lib/losses/method.py", '"""Doc."""', '"""Better words."""'),
        ("lib/losses/_shared.py", "helper = 1", "helper = 1  # why one"),
        ("lib/losses/_shared.py", "helper = 1", "helper = (\n    1\n)"),
        ("lib/losses/other.py", "Other = mean", "Other = 3"),
        ("lib/stats.py", "sum(x)", "max(x)"),
        ("lib/catalogue.py", "x = 1", "x = 2"),
        ("lib/__init__.py", '"1"', '"2"'),
    ],
)
def test_code_and_words_that_do_not_count(library, name, old, new):
    before = digest(CELL)
    library(name, old, new)
    assert digest(CELL) == before


def test_cells_and_claims_count_comments_and_prose_do_not(library):
    before = digest(CELL, "x: int = 3  # meaning; in [1, 4]")
    assert digest(CELL, "x: int = 3  # better meaning; in [1, 9]") == before
    assert digest(CELL, "x: int = 4  # meaning; in [1, 4]") != before
    assert digest("x: int = 3  # meaning; in [1, 4]", CELL) != before

    class Amended:
        claims = (catalogue.Claim("a", "another statement", "metric", "test", "exact", {}),)

    assert digest(CELL, paper=Amended) != digest(CELL)


def test_injected_parameters_do_not_count(library):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x: int = 3  # meaning")])
    before = freshness.digest(Paper, notebook)
    injected = nbformat.v4.new_code_cell("x = 9", metadata={"tags": ["injected-parameters"]})
    notebook.cells.append(injected)
    assert freshness.digest(Paper, notebook) == before


def test_meaning_tells_apart_what_python_tells_apart():
    texts = ["x = 1", "x = 1.0", "x = True", "x = '1'", "x = None", "x = ()", "x = []", "x += 1", "def x(): pass"]
    texts += ["def x(a): pass", "def x(*, a): pass", "def x(a, /): pass", "def x(a=None): pass", "lambda: 0", "-1", "0"]
    texts += ["return_ = 1", "f'{x}'", "f'{x!r}'", "f'{x:>3}'", "x[1]", "x[1:]", "x[:1]", "x[::1]", "b'1'", "1j"]
    assert len({freshness.meaning(text) for text in texts}) == len(texts)


def test_meaning_ignores_layout_and_nothing_else_of_this_project():
    for path in sorted((freshness.package() / "run").glob("*.py")):
        text = path.read_text()
        assert freshness.meaning(ast.unparse(ast.parse(text))) == freshness.meaning(text)


def test_a_damaged_record_or_notebook_is_a_reason(checkout):
    """Through the command line: see also test_run_execute."""
    (checkout.notebook("first-paper")).write_text("{")
    assert "not a notebook" in checkout.call("run", "first-paper", code=2)
    assert nb.tags({"metadata": {}}) == []
