"""flwr's SuperLink as an application that can be served on more than one listener."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fedcad.shared.flower_internals.fence import require_flower


def superlink_application(arguments: Sequence[str]) -> Any:
    """Return flwr's SuperLink as an ASGI application, from the arguments of ``flower-superlink``."""
    # The package has a function of the module's name, which "import … as" would return.
    superlink = import_module("flwr.superlink.cli.flower_superlink")
    from flwr.superlink.main import create_app

    require_flower()
    given, sys.argv = sys.argv, ["flower-superlink", *arguments]
    try:
        config = superlink._parse_superlink_lifespan_config()
    finally:
        sys.argv = given
    return create_app(config, superlink.SuperLinkLifespan)


def log_settings() -> dict[str, Any]:
    """Return uvicorn's log settings as flwr's SuperLink uses them: routine requests are not listed."""
    from flwr.supercore.http_logging import get_uvicorn_log_config
    from flwr.supercore.logger import console_handler

    return get_uvicorn_log_config(console_handler.level)
