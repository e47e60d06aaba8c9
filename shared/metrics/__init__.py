"""Metrics as exactly mergeable statistics."""
