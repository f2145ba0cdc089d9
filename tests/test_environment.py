"""The pinned environments: exact, the same for pip and conda, within the project's ranges, and nothing else."""

from __future__ import annotations

import re

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lib import catalogue
from lib.run import pins

ROOT = catalogue.root()
EXACT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!]*)")


def parse(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        match = EXACT.fullmatch(line)
        assert match, f"not an exact pin of a published version: {line!r}"
        assert canonicalize_name(match[1]) not in found, f"{match[1]} is pinned twice"
        found[canonicalize_name(match[1])] = match[2]
    return found


def of_pip() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return parse([line for line in lines if not line.startswith("#")])


def of_conda() -> tuple[list[str], dict[str, str], list[str]]:
    """Conda's own dependencies, the pins of its pip section, and what else is there."""
    rows = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    own = [row for row in rows if isinstance(row, str)]
    (pip,) = [row["pip"] for row in rows if isinstance(row, dict)]
    return (
        own,
        parse([line for line in pip if not line.startswith("-")]),
        [line for line in pip if line.startswith("-")],
    )


def test_conda_and_pip_have_the_same_pins():
    _, pinned, rest = of_conda()
    assert pinned == of_pip()
    assert rest == ["--editable ."]


def test_conda_has_a_python_that_the_project_admits():
    own, _, _ = of_conda()
    (python,) = [row for row in own if row.startswith("python")]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert Version(python.partition("=")[2]) >= Version("3.11")
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("requirement", pins.declared(), ids=str)
def test_pins_are_within_the_ranges(requirement: Requirement):
    version = of_pip().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not pinned; run `make pins`"
    assert requirement.specifier.contains(version, prereleases=True)


def test_everything_installed_is_pinned_and_nothing_else():
    """Transitive dependencies too, at the versions that run here."""
    installed = {canonicalize_name(name): version for name, version in pins.installed(pins.declared()).items()}
    pinned = of_pip()
    # An accelerator build of torch brings packages of its own, whose versions torch fixes itself.
    extra = {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert {name: version for name, version in installed.items() if name not in extra} == pinned


def test_no_name_of_a_host_and_no_path():
    for name in ("requirements.txt", "environment.yml"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?:|file:|/|@|--index|--find-links", text.replace("--editable .", ""))
