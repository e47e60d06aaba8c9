"""Benchmarks against the practical limit and against peers; each module is a command that prints a table."""
