"""What the chapters cost: each one's default run, and `execute --all` as a whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.run import execute

sys.path.insert(0, str(Path(__file__).parent))
from _checkout import copied


def rows() -> Iterator[dict[str, Any]]:
    """Seconds and peak memory a chapter, then the sum with the runner's own time."""
    with copied() as copy:
        for path in (copy.root / "data" / "records").glob("*/default.json"):
            path.unlink()  # an unchanged re-run would keep the old cost
        total = copy.run("lib", "execute", "--all")
        for paper in execute.written():
            record = copy.root / "data" / "records" / paper.slug / "default.json"
            run = json.loads(record.read_text(encoding="utf-8"))["run"]
            yield {"chapter": paper.slug, "seconds": run["seconds"], "peak MB": run["peak_memory_mb"]}
        yield {"chapter": "execute --all", "seconds": round(total, 1)}
