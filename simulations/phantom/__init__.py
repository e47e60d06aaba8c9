"""Procedural images with ground truth, the data set that needs no download."""
