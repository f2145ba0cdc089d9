"""Which exceptions are a user's to mend: those end in one line, all others in a traceback."""

from __future__ import annotations

import sys

EXPECTED = {
    "lib.catalogue": ("CatalogueError", "UnknownSlug"),
    "lib.run.notebook": ("DamagedNotebook", "NoChapter"),
    "lib.run.parameters": ("ParameterError",),
    "lib.run.files": ("Busy",),
    "lib.run.sweep": ("SweepError",),
    "lib.runtime": ("DeviceError",),
}


def expected(error: Exception) -> bool:
    """Whether an exception says what the user should change; looks only at modules that are imported already."""
    kinds = [
        getattr(sys.modules[module], name)
        for module, names in EXPECTED.items()
        if module in sys.modules
        for name in names
    ]
    return isinstance(error, tuple(kinds))
