"""The anatomy of every chapter, and that nothing of an executed paper is missing anywhere."""

import ast
import base64
import importlib
import json
import re

import pytest

from lib import catalogue
from lib.run import execute, freshness, parameters, verify
from lib.run import notebook as nb
from lib.run.scaffold import ORACLES

CHAPTERS = execute.written()
PAPERS = pytest.mark.parametrize("paper", CHAPTERS, ids=[paper.slug for paper in CHAPTERS])
CELLS, CODE_LINES, WORDS = range(18, 27), 25, range(900, 1501)
FIGURES, FIGURE_BYTES, OUTPUT_BYTES = 3, 40 * 1024, 120 * 1024
SECTIONS = [
    "The idea",
    "Parameters",
    "The method",
    "The implementation",
    "A sanity check",
    "The experiment",
    "The claims",
    "Turning the main parameter",
    "What this scale cannot show",
    "Run it again",
    "References",
]


def outputs(notebook):
    return [output for cell in nb.code_cells(notebook) for output in cell["outputs"]]


def images(notebook):
    return [output["data"]["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]


def prose(notebook):
    """Markdown without fences, display equations, inline code and comments."""
    text = "\n\n".join(nb.source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    for pattern in (r"(?ms)^(`{3,}|~{3,}|:{3,}).*?^\1\s*$", r"(?s)\$\$.*?\$\$", r"(?s)<!--.*?-->", r"`[^`\n]*`"):
        text = re.sub(pattern, " ", text)
    return re.sub(r"\$[^$\n]+\$", "x", text)


def test_every_notebook_has_its_paper():
    found = {path.relative_to(catalogue.root()) for path in (catalogue.root() / "notebooks").rglob("*.ipynb")}
    found = {path for path in found if ".ipynb_checkpoints" not in path.parts}
    assert found == {paper.notebook.relative_to(catalogue.root()) for paper in CHAPTERS}


def test_every_record_has_its_notebook():
    with_record = {path.parent.name for path in (catalogue.root() / "data" / "records").glob("*/*.json")}
    assert with_record == {paper.slug for paper in CHAPTERS}


@PAPERS
def test_anatomy(paper):
    notebook = nb.read(paper.notebook)
    cells = notebook["cells"]
    assert len(cells) in CELLS
    first = nb.source(cells[0])
    assert cells[0]["cell_type"] == "markdown"
    assert re.match(r"# \S.*: \S", first), "the title is `# <short title>: <what the reader learns>`"
    headings = re.findall(r"(?m)^## (.+?)\s*$", "\n\n".join(nb.source(cell) for cell in cells))
    wanted = [heading for heading in SECTIONS if paper.claims or heading != "The claims"]
    assert [heading for heading in headings if heading in SECTIONS] == wanted
    longest = max(nb.source(cell).count("\n") + 1 for cell in nb.code_cells(notebook))
    assert longest <= CODE_LINES
    words = len(re.findall(r"[^\W\d_][\w'’-]*", prose(notebook)))
    assert words in WORDS, f"{words} words of prose"
    assert "{literalinclude}" in "".join(nb.source(cell) for cell in cells), "the implementation is shown from lib"


@PAPERS
def test_was_executed_without_fault(paper):
    notebook = nb.read(paper.notebook)
    counts = [cell["execution_count"] for cell in nb.code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    errors = [output["evalue"] for output in outputs(notebook) if output["output_type"] == "error"]
    assert errors == []
    said = [output["text"] for output in outputs(notebook) if output.get("name") == "stderr"]
    assert said == [], "a chapter writes nothing to stderr"
    assert nb.tagged(notebook, "injected-parameters") == [], "a chapter is committed at its defaults"
    checked = nb.tagged(notebook, "nbval-check-output")
    assert [cell for cell in checked if cell["outputs"]], "no cell with output is tagged nbval-check-output"


@PAPERS
def test_figures_and_sizes(paper):
    notebook = nb.read(paper.notebook)
    sizes = [len(base64.b64decode(image)) for image in images(notebook)]
    assert 1 <= len(sizes) <= FIGURES
    assert max(sizes) <= FIGURE_BYTES
    assert len(json.dumps(outputs(notebook))) <= OUTPUT_BYTES
    for cell in nb.code_cells(notebook):
        drawn = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        assert len(drawn) <= 1, "one figure a cell"
        if drawn:
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"the figure of {nb.source(cell)[:60]!r} has no alt text"
            assert not alt.startswith("<Figure")


@PAPERS
def test_no_traces_of_the_machine(paper):
    """Nothing that changes from run to run or from machine to machine."""
    notebook = nb.read(paper.notebook)
    text = json.dumps(outputs(notebook))
    for trace in (str(catalogue.root()), "/home/", "/tmp/", "site-packages", " object at 0x", "0x7f"):
        assert trace not in text
    assert nb.normalise(notebook, notebook["metadata"]["companion"]["digest"]) == notebook


@PAPERS
def test_parameters(paper):
    declared = parameters.of(nb.read(paper.notebook))  # raises on a bad cell
    assert {"profile", "device"} <= set(declared)
    explained = " ".join([*paper.deviations, *(change["what"] for change in paper.amendments)])
    for name, registered in paper.parameters.items():
        if re.search(rf"\b{re.escape(name)}\b", explained):
            continue
        assert name in declared, f"registered parameter {name} is missing; if that is meant, say so under deviations"
        if isinstance(registered, str) and declared[name].item != "str":
            registered = declared[name].convert(registered)
        assert declared[name].check(registered) == declared[name].default, f"registered default of {name}"


@PAPERS
def test_profiles(paper):
    declared = parameters.of(nb.read(paper.notebook))
    for profile, values in paper.profiles.items():
        parameters.resolve(declared, values, {"profile": profile} if profile != "smoke" else {})


@PAPERS
def test_is_fresh_and_its_evidence_holds(paper):
    assert freshness.stale(paper) == ""
    assert verify.faults(paper) == []


@PAPERS
def test_nothing_is_missing(paper):
    importlib.import_module(paper.module)
    assert paper.test.exists()
    names = [node.name for node in ast.parse(paper.test.read_text()).body if isinstance(node, ast.FunctionDef)]
    kinds = {oracle for oracle in ORACLES for name in names if name.startswith(f"test_{oracle}")}
    assert len(kinds) >= 2, f"{paper.test} has only the oracles {sorted(kinds)}"
    page = str(paper.notebook.relative_to(catalogue.root()).with_suffix(""))
    assert page in (catalogue.root() / "_toc.yml").read_text()
