"""What a sweep found: one tidy table of the points, one of each metric, and a plot of the claims' effects."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib.run.files import write_atomically

Points = Sequence[Mapping[str, Any]]
Records = Sequence[Mapping[str, Any] | None]


def claims_table(points: Points, records: Records) -> pd.DataFrame:
    """One row a finished point: its parameters, of every claim the verdict and effect with interval, what it cost."""
    rows = []
    for point, record in zip(points, records, strict=True):
        if record is None:
            continue
        row: dict[str, Any] = {name: str(value) if isinstance(value, list) else value for name, value in point.items()}
        for claim, entry in record["claims"].items():
            row[f"{claim}: verdict"] = entry["verdict"]
            row |= {f"{claim}: {part}": entry[part] for part in ("effect", "low", "high")}
        row |= {part: record["run"][part] for part in ("device", "seconds", "peak_memory_mb")}
        rows.append(row)
    return pd.DataFrame(rows)


def metric_tables(points: Points, records: Records) -> dict[str, pd.DataFrame]:
    """Each metric of the records, with the point's parameters in front."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for point, record in zip(points, records, strict=True):
        for name, metric in (record or {"metrics": {}})["metrics"].items():
            frame = pd.DataFrame(metric["rows"], columns=metric["columns"])
            for index, (parameter, value) in enumerate(point.items()):
                label = f"{parameter} (parameter)" if parameter in metric["columns"] else parameter
                frame.insert(index, label, str(value) if isinstance(value, list) else value)
            frames.setdefault(name, []).append(frame)
    return {name: pd.concat(pieces, ignore_index=True) for name, pieces in frames.items()}


def write(folder: Path, points: Points, records: Records) -> list[Path]:
    """Write `table.csv`, `metrics/<name>.csv`, `plot.png`, and Parquet beside each CSV where pyarrow is installed.

    Returns:
        What was written: nothing where no point is done.
    """
    table = claims_table(points, records)
    if table.empty:
        return []
    frames = {"table": table}
    for name, frame in metric_tables(points, records).items():
        safe = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
        frames[f"metrics/{safe}"] = frame
    written = []
    for name, frame in frames.items():
        written.append(folder / f"{name}.csv")
        write_atomically(written[-1], frame.to_csv(index=False))
        if importlib.util.find_spec("pyarrow"):
            written.append(folder / f"{name}.parquet")
            write_atomically(written[-1], frame.to_parquet(index=False))
    written.append(folder / "plot.png")
    claims = list(next(record for record in records if record)["claims"])
    write_atomically(written[-1], plot(table, list(points[0]), claims))
    return written


def plot(table: pd.DataFrame, swept: Sequence[str], claims: Sequence[str]) -> bytes:
    """PNG: a panel a claim, its effect against the first parameter that changes, a line a value of the others."""
    import io

    import matplotlib.pyplot as plt

    from lib import plots

    changing = [name for name in swept if len(set(table[name])) > 1] or list(swept[:1])
    axis, others = changing[0], changing[1:]
    columns = min(len(claims), 2)
    rows = math.ceil(len(claims) / columns)
    plots.use_style()
    figure, grid = plots.figure(rows, columns, width=5.0 * columns, height=3.2 * rows, squeeze=False)
    panels = list(grid.flat)
    for spare in panels[len(claims) :]:
        spare.set_visible(False)
    groups = list(table.groupby(others, dropna=False)) if others else [((), table)]
    numeric = pd.api.types.is_numeric_dtype(table[axis]) and table[axis].dtype != bool
    for panel, claim in zip(panels, claims, strict=False):
        for key, group in groups:
            frame = group.sort_values(axis) if numeric else group
            x = frame[axis] if numeric else frame[axis].astype(str)
            effect = frame[f"{claim}: effect"]
            label = ", ".join(f"{name} = {value}" for name, value in zip(others, key, strict=True))
            (line,) = panel.plot(x, effect, marker="o", label=label or None)
            if frame[f"{claim}: low"].notna().all():
                panel.fill_between(
                    x, frame[f"{claim}: low"], frame[f"{claim}: high"], alpha=0.15, color=line.get_color(), linewidth=0
                )
        panel.set(title=claim, xlabel=axis, ylabel="effect")
        if others and len(groups) <= 8:
            panel.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
