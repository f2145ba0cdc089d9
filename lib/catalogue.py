"""The catalogue: one YAML file a paper, its schema, and the lock that pre-registers the claims.

`claims.lock` holds one line a claim: `<slug>/<id> <sha256>` of the claim as it was registered, before any result
existed.  A claim changes only through an amendment in its file that keeps the registered text under
`before`; the lock never changes for a registered claim.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KINDS = {
    "loss": "losses",
    "optimiser": "optim",
    "trainer": "trainers",
    "architecture": "models",
    "layer": "layers",
    "sampler": "samplers",
    "augmentation": "augment",
    "metric": "metrics",
    "attribution": "attribution",
    "estimator": "estimators",
    "theory": "theory",
    "regulariser": "regularisers",
    "survey": "theory",
    "dataset": "data",
}
"""Kind of a paper -> the room of `lib` that its module lives in."""

FIDELITIES = {
    "exact": "the paper's method and setting, at full or reduced size",
    "adapted": "the paper's method in a smaller setting; deviations are stated",
    "reconstructed": "text or code of the paper left gaps that we filled; the chapter says which parts are ours",
}

_TEXT = {"type": "string", "minLength": 1}
_DATE = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
_ID = {"type": "string", "pattern": r"^[a-z0-9]+(-[a-z0-9]+)*$"}
_CLAIM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "statement", "metric", "test", "evidence"],
    "properties": {
        "id": {"type": "string", "pattern": r"^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$"},
        "statement": _TEXT,
        "metric": _TEXT,
        "test": _TEXT,
        "evidence": {"enum": ["statistical", "exact"]},
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": (
        "slug title short_title part position authors year venue arxiv code identity kind effort "
        "method_certainty fidelity component idea tags parameters claims beyond_scale"
    ).split(),
    "properties": {
        "slug": _ID,
        "title": _TEXT,
        "short_title": _TEXT,
        "part": _ID,
        "position": {"type": "integer", "minimum": 1},
        "authors": {"type": "array", "minItems": 1, "items": _TEXT},
        "year": {"type": "integer", "minimum": 1950, "maximum": 2100},
        "venue": {"type": ["string", "null"]},
        "arxiv": {"type": ["string", "null"], "pattern": r"^(\d{4}\.\d{4,5}|[a-z-]+/\d{7})$"},
        "code": {"type": ["string", "null"]},
        "identity": {"enum": ["high", "medium", "low"]},
        "kind": {"enum": sorted(KINDS)},
        "effort": {"enum": ["S", "M", "L"]},
        "method_certainty": {"enum": ["high", "medium", "low"]},
        "fidelity": {"enum": sorted(FIDELITIES)},
        "component": _TEXT,
        "idea": _TEXT,
        "tags": {"type": "array", "uniqueItems": True, "items": _ID},
        "parameters": {"type": "object"},
        "claims": {"type": "array", "minItems": 1, "items": _CLAIM},
        "beyond_scale": _TEXT,
        "profiles": {"type": "object", "additionalProperties": {"type": "object"}},
        "deviations": {"type": "array", "items": _TEXT},
        "reported": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["what", "value", "data", "setup", "source"],
                "properties": dict.fromkeys(("what", "value", "data", "setup", "source"), _TEXT),
            },
        },
        "amendments": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["date", "what", "reason"],
                "properties": {
                    "date": _DATE,
                    "what": _TEXT,
                    "reason": _TEXT,
                    "before": _CLAIM,
                },
            },
        },
    },
}
FIELD_ORDER = tuple(SCHEMA["properties"])
LEADERBOARD = {"title", "short_title", "component", "idea", "parameters", "profiles", "deviations", "amendments"}
"""Fields of a file in `data/leaderboards`, with the meaning that they have for a paper; `component` is a module."""
_NO_PAPER: dict[str, Any] = {
    "position": 10_000,
    "authors": (),
    "year": 0,
    "venue": None,
    "arxiv": None,
    "code": None,
    "identity": "high",
    "kind": "leaderboard",
    "effort": "L",
    "method_certainty": "high",
    "fidelity": "exact",
    "tags": (),
    "claims": (),
    "beyond_scale": "",
    "reported": (),
}


class CatalogueError(Exception):
    """A catalogue file breaks the schema, or the lock does not match; the text names file, field and line."""


class UnknownSlug(KeyError):
    """No paper has this slug; the text names the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Part:
    """One of the nineteen parts of the book."""

    slug: str
    title: str
    short_title: str


