"""Run the measurements and print them: ``python tests/benchmarks/collect.py [name ...]``.

A file `bench_<name>.py` beside this one has a function `rows()` that gives one mapping a measurement, as it is made.
The tables are printed and kept as JSON under `runs/bench`. Nothing here passes or fails: times belong to a machine.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lib import catalogue, claims

HERE = Path(__file__).resolve().parent


def found() -> dict[str, Path]:
    """Name -> file of every benchmark."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def measure(path: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark, each announced when it is there."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    rows: Iterable[Mapping[str, Any]] = module.rows()
    made = []
    for row in rows:
        made.append(dict(row))
        print("  " + ", ".join(f"{key} {shown(value)}" for key, value in row.items()), file=sys.stderr, flush=True)
    return made


def shown(value: Any) -> str:
    """Three digits are enough for a time."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned columns; a missing value stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([shown(row[key]) if key in row else "" for key in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main(names: list[str]) -> int:
    """Run the named benchmarks, all if none is named; returns the exit code."""
    available = found()
    unknown = [name for name in names if name not in available]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(available)}", file=sys.stderr)
        return 2
    folder = catalogue.root() / "runs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    failed = []
    for name in names or available:
        print(f"{name} ...", file=sys.stderr, flush=True)
        begin = time.perf_counter()
        try:
            rows = measure(available[name])
        except Exception as error:  # the other measurements are still wanted
            print(f"{name} FAILED: {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(name)
            continue
        print(f"\n{name} ({time.perf_counter() - begin:.0f} s, {machine})\n{table(rows)}\n", flush=True)
        kept = {"machine": machine, "rows": claims.significant(rows)}
        (folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
