"""A sweep on a real SLURM of one node, killed in the middle and resumed:  python tests/slurm/run.py

Starts munged, slurmctld and slurmd of its own in a temporary folder (Debian: `apt-get install slurm-wlm munge`), with
its own keys and ports, beside any SLURM that the machine may have; stops them at the end.  Not part of `make test`.
"""

import csv
import getpass
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "run"))
from small_checkout import Checkout, build

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol")
CONFIGURATION = """
ClusterName=companion
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""
PROFILE = """
executor: slurm
default-resources:
  - runtime=10
  - mem_mb=1000
  - cpus_per_task=1
latency-wait: 10
slurm-no-account: true
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 5
seconds-between-status-checks: 3
"""
WAIT = """
import os, time
with open(os.environ["POINTS_STARTED"], "a") as log:
    log.write(f"{gain} {steps} {os.environ.get('SLURM_JOB_ID')}\\n")
time.sleep(5)
"""


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, condition, seconds: float = 120.0):
    """Wait for a condition; returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.3)
    raise SystemExit(f"gave up after {seconds:.0f} s waiting for {what}")


@contextmanager
def cluster(folder: Path):
    """One node with its controller; sets SLURM_CONF."""
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    values = {
        "host": socket.gethostname().split(".")[0],
        "user": getpass.getuser(),
        "cores": min(os.cpu_count() or 1, 2),
    }
    values |= {"controller_port": free_port(), "node_port": free_port(), "folder": folder}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # Inside a job the executor clears SLURM_*, and srun would look for a configuration under /etc.
    wrapper = folder / "bin" / "srun"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec {shutil.which("srun")} "$@"\n')
    wrapper.chmod(0o755)
    os.environ["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"
    munge = ["--socket", folder / "munge.socket", "--key-file", key, "--pid-file", folder / "munge.pid"]
    munge += ["--log-file", folder / "munge.log", "--seed-file", folder / "munge.seed"]
    commands = [
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", values["host"]],
    ]
    running = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.out").open("wb")
            running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT))
            if command[0] == "munged":
                until("munged", (folder / "munge.socket").exists)
            died = running[-1].poll()
            if died is not None:
                raise SystemExit(f"{command[0]} stopped with {died}: {(folder / (command[0] + '.out')).read_text()}")
        until("an idle node", lambda: "idle" in output("sinfo", "-h", "-o", "%T"))
        yield
    finally:
        subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def check(checkout: Checkout, profile: Path, started: Path) -> None:
    """Six points, killed when two are done and two running, resumed while the cluster still works on those."""
    sweep = ["sweep", "first-paper", "-p", "gain=1,2.5,4", "-p", "steps=2..3", "--jobs", "2"]
    sweep += ["--executor", "slurm", "--profile-dir", str(profile)]
    points = checkout.root / "runs" / "first-paper"

    def done() -> dict[str, tuple[int, str]]:
        """Finished points: which file the record is, and what it says (Snakemake touches it once more, later)."""
        found = points.glob("*/record.json")
        return {path.parent.name: (path.stat().st_ino, path.read_text()) for path in found}

    say("sweep of six points starts: " + " ".join(sweep))
    command = [sys.executable, "-m", "lib", *sweep]
    environment = checkout.environment(POINTS_STARTED=str(started))
    log = (checkout.root / "first.log").open("w")
    first = subprocess.Popen(
        command, cwd=checkout.root, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    begun = lambda: started.exists() and len(started.read_text().splitlines()) >= 4  # noqa: E731
    until("two points done and two more running", lambda: begun() or first.poll() is not None, 300)
    assert first.poll() is None, "the sweep ended by itself\n" + (checkout.root / "first.log").read_text()
    say("queue: " + "; ".join(output("squeue", "-h", "-o", "%i %T").split("\n")).strip("; "))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = done()
    say(f"killed -9 (command line and Snakemake) with {len(before)} points done: {', '.join(sorted(before))}")
    assert 2 <= len(before) < 6, (checkout.root / "first.log").read_text()

    say("the same command again")
    text = checkout.call(*sweep, POINTS_STARTED=str(started))
    print(text, flush=True)
    after = done()
    assert len(after) == 6, after
    repeated = [name for name, mark in before.items() if after[name] != mark]
    assert repeated == [], f"finished points were written again: {repeated}"
    runs = [line.split() for line in started.read_text().splitlines()]
    say(f"the chapter was executed {len(runs)} times, SLURM jobs {', '.join(run[2] for run in runs)}")
    assert len({(gain, steps) for gain, steps, _ in runs}) == 6
    assert len(runs) == 6, "a point was executed twice"
    assert all(job != "None" for _, _, job in runs), "a point ran outside SLURM"
    (table,) = points.glob("sweep-*/table.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {(row["gain"], row["steps"]) for row in rows} == {(g, s) for g in ("1.0", "2.5", "4.0") for s in ("2", "3")}
    assert (table.parent / "plot.png").exists()
    say(f"table of {len(rows)} rows:\n{table.read_text()}")


def main() -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; on Debian: apt-get install slurm-wlm munge")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        raise SystemExit("missing: pip install snakemake-executor-plugin-slurm")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        checkout = build(folder / "checkout")
        checkout.add("first-paper", WAIT)
        (folder / "profile").mkdir()
        (folder / "profile" / "config.yaml").write_text(PROFILE)
        try:
            with cluster(folder):
                say(output("sinfo", "--version").strip() + ": " + output("sinfo", "-h").strip())
                check(checkout, folder / "profile", folder / "started.log")
        except BaseException:
            logs = [
                folder / "slurmctld.log",
                folder / "slurmd.log",
                *checkout.root.glob("runs/*/sweep-*/snakemake.log"),
            ]
            for log in logs:
                if log.exists():
                    print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise
    say("passed; SLURM stopped, its folder removed")


if __name__ == "__main__":
    main()
