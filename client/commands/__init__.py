"""The commands of a hospital node."""
