"""A small checkout: a copy of `lib`, three papers, two chapters that run in about two seconds each."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parents[2]

PARAMETERS = """
gain: float = 2.0  # factor of the values (sec. 2); in (0, 10]
steps: int = 3  # how many values; in [1, 50]
grid: list[float] = [0.1, 0.2]  # points; in [0, 1]
form: str = "pair"  # which form; one of pair, class
label: str = "plain"  # text that is carried along
limit: int | None = None  # largest value, none for no limit; in [1, 9]
fast: bool = True  # whether to skip nothing
profile: str = "default"  # which parameter set this is; one of default, full
device: str = "auto"  # where to compute; one of auto, cpu, cuda
"""

REPORT = """
values = [gain * (step + 1) for step in range(steps)]
report.table("values", pd.DataFrame({"step": list(range(steps)), "label": label, "value": values}))
report.test("grows", claims.value_above(min(values), 0.0))
report.finish()
"""


def row(slug: str, position: int) -> dict:
    return {
        "slug": slug,
        "title": f"The paper {slug}",
        "short_title": slug.title(),
        "part": "examples",
        "position": position,
        "authors": ["A. Author"],
        "year": 2020,
        "venue": None,
        "arxiv": None,
        "code": None,
        "identity": "high",
        "kind": "loss",
        "effort": "S",
        "method_certainty": "high",
        "fidelity": "adapted",
        "component": "grow(values)",
        "idea": "Values grow.",
        "tags": ["curvature"] if position == 1 else [],
        "parameters": {"gain": 2.0, "steps": 3},
        "claims": [
            {"id": "grows", "statement": "Values grow.", "metric": "min", "test": "above 0", "evidence": "exact"}
        ],
        "beyond_scale": "Nothing.",
        "profiles": {"full": {"steps": 20}, "wrong": {"steps": 2000}},
    }


def notebook(slug: str, *extra: str, parameters: str = PARAMETERS, report: str = REPORT) -> nbformat.NotebookNode:
    setup = f"""
        import pandas as pd
        from lib import claims
        from lib.record import Report
        from lib.losses import grow
        report = Report("{slug}", profile)
    """
    cells = [
        new_markdown_cell(f"# {slug}"),
        new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}),
        new_code_cell(dedent(setup).strip()),
        *[new_code_cell(dedent(text).strip()) for text in extra],
        new_code_cell(report.strip()),
    ]
    return new_notebook(cells=cells)


class Checkout:
    """A folder that looks like the project's, and its command line."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, slug: str, *extra: str, **options: str) -> Path:
        path = self.notebook(slug)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(slug, *extra, **options), path)
        return path

    def record(self, slug: str, profile: str = "default") -> Path:
        return self.root / "data" / "records" / slug / f"{profile}.json"

    def notebook(self, slug: str) -> Path:
        return self.root / "notebooks" / "examples" / f"{slug}.ipynb"

    def state(self) -> dict[Path, bytes]:
        """Every notebook and record with its bytes."""
        files = [*self.root.glob("notebooks/**/*"), *self.root.glob("data/records/**/*")]
        return {path: path.read_bytes() for path in files if path.is_file()}

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COMPANION_")}
        return {**kept, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}

    def call_python(self, code: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: object, **more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "lib", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.root, env=self.environment(**more), **pipes)

    def call(self, *arguments: object, code: int = 0, **more: str) -> str:
        """Run the command line, expect an exit code, return all that it printed."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=180)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback (most recent call last)" not in err or code == 1, err
        return out + err


def build(root: Path) -> Checkout:
    """Make the checkout in a folder that does not exist yet."""
    shutil.copytree(HERE / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (root / "lib" / "losses").glob("*.py"):
        if module.stem != "__init__":
            module.unlink()
    (root / "lib" / "losses" / "grow_values.py").write_text(
        '"""Growing."""\n\n__all__ = ["grow"]\n\n\ndef grow(x):\n    """Grow."""\n    return 2 * x\n'
    )
    (root / "lib" / "losses" / "__init__.pyi").write_text("from .grow_values import grow as grow\n")
    (root / "data" / "papers" / "examples").mkdir(parents=True)
    part = {"slug": "examples", "title": "Examples", "short_title": "Examples"}
    (root / "data" / "parts.yaml").write_text(yaml.safe_dump([part]))
    made = Checkout(root)
    for position, slug in enumerate(("first-paper", "second-paper", "third-paper"), 1):
        path = root / "data" / "papers" / "examples" / f"{slug}.yaml"
        path.write_text(yaml.safe_dump(row(slug, position), sort_keys=False))
    shutil.copy(HERE / "pyproject.toml", root)
    made.call_python("from lib import catalogue; catalogue.extend_lock()")
    made.add("first-paper")
    made.add("second-paper")
    return made
