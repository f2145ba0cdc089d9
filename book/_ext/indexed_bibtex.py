"""Bibliographies that stay fast with hundreds of pages.

For the bibliography of each page, sphinxcontrib-bibtex looks at every citation of the book once for every entry of
the BibTeX files, which is cubic in the number of chapters.  Here the citations are sorted once, and a
bibliography with the filter ``docname in docnames`` looks at those of its own page only.  The output is the same.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

from pybtex.database import Entry
from sphinx.application import Sphinx
from sphinxcontrib.bibtex.domain import BibtexDomain

OWN_PAGE = ast.dump(ast.parse("docname in docnames"))


class IndexedBibtexDomain(BibtexDomain):
    cited: dict[str, list[str]]
    """Document -> keys that it cites, in order."""

    def env_updated(self) -> Iterable[str]:
        self.cited = defaultdict(list)
        for reference in self.citation_refs:
            self.cited[reference.docname] += [target.key for target in reference.targets]
        return super().env_updated()

    def get_all_cited_keys(self, docnames: list[str]) -> Iterable[str]:
        for docname in docnames:
            yield from self.cited.get(docname, ())

    def get_filtered_entries(self, bibliography_key) -> Iterable[tuple[str, Entry]]:
        bibliography = self.bibliographies[bibliography_key]
        if ast.dump(bibliography.filter_) != OWN_PAGE:
            yield from super().get_filtered_entries(bibliography_key)
            return
        cited = set(self.cited.get(bibliography_key.docname, ()))
        for entry in self.get_entries(bibliography.bibfiles):
            key = bibliography.keyprefix + entry.key
            if key in cited:
                yield key, entry


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinxcontrib.bibtex")
    app.add_domain(IndexedBibtexDomain, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