@dataclass(frozen=True)
class Claim:
    """A claim as it stands, and as it was registered where an amendment changed it."""

    id: str
    statement: str
    metric: str
    test: str
    evidence: str
    registered: Mapping[str, str] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of the registered text, independent of YAML layout."""
        text = json.dumps(dict(self.registered), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Paper:
    """One catalogue file."""

    slug: str
    title: str
    short_title: str
    part: str
    position: int
    authors: tuple[str, ...]
    year: int
    venue: str | None
    arxiv: str | None
    code: str | None
    identity: str
    kind: str
    effort: str
    method_certainty: str
    fidelity: str
    component: str
    idea: str
    tags: tuple[str, ...]
    parameters: Mapping[str, Any]
    claims: tuple[Claim, ...]
    beyond_scale: str
    profiles: Mapping[str, Mapping[str, Any]]
    deviations: tuple[str, ...]
    reported: tuple[Mapping[str, str], ...]
    amendments: tuple[Mapping[str, Any], ...]

    @property
    def module(self) -> str:
        """Dotted name of the paper's module, e.g. ``lib.losses.circle_loss``."""
        return f"lib.{KINDS[self.kind]}.{self.slug.replace('-', '_')}"

    @property
    def source(self) -> Path:
        """The module's file."""
        return root() / (self.module.replace(".", "/") + ".py")

    @property
    def test(self) -> Path:
        """The test file of the module."""
        return root() / "tests" / KINDS[self.kind] / f"test_{self.slug.replace('-', '_')}.py"

    @property
    def notebook(self) -> Path:
        """The chapter."""
        return root() / "notebooks" / self.part / f"{self.slug}.ipynb"

    def record(self, profile: str = "default") -> Path:
        """The JSON record of a profile."""
        return root() / "data" / "records" / self.slug / f"{profile}.json"

    @property
    def executed(self) -> bool:
        """Whether the chapter exists with a record of its default run."""
        return self.notebook.exists() and self.record().exists()


@dataclass(frozen=True)
class Leaderboard(Paper):
    """The comparison of all methods of a part: a chapter without a paper, and so without claims of one."""

    @property
    def module(self) -> str:
        """The module that its experiment is made of."""
        return self.component

    @property
    def source(self) -> Path:
        """The module's file."""
        return root() / (self.module.replace(".", "/") + ".py")

    @property
    def test(self) -> Path:
        """The test file of the module."""
        _, room, name = self.module.split(".")
        return root() / "tests" / room / f"test_{name}.py"

    @property
    def notebook(self) -> Path:
        """The chapter."""
        return root() / "notebooks" / self.part / "leaderboard.ipynb"


@cache
def root() -> Path:
    """The checkout: `COMPANION_ROOT`, else the folder above `lib`, else the nearest one above the working folder.

    Raises:
        CatalogueError: no folder among these holds `data/papers`.
    """
    here = Path.cwd()
    named = os.environ.get("COMPANION_ROOT")
    candidates = [Path(named)] if named else [Path(__file__).resolve().parent.parent, here, *here.parents]
    for candidate in candidates:
        if (candidate / "data" / "parts.yaml").exists():
            return candidate.resolve()
    raise CatalogueError(
        "no checkout of the book found (a folder with data/parts.yaml); run inside one or set COMPANION_ROOT"
    )


def folder() -> Path:
    """Where the catalogue files are."""
    return root() / "data" / "papers"


@cache
def parts() -> tuple[Part, ...]:
    """The parts in book order."""
    rows = yaml.safe_load((root() / "data" / "parts.yaml").read_text(encoding="utf-8"))
    return tuple(Part(**row) for row in rows)


def _line_of(text: str, path: Iterable[str | int]) -> int:
    """Line (from 1) of the node at `path` in a YAML text, or of the deepest parent that exists."""
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    line = 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == step), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def read(path: Path) -> Paper:
    """Read and check one catalogue file.

    Raises:
        CatalogueError: not YAML, or against the schema; names file, field and line.
    """
    from jsonschema import Draft202012Validator

    text = path.read_text(encoding="utf-8")
    try:
        row = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CatalogueError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    broken = sorted(Draft202012Validator(SCHEMA).iter_errors(row), key=lambda fault: [str(step) for step in fault.path])
    faults = []
    for fault in broken:
        steps = list(fault.path)
        if fault.validator == "additionalProperties" and isinstance(fault.instance, dict):
            unknown = sorted(set(fault.instance) - set(fault.schema["properties"]))
            steps = [*steps, unknown[0]]
        name = ".".join(map(str, steps)) or "(the file)"
        faults.append(f"{path}:{_line_of(text, steps)}: field {name}: {fault.message[:300]}")
    if not faults:
        for key, wanted in (("slug", path.stem), ("part", path.parent.name)):
            if row[key] != wanted:
                faults.append(f"{path}:{_line_of(text, [key])}: field {key}: is {row[key]!r}, the path says {wanted!r}")
        ids = [claim["id"] for claim in row["claims"]]
        for index, claim_id in enumerate(ids):
            if claim_id in ids[:index]:
                line = _line_of(text, ["claims", index])
                faults.append(f"{path}:{line}: field claims.{index}.id: {claim_id!r} occurs twice")
    if faults:
        raise CatalogueError("\n".join(faults))
    return _paper(row)


