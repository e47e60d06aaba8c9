"""What the coordinator may know of an error at a hospital: its kind, and nothing that it says."""

import logging
import traceback

from fedcad.shared.errors import FedCADError

ERROR_CODE = 2
"""Flower's code for an app that raised an error: asking again would bring the same one."""
AWAY_CODE = 5
"""Flower's code for a node that cannot be reached: asking again may succeed."""
_LOG = logging.getLogger("fedcad.client")


def withhold_reason(error: Exception) -> str:
    """Log at the site why it failed, and return what the coordinator may know: the kind of error only.

    Why: an error's text may hold a path or a value that is a patient's. Of an error that FedCAD did not
    raise itself, even the site's log gets the place only.
    """
    text = str(error) if isinstance(error, FedCADError) else "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("the site failed: %s: %s", type(error).__name__, text)
    return f"the site failed ({type(error).__name__}); the site's own log says why"
