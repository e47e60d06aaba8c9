"""The coordinator: runs rounds, aggregates updates, never sees an image."""
