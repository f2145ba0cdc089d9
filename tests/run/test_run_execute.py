"""Chapters in place: what is executed again, and that no fault harms a good notebook or record."""

import json
import os
import signal
import time

import pytest

from lib.run import execute, files, kernel

COUNT = """
import os
with open(os.environ["STARTED"], "a") as log:
    log.write("first\\n")
"""
WAIT = COUNT + "import time\ntime.sleep(float(os.environ.get('PAUSE', 0)))"


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)


def reread(path):
    return json.loads(path.read_text())


def test_execute_then_only_what_is_stale(checkout):
    text = checkout.call("execute", "--jobs", "2")
    assert "2 executed, 0 fresh, 0 failed" in text
    assert "first-paper: no record" in text
    record = reread(checkout.record("first-paper"))
    assert record["claims"]["grows"]["verdict"] == "holds"
    assert record["metrics"]["values"]["rows"] == [[0, "plain", 2.0], [1, "plain", 4.0], [2, "plain", 6.0]]
    assert record["parameters"]["limit"] is None
    assert set(record["run"]) == {"lib", "torch", "python", "device", "seconds", "peak_memory_mb"}
    assert record["run"]["device"] == "cpu"
    assert 20 < record["run"]["peak_memory_mb"] < 2000
    first = checkout.state()

    assert "0 executed, 2 fresh" in checkout.call("execute")
    assert "2 executed" in checkout.call("execute", "--all")
    assert checkout.state() == first, "an unchanged re-run is byte-identical"
    assert "2 verdicts" not in checkout.call("verify", "first-paper")
    assert "first-paper: 1 verdicts follow" in checkout.call("verify")
    assert json.loads(checkout.call("list", "--state", "executed", "--json"))[0]["verdicts"] == {"grows": "holds"}
    assert json.loads(checkout.call("list", "--state", "stale", "--json")) == []
    assert "default: holds (2)" in checkout.call("show", "first-paper")

    module = checkout.root / "lib" / "losses" / "grow_values.py"
    module.write_text(module.read_text().replace('"""Grow."""', '"""Grow, in better words."""'))
    assert "0 executed, 2 fresh" in checkout.call("execute", "--stale")
    module.write_text(module.read_text().replace("2 * x", "3 * x"))
    assert "is of other code" in checkout.call("verify", "first-paper", code=1)
    assert len(json.loads(checkout.call("list", "--state", "stale", "--json"))) == 2
    text = checkout.call("execute", "--stale", "second-paper")
    assert "second-paper: code changed since it was executed" in text
    assert "1 executed" in text


