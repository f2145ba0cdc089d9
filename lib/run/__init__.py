"""Running, checking and publishing chapters: what the command line (`python -m lib`) calls."""
