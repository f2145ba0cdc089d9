"""The catalogue: schema faults say where they are, and registered claims cannot change unseen."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest
import yaml

from lib import catalogue

POLY = "data/papers/classification/poly-loss.yaml"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, with one paper and its lines of the lock."""
    here = catalogue.root()
    target = tmp_path / POLY
    target.parent.mkdir(parents=True)
    shutil.copy(here / POLY, target)
    shutil.copy(here / "data" / "parts.yaml", tmp_path / "data" / "parts.yaml")
    locked = [line for line in catalogue.lock_path().read_text().splitlines() if line.startswith("poly-loss/")]
    (tmp_path / "data" / "claims.lock").write_text("\n".join(locked) + "\n")
    monkeypatch.setenv("COMPANION_ROOT", str(tmp_path))
    for cached in (catalogue.root, catalogue.load, catalogue.parts, catalogue.leaderboards):
        cached.cache_clear()
    yield target
    for cached in (catalogue.root, catalogue.load, catalogue.parts, catalogue.leaderboards):
        cached.cache_clear()


def edit(path: Path, change) -> None:
    row = yaml.safe_load(path.read_text())
    change(row)
    path.write_text(catalogue.dump(row))


def test_all_papers_and_claims_are_there() -> None:
    papers = catalogue.load()
    assert len(papers) == 391
    assert sum(len(paper.claims) for paper in papers.values()) == 1515
    assert {paper.part for paper in papers.values()} == {part.slug for part in catalogue.parts()}
    assert len(catalogue.parts()) == 19


def test_claims_are_as_registered() -> None:
    assert catalogue.check_lock() == []


def test_positions_number_each_part_from_one() -> None:
    papers = catalogue.load().values()
    for part in catalogue.parts():
        positions = [paper.position for paper in papers if paper.part == part.slug]
        assert positions == list(range(1, len(positions) + 1)), part.slug


def test_modules_do_not_collide() -> None:
    modules = [paper.module for paper in catalogue.load().values()]
    assert len(set(modules)) == len(modules)


def test_no_abstracts_are_kept() -> None:
    assert all("abstract" not in yaml.safe_load(path.read_text()) for path in catalogue.folder().glob("*/*.yaml"))


@pytest.mark.parametrize(
    ("change", "field", "line_of"),
    [
        (lambda row: row.update(kind="magic"), "kind", "kind: magic"),
        (lambda row: row.update(year="soon"), "year", "year: soon"),
        (lambda row: row.update(colour="blue"), "colour", "colour: blue"),
        (lambda row: row["claims"][1].update(evidence="strong"), "claims.1.evidence", "evidence: strong"),
        (lambda row: row.update(slug="other"), "slug", "slug: other"),
        (lambda row: row["claims"][1].update(id=row["claims"][0]["id"]), "claims.1.id", None),
        (lambda row: row.update(arxiv="22.1"), "arxiv", "arxiv: '22.1'"),
    ],
)
def test_schema_faults_name_file_field_and_line(copy: Path, change, field: str, line_of: str | None) -> None:
    edit(copy, change)
    with pytest.raises(catalogue.CatalogueError) as caught:
        catalogue.read(copy)
    found = re.match(r"(.*?):(\d+): field (\S+):", str(caught.value))
    assert found is not None
    assert found[1] == str(copy)
    assert found[3] == field
    if line_of:
        assert copy.read_text().splitlines()[int(found[2]) - 1].strip().removeprefix("- ") == line_of


def test_missing_field_is_named(copy: Path) -> None:
    edit(copy, lambda row: row.pop("venue"))
    with pytest.raises(catalogue.CatalogueError, match="venue"):
        catalogue.read(copy)


def test_broken_yaml_names_the_line(copy: Path) -> None:
    lines = copy.read_text().splitlines()
    lines.insert(4, "title: [unclosed")
    copy.write_text("\n".join(lines))
    with pytest.raises(catalogue.CatalogueError, match=rf"{re.escape(str(copy))}:\d+: not valid YAML"):
        catalogue.read(copy)


def test_faults_of_all_files_are_reported_together(copy: Path) -> None:
    second = copy.with_name("second.yaml")
    shutil.copy(copy, second)
    edit(copy, lambda row: row.update(kind="magic"))
    with pytest.raises(catalogue.CatalogueError) as caught:
        catalogue.load()
    assert "poly-loss.yaml" in str(caught.value)
    assert "second.yaml" in str(caught.value)


def test_changed_claim_is_noticed(copy: Path) -> None:
    edit(copy, lambda row: row["claims"][0].update(test="any difference at all"))
    assert [fault.split(":")[0] for fault in catalogue.check_lock()] == ["poly-loss/poly1-beats-ce"]


def test_dropped_and_added_claims_are_noticed(copy: Path) -> None:
    edit(copy, lambda row: row["claims"][0].update(id="new-claim"))
    faults = catalogue.check_lock()
    assert any("poly1-beats-ce: registered, but no longer" in fault for fault in faults)
    assert any("new-claim: not registered" in fault for fault in faults)


def test_amendment_keeps_the_registered_claim(copy: Path) -> None:
    def amend(row) -> None:
        before = dict(row["claims"][0])
        row["claims"][0]["test"] = "paired difference over seeds, 99% bootstrap CI above 0"
        row["amendments"] = [{"date": "2026-11-22", "what": "level", "reason": "multiplicity", "before": before}]

    edit(copy, amend)
    assert catalogue.check_lock() == []
    claim = catalogue.read(copy).claims[0]
    assert "99%" in claim.test
    assert "95%" in claim.registered["test"]


def test_amendment_with_another_text_than_registered_is_noticed(copy: Path) -> None:
    def amend(row) -> None:
        before = {**row["claims"][0], "test": "never registered"}
        row["claims"][0]["test"] = "something else"
        row["amendments"] = [{"date": "2026-11-22", "what": "test", "reason": "none", "before": before}]

    edit(copy, amend)
    assert len(catalogue.check_lock()) == 1


def test_lock_only_grows(copy: Path) -> None:
    edit(copy, lambda row: row["claims"][0].update(test="changed"))
    before = catalogue.read_lock()
    assert catalogue.extend_lock() == 0
    assert catalogue.read_lock() == before


def test_unknown_slug_names_the_nearest() -> None:
    with pytest.raises(catalogue.UnknownSlug, match="circle-loss"):
        catalogue.find("circel-loss")


def test_dump_is_stable() -> None:
    for path in list(catalogue.folder().glob("*/*.yaml"))[:20]:
        row = yaml.safe_load(path.read_text())
        assert yaml.safe_load(catalogue.dump(row)) == row


def test_reported_numbers_are_shown_with_their_setting():
    """A paper's own numbers stand beside ours, marked as such."""
    from lib.run.pages import chapter, evidence

    shown = [paper for paper in catalogue.load().values() if paper.reported]
    assert shown
    for paper in shown:
        text = chapter.registered(evidence.of(paper.slug))
        assert "Reported in the paper, not measured here" in text
        for one in paper.reported:
            assert all(html.escape(one[field]) in text for field in ("what", "value", "data", "setup", "source"))
