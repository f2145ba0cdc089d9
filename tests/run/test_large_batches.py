"""The page on large batches shows what was measured."""

import json

from lib.run import large_batches


def test_every_measurement_is_shown():
    rows = json.loads(large_batches.source().read_text())["rows"]
    tables = large_batches.needs_table() + large_batches.losses_table()
    for row in rows:
        if row["who"] == "ours":
            assert f"{row['seconds']:.3g} s<br>{row['memory_mb']:.0f} MB" in tables
        elif row["who"] != "products" and row["seconds"] is not None:
            assert f"{row['times_ours']:.1f} ×" in tables
    refused = [row for row in rows if row["memory_mb"] == "out of memory"]
    assert tables.count("no memory") == len(refused)


def test_ratios_belong_to_one_run():
    """Every ratio is that of the two times beside it."""
    found = large_batches.measured()
    for (loss, size, _), row in found.items():
        if row["seconds"] is not None:
            assert (
                abs(row["times_ours"] - row["seconds"] / found[loss, size, "ours"]["seconds"])
                < 1e-4 * row["times_ours"]
            )


def test_gradcache_table_shows_every_measurement():
    rows = json.loads(large_batches.source("gradcache").read_text())["rows"]
    text = large_batches.cached()
    assert rows
    for row in rows:
        assert f"{row['pairs']:,}" in text
        assert ("more than 10 GB" if row["seconds"] is None else f"{row['memory_mb']:,.0f} MB") in text
