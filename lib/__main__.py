"""The command line: ``python -m lib``, or ``companion`` where the project is installed."""

from __future__ import annotations

from lib.run.cli import main

if __name__ == "__main__":
    main()
