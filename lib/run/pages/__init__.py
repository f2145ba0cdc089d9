"""What the book shows of catalogue and records: the generated pages, and the generated parts of chapters."""
