"""`run` and `sweep`: results in folders of their own."""

import csv
import json
import signal
import time

from small_checkout import PARAMETERS

HOSTILE = "__import__('os').system('touch hacked')\n\"; raise SystemExit #'''\"\"\" \\n \\ {0} {gain} $HOME `ls`"
HOSTILE += " %s ünï — 猫 🐈"
COUNT = """
import os, time
with open(os.environ["STARTED"], "a") as log:
    log.write(f"{gain} {steps}\\n")
time.sleep(float(os.environ.get("PAUSE", 0)))
assert gain != 9, "this point fails"
"""


def results(text):
    """The folder that `run` names in its last line."""
    return text.split("results: ")[1].splitlines()[0]


def test_values_that_look_like_code_arrive_as_data(checkout):
    text = checkout.call(
        "run", "first-paper", "-p", f"label={HOSTILE}", "-p", "grid=[0.5]", "--out", "out", "--no-html"
    )
    assert "grows  holds" in text
    record = json.loads((checkout.root / "out" / "record.json").read_text())
    assert record["parameters"]["label"] == HOSTILE
    assert {row[1] for row in record["metrics"]["values"]["rows"]} == {HOSTILE}, "what the notebook saw"
    assert record["parameters"]["grid"] == [0.5]
    assert not list(checkout.root.rglob("hacked"))
    assert not (checkout.root / "out" / "first-paper.html").exists()


def test_run_leaves_the_committed_chapter_alone(checkout):
    before = checkout.state()
    values = checkout.root / "values.json"
    values.write_text(json.dumps({"steps": 2, "gain": 1}))
    text = checkout.call("run", "first-paper", "--params-file", values, "-p", "gain=4")
    folder = checkout.root / "runs" / "first-paper"
    (folder,) = folder.iterdir()
    assert str(folder) == results(text)
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "first-paper.html",
        "first-paper.ipynb",
        "record.json",
    ]
    record = json.loads((folder / "record.json").read_text())
    assert [row[2] for row in record["metrics"]["values"]["rows"]] == [4.0, 8.0], "-p wins over the file"
    assert "Parameters" in (folder / "first-paper.ipynb").read_text(), "the injected cell is kept"
    assert "The value" not in text
    assert checkout.state() == before


def test_profile_and_its_record(checkout):
    text = checkout.call("run", "first-paper", "--profile", "full", "--record", "--no-html")
    record = json.loads(checkout.record("first-paper", "full").read_text())
    assert record["profile"] == "full"
    assert record["parameters"]["steps"] == 20
    assert "full.json" in text
    checkout.call("execute", "first-paper")
    assert "full: holds" in checkout.call("show", "first-paper")
    checkout.call("verify", "first-paper")


def test_a_run_that_fails_keeps_what_it_did(checkout):
    checkout.add("first-paper", "1 / 0")
    text = checkout.call("run", "first-paper", "--out", "out", code=1)
    assert "ZeroDivisionError" in text
    assert "first-paper.failed.ipynb" in text
    assert (checkout.root / "out" / "first-paper.failed.ipynb").exists()
    assert not (checkout.root / "out" / "record.json").exists()


def test_results_that_cannot_be_written(checkout):
    (checkout.root / "file").write_text("")
    text = checkout.call("run", "first-paper", "--out", "file/out", code=1)
    assert "error: cannot write the results" in text


def test_sweep_resumes_and_names_what_failed(checkout, tmp_path):
    started = tmp_path / "started"
    checkout.add("first-paper", COUNT)
    sweep = ["sweep", "first-paper", "-p", "gain=1,9", "-p", "steps=2..3", "--jobs", "2"]
    process = checkout.start(*sweep, STARTED=str(started), PAUSE="1")
    end = time.monotonic() + 90
    while not list(checkout.root.glob("runs/first-paper/*/record.json")):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    done = list(checkout.root.glob("runs/first-paper/*/record.json"))
    assert done
    text = checkout.call(*sweep, code=1, STARTED=str(started))
    assert f"4 points, {len(done)} done before" in text
    assert "2 of 4 points failed" in text
    runs = started.read_text().splitlines()
    assert runs.count("1.0 2") == 1
    assert "this point fails" in next(checkout.root.glob("runs/first-paper/sweep-*/snakemake.log")).read_text()
    with next(checkout.root.glob("runs/first-paper/sweep-*/table.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["gain"], row["steps"], row["grows: verdict"]) for row in rows] == [
        ("1.0", "2", "holds"),
        ("1.0", "3", "holds"),
    ]


def test_sweep_ends_with_table_metrics_and_plot(checkout, tmp_path):
    started = tmp_path / "started"
    checkout.add("first-paper", COUNT)
    sweep = ["sweep", "first-paper", "-p", "gain=1,2.5", "-p", 'label=["a,b"]', "--out", tmp_path / "my sweep"]
    text = checkout.call(*sweep, "--device", "cpu", STARTED=str(started))
    (folder,) = (tmp_path / "my sweep").glob("sweep-*")
    with (folder / "metrics" / "values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["gain"], row["label"], row["step"], row["value"]) for row in rows] == [
        (str(gain), "a,b", str(step), str(gain * (step + 1))) for gain in (1.0, 2.5) for step in range(3)
    ]
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert str(folder / "table.csv") in text
    again = checkout.call(*sweep, "--device", "cpu", STARTED=str(started))
    assert "2 done before, 0 to go" in again
    checkout.call("sweep", "first-paper", "-p", "gain=1,2.5,3", *sweep[4:], "--device", "cpu", STARTED=str(started))
    assert len(started.read_text().splitlines()) == 3, "a larger grid executes only its new points"


FULL = """
import torch
if {name} > 6:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
"""
BATCH = PARAMETERS.replace("steps: int", "batch_size: int = 20  # samples at once; in [1, 64]\nsteps: int")


def test_a_full_device_names_what_to_lower(checkout):
    checkout.add("first-paper", FULL.format(name="batch_size"), parameters=BATCH)
    text = checkout.call("run", "first-paper", "--no-html", code=1)
    assert "lower batch_size (20), e.g. -p batch_size=10; --halve-batch does it by itself" in text
    assert "first-paper failed" in text


def test_a_batch_is_halved_only_when_asked(checkout):
    checkout.add("first-paper", FULL.format(name="batch_size"), parameters=BATCH)
    text = checkout.call("run", "first-paper", "--no-html", "--halve-batch", "--out", "out")
    assert "again with {'batch_size': 10}" in text
    assert "again with {'batch_size': 5}" in text
    assert json.loads((checkout.root / "out" / "record.json").read_text())["parameters"]["batch_size"] == 5
    refused = checkout.call("run", "first-paper", "--profile", "full", "--record", "--halve-batch", code=2)
    assert "--record keeps a profile as it is registered" in refused


def test_a_full_device_without_a_batch(checkout):
    checkout.add("first-paper", FULL.format(name="steps * 3"))
    text = checkout.call("run", "first-paper", "--no-html", "--halve-batch", code=1)
    assert "lower the size of the experiment" in text
