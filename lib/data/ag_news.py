"""AG News: short news texts of four topics (Zhang, Zhao, LeCun 2015, arXiv:1509.01626): the 7,600 of the test part."""

from __future__ import annotations

import csv
import io

from lib.data.sets import find_file

__all__ = ["AG_NEWS_TOPICS", "ag_news"]

AG_NEWS_TOPICS = ("World", "Sports", "Business", "Sci/Tech")


def ag_news() -> list[tuple[str, str]]:
    """The texts, title and description with a full stop between them, and their topics, in the order of the file.

    Raises:
        DataUnavailable: the file is not on this machine and cannot be downloaded.
        DamagedFile: what was downloaded has another hash.
    """
    content = find_file("ag-news", "test.csv").read_bytes().decode("utf-8")
    rows = csv.reader(io.StringIO(content))
    return [(f"{title}. {rest}".replace("\\", " "), AG_NEWS_TOPICS[int(number) - 1]) for number, title, rest in rows]
