"""A register with small files instead of the published ones, and a machine without a network."""

import hashlib
import urllib.error
from dataclasses import replace

import pytest

from lib.data import _download, sets


@pytest.fixture
def no_network(monkeypatch):
    """Every address is out of reach."""

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(_download.urllib.request, "urlopen", unreachable)


@pytest.fixture
def registered(monkeypatch):
    """``registered(name, files)``: the set has these contents, of the same names, for the time of a test."""

    def register(name, files):
        real = sets.data_sets()
        found = dict(real[name].files)
        for file, content in files.items():
            found[file] = replace(
                found[file], hashes={"sha256": hashlib.sha256(content).hexdigest()}, bytes=len(content)
            )
        table = {**real, name: replace(real[name], files=found)}
        monkeypatch.setattr(sets, "data_sets", lambda: table)
        return files

    return register
