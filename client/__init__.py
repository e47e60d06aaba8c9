"""The hospital node: reads the archive, trains, obeys the site's own limits."""
