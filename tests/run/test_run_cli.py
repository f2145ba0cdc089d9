"""Commands that start no kernel: looking up, refusing bad input, beginning chapters."""

import json
import subprocess
import sys

import pytest
import torch

KERNEL_FREE = "import sys; from lib.run.cli import main\ntry:\n    main({arguments})\nexcept SystemExit as end:\n    "
KERNEL_FREE += "print('LOADED', end.code, [name for name in ('torch', 'scipy', 'papermill') if name in sys.modules])"


@pytest.mark.parametrize("arguments", [["list"], ["show", "first-paper"], ["--help"], ["run", "--help"]])
def test_looking_up_loads_nothing_heavy(checkout, arguments):
    text = checkout.call_python(KERNEL_FREE.format(arguments=arguments))
    assert "LOADED 0 []" in text


@pytest.mark.parametrize("command", ["list", "show", "run", "sweep", "execute", "verify", "new", "sync", "doctor"])
def test_every_command_has_help(checkout, command):
    text = checkout.call(command, "--help")
    assert "Usage: companion" in text
    assert command in checkout.call("--help")


def test_list(checkout):
    rows = json.loads(checkout.call("list", "--json"))
    assert [row["slug"] for row in rows] == ["first-paper", "second-paper", "third-paper"]
    assert {row["state"] for row in rows} == {"planned"}
    assert [row["slug"] for row in json.loads(checkout.call("list", "--tag", "curvature", "--json"))] == ["first-paper"]
    assert "3 papers, 0 executed" in checkout.call("list", "--part", "examples", "--kind", "loss")
    assert "0 papers" in checkout.call("list", "--state", "executed")
    for option, value in (("--part", "exampels"), ("--kind", "los"), ("--tag", "x"), ("--state", "done")):
        assert f"{value!r} is unknown" in checkout.call("list", option, value, code=2)


def test_show(checkout):
    text = checkout.call("show", "first-paper")
    for wanted in (
        "The paper first-paper",
        "gain = 2.0  (float in (0, 10])",
        "factor of the values",
        "grows",
        "-p NAME",
    ):
        assert wanted in text
    assert "the chapter is not written yet" in checkout.call("show", "third-paper")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "frist-paper"], "no paper 'frist-paper' in the catalogue; nearest: first-paper"),
        (["run", "first-papr"], "nearest: first-paper"),
        (["execute", "first-papr"], "nearest: first-paper"),
        (["execute", "third-paper"], "no chapter yet: third-paper"),
        (["execute", "--all", "--stale"], "--all goes alone"),
        (["run", "third-paper"], "third-paper has no chapter yet"),
        (["run", "first-paper", "-p", "gian=3"], "no parameter 'gian'; nearest: gain"),
        (["run", "first-paper", "-p", "gain=loud"], "parameter gain: 'loud' is not allowed; it takes float in (0, 10]"),
        (["run", "first-paper", "-p", "steps=2.5"], "parameter steps: '2.5' is not allowed; it takes int in [1, 50]"),
        (["run", "first-paper", "-p", "gain=11"], "parameter gain: 11.0 is not allowed"),
        (["run", "first-paper", "-p", "form=triple"], "it takes str, one of pair, class"),
        (["run", "first-paper", "-p", "gain"], "not of the form name=value"),
        (["run", "first-paper", "-p", "gain=1", "-p", "gain=2"], "given twice"),
        (["run", "first-paper", "--profile", "huge"], "has no profile 'huge'; it has default, full, wrong"),
        (["run", "first-paper", "--profile", "wrong"], "parameter steps: 2000 is not allowed"),
        (["run", "first-paper", "-p", "profile=full"], "choose a profile with --profile"),
        (["run", "first-paper", "--device", "tpu"], "device 'tpu' is not allowed"),
        (["run", "first-paper", "-p", "device=tpu"], "one of auto, cpu, cuda"),
        (["run", "first-paper", "--record"], "--record is for other profiles"),
        (["run", "first-paper", "--record", "--profile", "full", "-p", "gain=1"], "but gain was changed"),
        (["run", "first-paper", "--params-file", "nowhere.json"], "not a JSON file of parameters"),
        (["sweep", "first-paper"], "at least one parameter"),
        (["sweep", "first-paper", "-p", "gain=1,20"], "parameter gain: 20.0 is not allowed"),
        (["sweep", "first-paper", "-p", "gain=1,2", "--executor", "abacus"], "executor 'abacus' is not known"),
        (["sweep", "first-paper", "-p", "gain=1", "--profile-dir", "."], "is no Snakemake profile"),
        (["verify", "first-paper"], "first-paper has no record"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(checkout, arguments, message):
    before = checkout.state()
    text = checkout.call(*arguments, code=2)
    assert message in " ".join(text.split())
    assert "Traceback" not in text
    assert checkout.state() == before
    assert not (checkout.root / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "first-paper", "--device", "cuda"],
        ["run", "first-paper", "-p", "device=cuda"],
        ["sweep", "first-paper", "-p", "gain=1,2", "--device", "cuda"],
    ],
)
def test_cuda_without_a_device(checkout, arguments):
    text = checkout.call(*arguments, code=2)
    assert "CUDA" in text
    assert "started" not in text
    assert not (checkout.root / "runs").exists()


def test_catalogue_faults_name_file_field_and_line(checkout):
    path = checkout.root / "data" / "papers" / "examples" / "first-paper.yaml"
    path.write_text(path.read_text().replace("year: 2020", "year: soon"))
    text = checkout.call("list", code=2)
    assert f"{path.name}:8: field year: 'soon' is not of type 'integer'" in text


def test_new_begins_a_chapter_that_lints_and_fails_until_it_is_written(checkout):
    before = checkout.state()
    text = checkout.call("new", "third-paper")
    module, test = checkout.root / "lib/losses/third_paper.py", checkout.root / "tests/losses/test_third_paper.py"
    assert "wrote lib/losses/third_paper.py" in text
    for command in (["check"], ["format", "--check"]):
        tool = [sys.executable, "-m", "ruff", *command, str(module), str(test)]
        done = subprocess.run(tool, cwd=checkout.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    tool = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(
        tool, cwd=checkout.root, env=checkout.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "7 failed" in done.stdout
    assert "to be written" in done.stdout
    after = checkout.state()
    assert {path: after[path] for path in before} == before
    assert "gain: float = 2.0" in checkout.notebook("third-paper").read_text()
    assert "module, test and notebook already" in checkout.call("new", "third-paper", code=2)
    assert checkout.state() == after
    module.write_text("MINE = 1\n__all__ = ['MINE']\n")
    checkout.notebook("third-paper").unlink()
    checkout.call("new", "third-paper")
    assert module.read_text().startswith("MINE")
    assert checkout.notebook("third-paper").exists()


def test_doctor(checkout):
    text = checkout.call("doctor")
    for topic in ("python", "packages (lib)", "kernel", "device", "torchvision", "data", "claims", "papers"):
        assert f"  {topic}: " in text
    assert "3 in the catalogue, 2 chapters, 2 stale" in text
    (checkout.root / "data" / "claims.lock").write_text("")
    assert "fault  claims" in checkout.call("doctor", code=1)
