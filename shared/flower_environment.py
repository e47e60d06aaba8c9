"""The environment in which every process of Flower runs, at the coordinator and at the sites.

Why one place: Flower's defaults send usage statistics, ask a public server for updates, and install Python
packages from the Internet while a study runs. In a hospital each of these is an incident.
"""

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fedcad.shared.errors import ConfigError

_ALWAYS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TRACING_ENABLED": "0",
    "FLWR_INTERNAL_GRPC_CONTROL_API": "0",
    "FLWR_INTERNAL_GRPC_FLEET_API": "0",
    "FLWR_OIDC_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The C library keeps freed pieces of messages, of 5 MB each, in a heap for each thread.
    "MALLOC_ARENA_MAX": "2",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}
_NEVER = (
    "FLWR_DATABASE",
    "FLWR_ENABLE_EVENT_LOG",
    "FLWR_TELEMETRY_LOGGING",
    "FLWR_MODEL_API_KEY",
    "FLWR_RUNTIME_API_KEY",
    "FLWR_RUNTIME_BASE_URL",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
)
"""Inherited settings that would change what the processes do or load code into them."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXY_NAMES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def flower_environment(
    home: Path, inherited: Mapping[str, str], *, proxy: str | None = None
) -> dict[str, str]:
    """Return the environment for a process of Flower.

    Args:
        home: Folder for Flower's own files; private to this coordinator or site.
        inherited: Environment of the caller; its proxy settings stay, unless ``proxy`` is given.
        proxy: Address of the hospital's web proxy, ``http://host:port``; ``""`` means "none, even if the
            system has one"; ``None`` leaves the system's setting.

    Raises:
        ConfigError: The proxy's address cannot be used.
    """
    environment = {name: value for name, value in inherited.items() if name not in _NEVER}
    environment.update(_ALWAYS, FLWR_HOME=str(home), PATH=_search_path(inherited.get("PATH", "")))
    if proxy is not None:
        for name in _PROXY_NAMES:
            environment.pop(name, None)
        if proxy:
            environment["HTTPS_PROXY"] = _checked(proxy)
    exceptions = [*inherited.get("NO_PROXY", inherited.get("no_proxy", "")).split(","), *_LOOPBACK]
    environment["NO_PROXY"] = ",".join(dict.fromkeys(name.strip() for name in exceptions if name.strip()))
    environment.pop("no_proxy", None)
    return environment


def _search_path(inherited: str) -> str:
    """Return PATH with this environment's programs first: Flower finds its own programs by name."""
    own = sysconfig.get_path("scripts") or str(Path(sys.executable).parent)
    return os.pathsep.join([own, *(part for part in inherited.split(os.pathsep) if part and part != own)])


def _checked(proxy: str) -> str:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            "proxy: the address of the web proxy cannot be used; expected http://host:port. "
            "Ask your network department for it"
        )
    return proxy
