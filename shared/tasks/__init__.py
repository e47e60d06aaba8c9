"""CAD problems: loss of one case, inference, metrics as mergeable statistics."""
