"""Read the built pages again and say what is wrong with them: links that lead nowhere, images without text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit

NEEDS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}
"""Element -> attribute that names another file."""


@dataclass
class Page:
    """What a page contains, as far as it is checked."""

    ids: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.page.ids |= {own[name] for name in ("id", "name") if name in own}
        if tag in NEEDS and NEEDS[tag] in own:
            self.page.links.append((tag, own[NEEDS[tag]]))
        if tag == "img":
            self.page.images.append(own)


def read(folder: Path) -> dict[str, Page]:
    """Every page of the book in a folder, by its path from there (templates of the theme are none)."""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        if path.is_relative_to(folder / "_static"):
            continue
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        pages[path.relative_to(folder).as_posix()] = reader.page
    return pages


def elsewhere(url: str) -> bool:
    """Whether an address leads out of the book."""
    parts = urlsplit(url)
    return bool(parts.scheme or parts.netloc)


def broken_links(folder: Path, pages: dict[str, Page]) -> list[str]:
    """Links inside the book to files or anchors that do not exist, one line each.

    Args:
        folder: of the built book.
        pages: `read` of it.
    """
    faults = []
    for name, page in pages.items():
        for tag, url in page.links:
            if elsewhere(url) or (tag == "link" and not url):
                continue
            parts = urlsplit(url)
            path = unquote(parts.path)
            if path.startswith("/"):
                faults.append(f"{name}: {url} depends on where the book is")
                continue
            target = normpath(join(dirname(name), path)) if path else name
            if not (folder / target).is_file():
                faults.append(f"{name}: {url} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                faults.append(f"{name}: {url} names no part of {target}")
    return faults


def foreign_parts(pages: dict[str, Page]) -> list[str]:
    """Scripts, styles and images that a page loads from another host: it would need a network to show."""
    return [
        f"{name}: <{tag}> {url}"
        for name, page in pages.items()
        for tag, url in page.links
        if tag in ("script", "img", "iframe", "source") and elsewhere(url) and not url.startswith("data:")
    ]


def images_without_text(pages: dict[str, Page]) -> list[str]:
    """Images whose alternative text is missing or empty; a logo beside its name needs none."""
    faults = []
    for name, page in pages.items():
        for image in page.images:
            decorates = "logo" in image.get("class", "") and "alt" in image
            if not decorates and not image.get("alt", "").strip():
                faults.append(f"{name}: {image.get('src', '')[:80]} has the text {image.get('alt', '')!r}")
    return faults