def _paper(row: dict[str, Any]) -> Paper:
    amendments = row.pop("amendments", [])
    registered: dict[str, Mapping[str, str]] = {}
    for amendment in amendments:  # the first `before` of a claim is what was registered
        if "before" in amendment:
            registered.setdefault(amendment["before"]["id"], amendment["before"])
    claims = tuple(Claim(**claim, registered=registered.get(claim["id"], claim)) for claim in row.pop("claims"))
    return Paper(
        claims=claims,
        amendments=tuple(amendments),
        authors=tuple(row.pop("authors")),
        tags=tuple(row.pop("tags")),
        profiles=row.pop("profiles", {}),
        deviations=tuple(row.pop("deviations", [])),
        reported=tuple(row.pop("reported", [])),
        **row,
    )


@cache
def load() -> dict[str, Paper]:
    """All papers by slug, in book order.

    Raises:
        CatalogueError: the faults of all files together.
    """
    faults, papers = [], []
    order = {part.slug: index for index, part in enumerate(parts())}
    for path in sorted(folder().glob("*/*.yaml")):
        try:
            papers.append(read(path))
        except CatalogueError as error:
            faults.append(str(error))
            continue
        if papers[-1].part not in order:
            faults.append(f"{path}:1: field part: {papers[-1].part!r} is not in data/parts.yaml")
    if faults:
        raise CatalogueError("\n".join(faults))
    papers.sort(key=lambda paper: (order[paper.part], paper.position))
    return {paper.slug: paper for paper in papers}


@cache
def leaderboards() -> dict[str, Leaderboard]:
    """The leaderboards of the parts that have one, by slug (PART-leaderboard), in book order.

    Raises:
        CatalogueError: a file of `data/leaderboards` with another field than `LEADERBOARD` names, or without one.
    """
    found = {}
    for part in parts():
        path = root() / "data" / "leaderboards" / f"{part.slug}.yaml"
        if not path.exists():
            continue
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
        if set(row) != LEADERBOARD:
            raise CatalogueError(f"{path}: fields differ from those of a leaderboard: {sorted(set(row) ^ LEADERBOARD)}")
        slug = f"{part.slug}-leaderboard"
        row |= {key: tuple(row[key]) for key in ("deviations", "amendments")}
        found[slug] = Leaderboard(slug=slug, part=part.slug, **row, **_NO_PAPER)
    return found


def chapters() -> dict[str, Paper]:
    """Everything that can have a notebook: papers in book order, then leaderboards."""
    return {**load(), **leaderboards()}


def find(slug: str) -> Paper:
    """One paper, read alone where it exists (no need to check the other 390), or one leaderboard.

    Raises:
        UnknownSlug: with the nearest slugs.
    """
    if slug in leaderboards():
        return leaderboards()[slug]
    for path in folder().glob(f"*/{slug}.yaml"):
        return read(path)
    near = difflib.get_close_matches(slug, [path.stem for path in folder().glob("*/*.yaml")], n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise UnknownSlug(f"no paper {slug!r} in the catalogue{hint}")


def dump(row: Mapping[str, Any]) -> str:
    """The YAML text of a catalogue file: one field order, readable wrapping."""
    return yaml.safe_dump(dict(row), sort_keys=False, allow_unicode=True, width=120)


def lock_path() -> Path:
    """The lock file."""
    return root() / "data" / "claims.lock"


def read_lock() -> dict[str, str]:
    """`<slug>/<id>` -> sha256 of every registered claim."""
    if not lock_path().exists():
        return {}
    lines = lock_path().read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line)


def extend_lock() -> int:
    """Register claims that the lock does not know yet; returns how many. Registered ones never change."""
    lock = read_lock()
    new = {
        f"{paper.slug}/{claim.id}": claim.sha256
        for paper in load().values()
        for claim in paper.claims
        if f"{paper.slug}/{claim.id}" not in lock
    }
    lines = [f"{name} {digest}\n" for name, digest in sorted({**lock, **new}.items())]
    lock_path().write_text("".join(lines), encoding="utf-8")
    return len(new)


def check_lock() -> list[str]:
    """What differs between catalogue and lock, one line a fault; empty when all is as registered."""
    lock = read_lock()
    seen = {f"{paper.slug}/{claim.id}": claim.sha256 for paper in load().values() for claim in paper.claims}
    faults = [f"{name}: registered, but no longer in the catalogue" for name in sorted(set(lock) - set(seen))]
    faults += [f"{name}: not registered in claims.lock" for name in sorted(set(seen) - set(lock))]
    faults += [
        f"{name}: differs from what was registered; change a claim through an amendment that keeps it under 'before'"
        for name in sorted(set(seen) & set(lock))
        if seen[name] != lock[name]
    ]
    return faults
