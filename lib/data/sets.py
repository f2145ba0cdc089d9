"""The sets of real data: what `data/sources.yaml` says of each, and the one way to their files.

A file is looked for in the folder that `COMPANION_DATA` names, then in the cache (`COMPANION_CACHE`, else the user's
cache folder), and else downloaded into the cache.  It counts only with its hash: a damaged one is named in a warning
and passed over.  Arrays are to be read with ``numpy.load(path, allow_pickle=False)``; no set contains pickles.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lib import catalogue, runtime
from lib.data._download import DamagedFile, DataUnavailable, download, fault

__all__ = [
    "DamagedFile",
    "DataFile",
    "DataSet",
    "DataUnavailable",
    "SourcesError",
    "cache_folder",
    "data_sets",
    "find_file",
    "find_set",
]

_TEXT = {"type": "string", "minLength": 1}
_HEX = {"sha256": 64, "md5": 32}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "about", "citation", "licence", "source", "loaders"],
    "properties": {
        **dict.fromkeys(("title", "about", "citation", "licence", "subset", "changed", "bundled"), _TEXT),
        "source": {"type": "string", "pattern": "^https://"},
        "folder": {"type": "string", "pattern": r"^[\w-]+(/[\w-]+)*$"},
        "urls": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^https?://.*/$"}},
        "loaders": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^[a-z_0-9]+$"}},
        "files": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": r"^\w[\w.-]*$"},
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "anyOf": [{"required": ["sha256", "bytes"]}, {"required": ["md5"]}],
                "properties": {
                    "bytes": {"type": "integer", "minimum": 1},
                    **{name: {"type": "string", "pattern": f"^[0-9a-f]{{{n}}}$"} for name, n in _HEX.items()},
                    "same_as": _TEXT,
                },
            },
        },
    },
    "oneOf": [
        {"required": ["bundled"], "not": {"anyOf": [{"required": [key]} for key in ("files", "folder", "urls")]}},
        {"required": ["folder", "files"], "not": {"required": ["bundled"]}},
    ],
}


ALTERNATIVES = {
    "oneOf": "either `bundled` alone, or `folder` and `files` (and `urls`)",
    "anyOf": "either `sha256` and `bytes`, or `md5`",
}
"""Keyword of the schema -> what a breach of it means."""


class SourcesError(catalogue.CatalogueError):
    """`data/sources.yaml` is not as it should be, or has no such set; names file, field and line."""


def cache_folder() -> Path:
    """Where downloads are kept: `COMPANION_CACHE`, else the user's cache folder."""
    import platformdirs

    named = os.environ.get("COMPANION_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("paper-companions", appauthor=False) / "data"


@dataclass(frozen=True)
class DataFile:
    """One file of a set.

    Attributes:
        name: of the file.
        folder: below the mirror folder and below the cache.
        hashes: algorithm -> hex digest.
        bytes: its size, None where unknown.
        same_as: another file of the set with the same content, of which one is enough.
        urls: full addresses; empty where it cannot be downloaded.
    """

    name: str
    folder: str
    hashes: Mapping[str, str]
    bytes: int | None = None
    same_as: str | None = None
    urls: tuple[str, ...] = ()

    def places(self) -> list[Path]:
        """Where it may lie: in the mirror if one is named, then in the cache."""
        mirror = os.environ.get("COMPANION_DATA")
        return [Path(top) / self.folder / self.name for top in (mirror, cache_folder()) if top]

    def seen(self) -> Path | None:
        """Its first place with a file of the right size, which is not read."""
        for path in self.places():
            if path.is_file() and self.bytes in (None, path.stat().st_size):
                return path
        return None

    def find(self) -> Path | None:
        """Its first place with the right hash; damaged files are named in a warning and passed over."""
        for path in self.places():
            if path.exists():
                wrong = fault(path, self.hashes)
                if wrong is None:
                    return path
                warnings.warn(f"{wrong}; not used", stacklevel=2)
        return None

    def get(self) -> Path:
        """Its path, downloaded into the cache if it is nowhere else.

        Raises:
            DataUnavailable: there is no address, or none could be reached, or the cache cannot be written.
            DamagedFile: what was downloaded has another hash.
        """
        path = self.find()
        if path is not None:
            return path
        target = self.places()[-1]
        help_ = f"put {self.name} into {target.parent}, or set COMPANION_DATA to a folder that has {self.folder}/ in it"
        if not self.urls:
            raise DataUnavailable(f"{self.name} has no address to fetch it from: {help_}")
        try:
            return download(self.urls, target, self.hashes, self.bytes)
        except DataUnavailable as error:
            raise type(error)(f"{error}. Without a network, {help_}") from error


@dataclass(frozen=True)
class DataSet:
    """One set; the fields are those of `data/sources.yaml`, which explains them."""

    name: str
    title: str
    about: str
    citation: str
    licence: str
    source: str
    loaders: tuple[str, ...]
    files: Mapping[str, DataFile] = field(default_factory=dict)
    subset: str | None = None
    changed: str | None = None
    bundled: str | None = None

    @property
    def bytes(self) -> int:
        """Size of the files whose size is known, of alternatives the larger."""
        sizes: dict[str, int] = {}
        for file in self.files.values():
            key = file.same_as or file.name
            sizes[key] = max(sizes.get(key, 0), file.bytes or 0)
        return sum(sizes.values())

    @property
    def measured(self) -> bool:
        """Whether the size of each of its files is known."""
        return all(group[0].bytes is not None for group in self.needed())

    def needed(self) -> list[list[DataFile]]:
        """Its files, each with those that stand in for it."""
        return [
            [file, *(other for other in self.files.values() if other.same_as == file.name)]
            for file in self.files.values()
            if file.same_as is None
        ]

    def get(self) -> list[Path]:
        """All its files, downloaded where they are missing.

        Raises:
            DataUnavailable: as `DataFile.get`.
            DamagedFile: as `DataFile.get`.
        """
        return [
            next((path for path in map(DataFile.find, group) if path is not None), None) or group[0].get()
            for group in self.needed()
        ]


def find_file(name: str, file: str, download: bool = True) -> Path:
    """Path of one file of a set, or of one that stands in for it: what a loader calls.

    Args:
        name: of the set in `data/sources.yaml`.
        file: its name there.
        download: whether it may be downloaded.

    Raises:
        SourcesError: no such set or file.
        DataUnavailable: it is not on this machine and cannot be, or may not be, downloaded.
        DamagedFile: what was downloaded has another hash.
    """
    files = find_set(name).files
    if file not in files:
        raise SourcesError(f"{name} has no file {file!r}: {', '.join(files) or 'it is bundled'}")
    runtime.note_data(name)
    alternatives = [files[file], *(other for other in files.values() if other.same_as == file)]
    path = next((found for found in map(DataFile.find, alternatives) if found is not None), None)
    if path is not None:
        return path
    if not download:
        raise DataUnavailable(
            f"{name}: {file} is in none of {', '.join(map(str, files[file].places()))}, and may not be downloaded"
        )
    return files[file].get()


def find_set(name: str) -> DataSet:
    """One set.

    Raises:
        SourcesError: no such set, with the names that there are.
    """
    known = data_sets()
    if name not in known:
        raise SourcesError(f"no data set {name!r}: {', '.join(known)}")
    return known[name]


def data_sets() -> dict[str, DataSet]:
    """All sets of `data/sources.yaml` in its order.

    Raises:
        SourcesError: its faults, each with file, line and field.
    """
    return _read(catalogue.root() / "data" / "sources.yaml")


@cache
def _read(path: Path) -> dict[str, DataSet]:
    text = path.read_text(encoding="utf-8")
    try:
        rows = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SourcesError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    faults = list(_against_schema(rows)) or list(_dangling(rows))
    if faults:
        raise SourcesError(
            "\n".join(
                f"{path}:{line}: field {name}: {message}"
                for line, name, message in sorted(
                    (catalogue._line_of(text, steps), ".".join(map(str, steps)) or "(the file)", message)
                    for steps, message in faults
                )
            )
        )
    return {name: _data_set(name, row) for name, row in rows.items()}


def _against_schema(rows: Any) -> Iterable[tuple[list[str | int], str]]:
    from jsonschema import Draft202012Validator

    names = {"pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
    whole = {"type": "object", "propertyNames": names, "additionalProperties": SCHEMA}
    for error in Draft202012Validator(whole).iter_errors(rows):
        steps = list(error.path)
        message = ALTERNATIVES.get(str(error.validator), error.message[:300])
        if error.validator == "additionalProperties":
            steps.append(min(set(error.instance) - set(error.schema["properties"])))
        yield steps, message


def _dangling(rows: Mapping[str, Any]) -> Iterable[tuple[list[str | int], str]]:
    """`same_as` that names no file, or one that stands in for another itself."""
    for name, row in rows.items():
        files = row.get("files", {})
        for file, entry in files.items():
            other = entry.get("same_as")
            if other is not None and "same_as" in files.get(other, {"same_as": None}):
                yield [name, "files", file, "same_as"], f"{other!r} is no file of its own"


def _data_set(name: str, row: Mapping[str, Any]) -> DataSet:
    fields = {key: value for key, value in row.items() if key not in ("files", "folder", "urls", "loaders")}
    files = {}
    for file, entry in row.get("files", {}).items():
        hashes = {kind: entry[kind] for kind in _HEX if kind in entry}
        urls = () if "same_as" in entry else tuple(url + file for url in row.get("urls", ()))
        files[file] = DataFile(file, row["folder"], hashes, entry.get("bytes"), entry.get("same_as"), urls)
    return DataSet(name=name, files=files, loaders=tuple(row["loaders"]), **fields)
