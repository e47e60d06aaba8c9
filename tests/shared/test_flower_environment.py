import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.errors import ConfigError
from fedcad.shared.flower_environment import flower_environment

HOME = Path("/site/flwr")


def test_nothing_is_sent_asked_or_installed_whatever_was_inherited():
    hostile = {
        "FLWR_TELEMETRY_ENABLED": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "0",
        "PYTHONPATH": "/tmp/evil",
        "FLWR_HOME": "/tmp/evil",
        "FLWR_DATABASE": "/tmp/evil.db",
    }
    environment = flower_environment(HOME, hostile)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_HOME"] == "/site/flwr"
    assert "PYTHONPATH" not in environment and "FLWR_DATABASE" not in environment


def test_this_environments_programs_are_found_first_and_once():
    own = flower_environment(HOME, {})["PATH"]
    environment = flower_environment(HOME, {"PATH": os.pathsep.join(["/usr/bin", own, "/bin"])})
    assert environment["PATH"].split(os.pathsep) == [own, "/usr/bin", "/bin"]


def test_a_configured_proxy_replaces_the_systems_and_never_serves_loopback():
    inherited = {"HTTPS_PROXY": "http://old:1", "http_proxy": "http://old:2", "NO_PROXY": "intranet"}
    environment = flower_environment(HOME, inherited, proxy="http://proxy.hospital:3128")
    assert environment["HTTPS_PROXY"] == "http://proxy.hospital:3128"
    assert "http_proxy" not in environment
    assert environment["NO_PROXY"] == "intranet,localhost,127.0.0.1,::1"
    assert "HTTPS_PROXY" not in flower_environment(HOME, inherited, proxy="")
    assert flower_environment(HOME, inherited)["HTTPS_PROXY"] == "http://old:1"


@pytest.mark.parametrize(
    "proxy", ["proxy:3128", "socks5://proxy:1", "http://proxy", "http://[::1", "http://p:x"]
)
def test_an_unusable_proxy_is_refused_without_repeating_it(proxy):
    with pytest.raises(ConfigError, match="proxy") as refused:
        flower_environment(HOME, {}, proxy=proxy)
    assert proxy not in str(refused.value)  # it may hold a password


@given(st.dictionaries(st.sampled_from(["NO_PROXY", "PATH", "LANG", "HTTPS_PROXY"]), st.text("ab,:/. ")))
def test_loopback_never_goes_through_a_proxy(inherited):
    names = flower_environment(HOME, inherited)["NO_PROXY"].split(",")
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert "" not in names
