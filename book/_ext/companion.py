"""Local Sphinx extension: the generated parts of chapters, the entry page, and reading in parallel."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from functools import cache
from pathlib import Path

from docutils import nodes
from pybtex import plugin
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from lib import catalogue
from lib.run.pages import chapter, evidence

SIGNATURE = "generated"  # where a page keeps it; "companion" is taken by the notebook's own metadata
CHAPTER = re.compile(r"notebooks/([^/]+)/([^/]+)$")
ENTRY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="refresh" content="0; url={target}"><link rel="canonical" href="{target}"></head>
<body><a href="{target}">{title}</a></body></html>
"""


def source_address(app: Sphinx) -> str:
    options = app.config.html_theme_options
    return f"{options['repository_url']}/blob/{options['repository_branch']}/"


def link_to_source(app: Sphinx, config: Config) -> None:
    """Let linkcode lead from the reference to the repository (copies of the sources would be a page a module)."""
    address = source_address(app)

    def resolve(domain: str, info: dict[str, str]) -> str | None:
        if domain != "py" or not info["module"]:
            return None
        module = sys.modules.get(info["module"])
        thing = module
        try:
            for name in info["fullname"].split("."):
                thing = getattr(thing, name)
            path = Path(inspect.getsourcefile(inspect.unwrap(thing))).relative_to(catalogue.root())
            line = inspect.getsourcelines(thing)[1]
        except (AttributeError, TypeError, OSError, ValueError):  # constants have no source of their own
            return f"{address}{info['module'].replace('.', '/')}.py" if module else None
        return f"{address}{path}#L{line}"

    config.linkcode_resolve = resolve


@cache
def generator() -> bytes:
    """The code that makes the generated parts."""
    return b"".join(path.read_bytes() for path in sorted(Path(chapter.__file__).parent.glob("*.py")))


def slug(match: re.Match[str]) -> str:
    """Of the chapter whose document it is."""
    return f"{match[1]}-leaderboard" if match[2] == "leaderboard" else match[2]


def signature(docname: str) -> str:
    """Digest of what a chapter's generated parts are made of; empty for other pages."""
    match = CHAPTER.match(docname)
    if not match:
        return ""
    source = catalogue.folder() / match[1] / f"{match[2]}.yaml"
    if match[2] == "leaderboard":
        source = catalogue.root() / "data" / "leaderboards" / f"{match[1]}.yaml"
    records = catalogue.root() / "data" / "records" / slug(match)
    files = [source, *sorted(records.glob("*.json"))]
    text = b"".join(path.name.encode() + path.read_bytes() for path in files)
    return hashlib.sha256(text + generator()).hexdigest()


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Chapters whose catalogue file or records changed."""
    return [name for name in env.found_docs if env.metadata.get(name, {}).get(SIGNATURE, "") != signature(name)]


def add_generated_parts(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    match = CHAPTER.match(docname)
    if not match:
        return
    app.env.metadata[docname][SIGNATURE] = signature(docname)
    each = evidence.of(slug(match))
    title = next(doctree.findall(nodes.title))
    top = title.parent
    top.insert(top.index(title) + 1, nodes.raw("", chapter.line(each, source_address(app)), format="html"))
    section = nodes.section(ids=["registered"], names=["registered"])
    section += nodes.title("", "Registered")
    section += nodes.raw("", chapter.registered(each), format="html")
    last = [child for child in top.findall(nodes.section) if child.next_node(nodes.title).astext() == "References"]
    if last:
        last[-1].parent.insert(last[-1].parent.index(last[-1]), section)
    else:
        top += section


BARS = re.compile(r"(`[^`]*`)|\|")


def keep_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Norms and conditions in docstrings, ``||w||`` and ``p(x | y)``, are no substitutions of reStructuredText."""
    block = -1  # indentation of the line that opened a literal block, where a backslash would show
    for index, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if block >= 0 and line.strip() and depth <= block:
            block = -1
        if block < 0:
            lines[index] = BARS.sub(lambda match: match[1] or r"\|", line)
            if line.rstrip().endswith("::"):
                block = depth


def leave_out_fields(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object) -> bool | None:
    """Fields of named tuples are described once, under the Attributes of the docstring."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def allow_parallel_reading(app: Sphinx) -> None:
    """sphinx_multitoc_numbering only counts after reading, but does not say that reading in parallel is safe."""
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def look_up_styles_once() -> None:
    """pybtex searches all installed packages for its plugins at every citation: a fifth of the time of a build."""
    plugin._load_entry_point = cache(plugin._load_entry_point)


def write_entry_page(app: Sphinx, exception: Exception | None) -> None:
    """The book begins in a folder of its own; the address of the site leads there."""
    if exception is None and app.builder.format == "html":
        target = app.builder.get_target_uri(app.config.master_doc)
        page = ENTRY.format(title=app.config.html_title, target=target)
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    look_up_styles_once()
    app.connect("config-inited", link_to_source)
    app.connect("builder-inited", allow_parallel_reading)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", add_generated_parts, priority=400)  # before the contents of the page are collected
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-skip-member", leave_out_fields)
    app.connect("build-finished", write_entry_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
