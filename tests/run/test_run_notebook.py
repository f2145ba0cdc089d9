import copy
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.record import MIME
from lib.run import files
from lib.run import notebook as nb


def executed():
    """A notebook as papermill leaves it."""
    figure = new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "A curve\nthat falls."}, metadata={})
    record = new_output("execute_result", {MIME: {"slug": "x"}, "text/plain": "verdicts"}, execution_count=2)
    streams = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("show()", execution_count=1, outputs=[figure, *streams], metadata={"tags": ["x"]}),
        new_code_cell("report.finish()", execution_count=2, outputs=[record]),
        new_code_cell(
            "report.finish()", execution_count=3, metadata={"mystnb": {"image": {"alt": "of an old figure"}}}
        ),
    ]
    for cell in cells:
        cell["metadata"]["papermill"] = {"start_time": "2026-01-01", "duration": 1.0}
    cells[1]["metadata"]["execution"] = {"iopub.status.busy": "2026-01-01"}
    return new_notebook(cells=cells, metadata={"papermill": {"input_path": "/home/me"}, "widgets": {"a": 1}})


def test_normal_form():
    found = nb.normalise(executed(), "abc")
    nbformat.validate(found)
    text = json.dumps(found)
    for trace in ("papermill", "2026-01-01", "/home/me", MIME, "widgets", "old figure", "iopub"):
        assert trace not in text
    assert found["metadata"]["companion"] == {"digest": "abc"}
    assert found["cells"][1]["metadata"] == {"tags": ["x"], "mystnb": {"image": {"alt": "A curve that falls."}}}
    streams = [output["text"] for output in found["cells"][1]["outputs"] if output["output_type"] == "stream"]
    assert streams == ["a\nb\n"]
    assert found["cells"][2]["outputs"][0]["data"] == {"text/plain": "verdicts"}


def test_normal_form_is_a_fixed_point_and_leaves_its_input_alone():
    before = executed()
    kept = copy.deepcopy(before)
    once = nb.normalise(before, "abc")
    assert before == kept
    assert nb.normalise(once, "abc") == once


def test_ids_are_unique_and_follow_from_the_content():
    first, second = nb.normalise(executed(), "abc"), nb.normalise(executed(), "abc")
    ids = [cell["id"] for cell in first["cells"]]
    assert len(set(ids)) == len(ids)
    assert ids == [cell["id"] for cell in second["cells"]]


def test_take_record():
    assert nb.take_record(executed()) == {"slug": "x"}
    assert nb.take_record(nb.normalise(executed(), "abc")) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"cells": []', "not a notebook", '{"nbformat": 4, "cells": 1}', "\x00"]
)
def test_damaged_files_are_named(tmp_path, text):
    path = tmp_path / "half.ipynb"
    path.write_text(text)
    with pytest.raises(nb.DamagedNotebook, match=r"half\.ipynb: not a notebook"):
        nb.read(path)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.json"
    files.write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_says_the_same_is_not_touched(tmp_path):
    path = tmp_path / "file"
    assert files.write_if_changed(path, "a")
    before = path.stat().st_mtime_ns
    assert not files.write_if_changed(path, "a")
    assert path.stat().st_mtime_ns == before


def test_lock_refuses_a_second_holder(tmp_path):
    with (
        files.lock(tmp_path / "lock"),
        pytest.raises(files.Busy, match="another process"),
        files.lock(tmp_path / "lock", wait=False),
    ):
        pass
    with files.lock(tmp_path / "lock", wait=False):
        pass


def test_the_record_is_looked_for_where_chapters_put_it():
    from lib import record

    assert nb.MIME == record.MIME