def test_verify_finds_what_was_tampered_with(checkout):
    checkout.call("execute", "first-paper")
    good = checkout.record("first-paper").read_text()

    def complaint(old, new):
        assert old in good
        checkout.record("first-paper").write_text(good.replace(old, new))
        return checkout.call("verify", "first-paper", code=1)

    assert "recorded as 'fails', its numbers say 'holds'" in complaint('"verdict": "holds"', '"verdict": "fails"')
    assert "recorded effect 3.0, its numbers say 2" in complaint('"effect": 2.0', '"effect": 3.0')
    assert "edited by hand" in complaint('"effect": 2.0', '"effect": 2.00000001')
    assert "damaged" in complaint(good, good[: len(good) // 2])
    assert "in the catalogue, not in the record" in complaint('"grows"', '"shrinks"')
    checkout.record("first-paper").write_text(good)
    notebook = checkout.notebook("first-paper")
    notebook.write_text(notebook.read_text().replace("grows: holds", "grows: fails"))
    assert "the notebook shows 'fails', the record says 'holds'" in checkout.call("verify", "first-paper", code=1)


def test_chapters_that_fail_do_not_stop_the_others(checkout):
    """One raises, one loses its kernel, one has no report, one goes well."""
    checkout.call("execute")
    before = checkout.state()
    checkout.add("first-paper", "reached = 1", "raise ValueError('the third cell of the first paper')")
    checkout.add("second-paper", "import os; os._exit(3)")
    checkout.add("third-paper")
    changed = checkout.state()
    text = checkout.call("execute", "--stale", "--jobs", "2", code=1)
    assert "1 executed, 0 fresh, 2 failed" in text
    assert "error: failed: first-paper, second-paper" in text
    assert "ValueError: the third cell of the first paper" in text
    assert "Traceback" in text
    assert "kernel died" in text
    kept = checkout.root / "runs" / "failed" / "first-paper.ipynb"
    assert str(kept) in text
    executed = [cell.get("execution_count") for cell in reread(kept)["cells"] if cell["cell_type"] == "code"]
    assert [count for count in executed if count] == [1, 2, 3, 4]
    after = checkout.state()
    assert {path: after[path] for path in changed if "third" not in str(path)} == {
        path: changed[path] for path in changed if "third" not in str(path)
    }
    for slug in ("first-paper", "second-paper"):
        assert after[checkout.record(slug)] == before[checkout.record(slug)]
    assert checkout.record("third-paper").exists()
    checkout.add("first-paper")
    checkout.call("execute", "first-paper")
    assert not kept.exists()


def test_a_loss_that_is_not_finite_stops_with_step_and_last_values(checkout):
    checkout.add(
        "first-paper",
        """
        import torch
        from lib.trainers import Method, train_paired
        x, y = torch.ones(8, 2), torch.arange(8) % 2
        def loss(output, y, factor):
            return torch.nn.functional.cross_entropy(output, y) * factor ** 40
        steep = Method("steep", loss, {"factor": 8.0})
        trained = train_paired(lambda: torch.nn.Linear(2, 2), [steep], (x, y), seeds=[7], batch_size=4)
        """,
    )
    text = checkout.call("execute", "first-paper", code=1)
    assert "NonFiniteLoss: steep, seed 7: loss not finite at step" in text
    assert "last finite losses:" in text


def test_a_chapter_without_a_report_has_failed(checkout):
    checkout.add("first-paper", report="1")
    assert "no cell ends with `report.finish()`" in checkout.call("execute", "first-paper", code=1)
    checkout.add("first-paper", report="Report('second-paper').finish()")
    assert "claims not tested: grows" in checkout.call("execute", "first-paper", code=1)
    checkout.notebook("first-paper").write_text("{")
    text = checkout.call("execute", code=1)
    assert "first-paper FAILED:\nDamagedNotebook" in text
    assert "1 executed, 0 fresh, 1 failed" in text


def test_killed_in_the_middle(checkout, tmp_path):
    started = tmp_path / "started"
    checkout.call("execute")
    checkout.add("first-paper", WAIT)
    before = checkout.state()
    process = checkout.start("execute", "--stale", STARTED=str(started), PAUSE="60")
    until(started.exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkout.state() == before
    leftover = checkout.record("first-paper").with_name(".default.json.tmp-1")
    leftover.write_text("{")  # as a process leaves it that is killed between writing and renaming
    text = checkout.call("execute", "--stale", STARTED=str(started))
    assert "1 executed, 1 fresh, 0 failed" in text
    assert not leftover.exists()
    assert not list(checkout.root.glob("runs/failed/*"))
    checkout.call("verify")


def test_two_at_once(checkout, tmp_path):
    """The second waits, and finds nothing left to do; a third refuses to wait."""
    started = tmp_path / "started"
    checkout.add("first-paper", WAIT)
    first = checkout.start("execute", STARTED=str(started), PAUSE="6")
    until(started.exists)
    second = checkout.start("execute", STARTED=str(started))
    text = checkout.call("execute", "--no-wait", code=2)
    assert "another process holds" in text
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "2 executed" in outputs[0][0]
    assert "waiting for another process" in outputs[1][1]
    assert "0 executed, 2 fresh" in outputs[1][0]
    assert started.read_text() == "first\n"
    checkout.call("verify")


@pytest.fixture
def inside(checkout, monkeypatch):
    """This process works in the checkout."""
    from lib import catalogue
    from lib.run import freshness

    def forget():
        for cached in (catalogue.root, catalogue.load, catalogue.parts, catalogue.leaderboards):
            cached.cache_clear()
        freshness.forget()

    monkeypatch.setenv("COMPANION_ROOT", str(checkout.root))
    forget()
    yield checkout
    monkeypatch.undo()
    forget()


def test_full_disk(inside, monkeypatch):
    before = inside.state()
    synchronise = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    papers = execute.written()
    results = execute.execute(papers, only_stale=False)
    assert ["No space left on device" in result.error for result in results] == [True, True]
    assert inside.state() == before
    monkeypatch.setattr(files.os, "fsync", synchronise)
    assert [result.error for result in execute.execute(papers, only_stale=True)] == ["", ""]


def test_full_disk_while_a_chapter_runs(inside, monkeypatch):
    """Already the executed part cannot be kept."""
    before = inside.state()
    (inside.root / "runs").mkdir()
    (inside.root / "runs" / "failed").write_text("a file where a folder should be")
    results = execute.execute(execute.written(), only_stale=False)
    assert all("failed" in result.error for result in results)
    assert inside.state() == before


def test_a_kernel_that_does_not_start_gets_a_second_chance(inside, monkeypatch):
    begin, tries = kernel._Client.start_new_kernel_client, []

    def flaky(self):
        tries.append(self)
        if len(tries) in (1, 3, 4):
            self._cleanup_kernel()
            raise RuntimeError("Kernel died before replying to kernel_info")
        return begin(self)

    monkeypatch.setattr(kernel._Client, "start_new_kernel_client", flaky)
    first, second = execute.execute(execute.written(), only_stale=False)
    assert first.error == ""
    assert second.error == "the kernel did not start: Kernel died before replying to kernel_info"
    assert len(tries) == 4
