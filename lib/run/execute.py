"""Many chapters: execute those that are not fresh, in place, at their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib import catalogue
from lib.run import chapter, freshness, kernel, parameters
from lib.run import notebook as nb
from lib.run.files import checkout_lock
from lib.run.progress import Board


@dataclass(frozen=True)
class Result:
    """What became of one chapter; `error` is empty if it went well."""

    slug: str
    seconds: float = 0.0
    error: str = ""
    kept: Path | None = None


def written() -> list[catalogue.Paper]:
    """Chapters that have a notebook, in book order, leaderboards last."""
    return [paper for paper in catalogue.chapters().values() if paper.notebook.exists()]


def why_stale(paper: catalogue.Paper) -> str:
    """`freshness.stale`, with a damaged notebook or import as one more reason to try."""
    try:
        return freshness.stale(paper)
    except (ValueError, SyntaxError) as error:
        return str(error)


def execute(papers: Sequence[catalogue.Paper], *, only_stale: bool, jobs: int = 1, wait: bool = True) -> list[Result]:
    """Execute chapters at their defaults on the CPU and replace notebook and record of each that goes well.

    One call at a time works in a checkout.  What is stale is decided when the lock is held, so that a call that waited
    does not repeat what the other has done.

    Args:
        papers: with notebooks.
        only_stale: leave out fresh ones.
        jobs: how many at once.
        wait: for another call, else refuse.

    Raises:
        files.Busy: another call works, and `wait` is false.
    """
    board = Board(len(papers))
    with checkout_lock(wait, board.say):
        freshness.forget()  # while this process waited, files may have changed
        if only_stale:
            reasons = {paper.slug: why_stale(paper) for paper in papers}
            papers = [paper for paper in papers if reasons[paper.slug]]
            for paper in papers:
                board.say(f"{paper.slug}: {reasons[paper.slug]}")
            board.total = len(papers)
        with board, ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                return list(pool.map(lambda paper: _one(paper, board), papers))
            except KeyboardInterrupt:  # do not wait for what runs, and begin nothing more
                pool.shutdown(wait=False, cancel_futures=True)
                kernel.stop_all()
                raise


def _one(paper: catalogue.Paper, board: Board) -> Result:
    failed = catalogue.root() / "runs" / "failed" / f"{paper.slug}.ipynb"
    board.start(paper.slug)
    try:
        notebook = nb.of(paper)
        parameters.of(notebook)
        done = chapter.run(
            paper,
            notebook,
            {},
            profile="default",
            device="cpu",
            keep=failed,
            observer=lambda cells, total: board.advance(paper.slug, cells, total),
        )
        chapter.save(done, paper.notebook, paper.record())
    except Exception as error:  # whatever it is, the other chapters go on
        text = str(error) if isinstance(error, kernel.ChapterFailed | OSError) else f"{type(error).__name__}: {error}"
        board.end(paper.slug, "FAILED")
        return Result(paper.slug, error=text, kept=failed if failed.exists() else None)
    seconds = done.record["run"]["seconds"]
    board.end(paper.slug, f"executed in {seconds:.0f} s")
    return Result(paper.slug, seconds)
