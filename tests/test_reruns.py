"""Every chapter runs to its end with other parameters than its own, through the command line."""

import json
import subprocess
import sys

import pytest

from lib import catalogue
from lib.run import execute, parameters
from lib.run import notebook as nb

CHAPTERS = execute.written()


def changes(paper):
    """The profile `smoke` of the catalogue, else half of what makes a run long."""
    if "smoke" in paper.profiles:
        return dict(paper.profiles["smoke"])
    declared = parameters.of(nb.read(paper.notebook))
    found = {}
    for name in ("seeds", "epochs", "steps"):
        if name in declared and declared[name].type == "int":
            low = declared[name].low
            found[name] = max(declared[name].default // 2, int(low) if low > 0 else 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("paper", CHAPTERS, ids=[paper.slug for paper in CHAPTERS])
def test_runs_with_other_parameters(paper, tmp_path):
    changed = changes(paper)
    assert changed, f"{paper.slug}: give the catalogue file `profiles: {{smoke: {{...}}}}` with quick values"
    (tmp_path / "values.json").write_text(json.dumps(changed))
    command = [sys.executable, "-m", "lib", "run", paper.slug, "--params-file", str(tmp_path / "values.json")]
    command += ["--device", "cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=catalogue.root(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert {name: record["parameters"][name] for name in changed} == changed
    assert set(record["claims"]) == {claim.id for claim in paper.claims}
    assert (tmp_path / "out" / f"{paper.slug}.html").stat().st_size > 100_000
