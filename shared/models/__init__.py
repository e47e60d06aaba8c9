"""CAD networks, one file each, behind a registry."""
