"""The report of a chapter, the canonical form of its record, and the verdicts derived again from it."""

import copy
import json

import numpy as np
import pandas as pd
import pytest

from lib import catalogue, claims, record

SLUG = "poly-loss"


def full_report():
    report = record.Report(SLUG)
    frame = pd.DataFrame({"method": ["ours", "theirs"], "seed": [0, 0], "accuracy": [0.9123456789, 0.9]})
    report.table("accuracy", frame)
    for claim in report.paper.claims:
        rule = claims.value_below(1e-7, 1e-5) if claim.evidence == "exact" else claims.mean_above([0.1, 0.2, 0.3])
        report.test(claim.id, rule, note="as expected")
    return report


def test_value_by_hand_report():
    report = full_report()
    verdicts = report.verdicts
    assert {name: verdict.label for name, verdict in verdicts.items()} == {
        claim.id: "holds" if claim.evidence == "exact" else "supported" for claim in report.paper.claims
    }
    data = report.as_dict()
    assert data["metrics"]["accuracy"] == {
        "columns": ["method", "seed", "accuracy"],
        "rows": [["ours", 0, 0.912346], ["theirs", 0, 0.9]],
    }
    entry = data["claims"]["taylor-identity"]
    assert entry["verdict"] == "holds"
    assert entry["rule"] == {"rule": "value_below", "value": 1e-7, "threshold": 1e-5}
    assert (entry["effect"], entry["low"], entry["n"], entry["note"]) == (1e-7, None, None, "as expected")


def test_finish_hands_the_record_on():
    report = full_report()
    assert report.finish() is report
    bundle = report._repr_mimebundle_()
    assert bundle[record.MIME] == report.as_dict()
    assert json.loads(json.dumps(bundle[record.MIME], allow_nan=False)) == bundle[record.MIME]
    assert "taylor-identity: holds" in bundle["text/plain"]


def test_finish_refuses_claims_left_out():
    report = record.Report(SLUG)
    assert str(report) == "no claim tested yet"
    first, *others = report.paper.claims
    report.test(first.id, claims.mean_above([1.0, 2.0]))
    assert record.MIME not in report._repr_mimebundle_()
    with pytest.raises(ValueError, match=", ".join(claim.id for claim in others)):
        report.finish()


def test_degenerate_reports():
    report = full_report()
    with pytest.raises(ValueError, match="tested already"):
        report.test("taylor-identity", claims.value_below(0.0, 1.0))
    with pytest.raises(ValueError, match=r"no claim 'taylor'; its claims: poly1-beats-ce"):
        report.test("taylor", claims.value_below(0.0, 1.0))
    with pytest.raises(ValueError, match="recorded already"):
        report.table("accuracy", pd.DataFrame({"a": [1]}))
    with pytest.raises(ValueError, match="finite"):
        report.table("other", pd.DataFrame({"a": [np.nan]}))
    assert "other" not in report.metrics
    with pytest.raises(catalogue.UnknownSlug, match="nearest: poly-loss"):
        record.Report("polyloss")


def test_a_claim_that_cannot_be_judged_is_not_recorded():
    report = record.Report(SLUG)
    with pytest.raises(ValueError, match="empty"):
        report.test("poly1-beats-ce", claims.mean_above([]))
    assert not report.verdicts


def test_verdict_table_escapes_what_it_shows():
    report = record.Report(SLUG)
    report.test("poly1-beats-ce", claims.mean_above([-1.0, -2.0]), note="<script>alert(1)</script> & more")
    table = record.verdict_table(report.verdicts)
    assert "<script>" not in table
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in table
    assert 'class="verdict verdict-not-supported">not supported<' in table


# --- canonical JSON ---------------------------------------------------------------------------------------------


def test_value_by_hand_canonical_json():
    text = record.dumps({"b": [1, 2.5], "a": {"z": None, "y": [[1.23456789, "é"], []]}, "c": {}, "d": [{"k": True}]})
    assert text == (
        "{\n"
        ' "a": {\n'
        '  "y": [\n'
        '   [1.23457, "é"],\n'
        "   []\n"
        "  ],\n"
        '  "z": null\n'
        " },\n"
        ' "b": [1, 2.5],\n'
        ' "c": {},\n'
        ' "d": [\n'
        "  {\n"
        '   "k": true\n'
        "  }\n"
        " ]\n"
        "}\n"
    )


def test_invariance_canonical_json():
    data = {"x": [0.1 + 0.2, 1e-30, -0.0, 12345678.9], "n": {"b": 'quote " and \n newline', "a": [[], {}]}, "i": 10**12}
    text = record.dumps(data)
    assert json.loads(text) == claims.significant(data)
    assert record.dumps(json.loads(text)) == text
    assert record.dumps(dict(reversed(data.items()))) == text
    noise = {**data, "x": [value * (1 + 1e-12) for value in data["x"]]}
    assert record.dumps(noise) == text  # differences in the last bits do not show


def test_degenerate_canonical_json():
    assert record.dumps({}) == "{}\n"
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            record.dumps({"a": [[bad]]})


# --- verdicts derived again -------------------------------------------------------------------------------------


@pytest.fixture
def stored():
    return json.loads(record.dumps(full_report().as_dict()))


def test_rederive_agrees(stored):
    assert record.rederive(stored) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c["poly1-beats-ce"].update(verdict="not supported"), "recorded as 'not supported'"),
        (lambda c: c["poly1-beats-ce"]["rule"].update(values=[-1.0, 1.0, 2.0]), "its numbers say 'inconclusive'"),
        (lambda c: c["poly1-beats-ce"]["rule"].update(threshold=1.0), "its numbers say 'not supported'"),
        (lambda c: c["poly1-beats-ce"].update(effect=0.25), "recorded effect 0.25"),
        (lambda c: c["poly1-beats-ce"].update(low=0.15), "recorded low 0.15"),
        (lambda c: c["poly1-beats-ce"].update(high=None), "recorded high None"),
        (lambda c: c["poly1-beats-ce"].update(rule={"rule": "wish"}), "cannot be judged: ValueError: unknown rule"),
        (lambda c: c["poly1-beats-ce"]["rule"].pop("values"), "cannot be judged: KeyError"),
        (lambda c: c.pop("poly1-beats-ce"), "in the catalogue, not in the record"),
        (lambda c: c.update(extra=c["poly1-beats-ce"]), "extra: in the record, not in the catalogue"),
    ],
)
def test_rederive_finds_what_differs(stored, change, fault):
    changed = copy.deepcopy(stored)
    change(changed["claims"])
    (line,) = record.rederive(changed)
    assert fault in line


def test_rederive_tells_evidence_types_apart(stored):
    changed = copy.deepcopy(stored)
    changed["claims"]["taylor-identity"]["verdict"] = "supported"  # an exact claim holds or fails
    assert record.rederive(changed) == ["taylor-identity: recorded as 'supported', its numbers say 'holds'"]


def test_every_committed_record_gives_its_verdicts_again():
    paths = sorted((catalogue.root() / "data" / "records").glob("*/*.json"))
    assert paths
    for path in paths:
        data = json.loads(path.read_text(encoding="utf-8"))
        assert record.rederive(data) == [], path
