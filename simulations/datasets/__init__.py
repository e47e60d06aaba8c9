"""Readers of public data sets, one file each."""
