from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedcad.shared.config.consortium import ConsortiumConfig
from fedcad.shared.config.load import load_consortium
from fedcad.shared.errors import ConfigError

NAMED = {"name": "lungs", "address": "fedcad.example.org:8443"}


def test_two_keys_suffice() -> None:
    config = ConsortiumConfig.model_validate(NAMED)
    assert config.model_dump(exclude_defaults=True) == NAMED
    assert (config.listen, config.control_port, config.metrics_port) == ("0.0.0.0:8443", 9092, 9464)


@pytest.mark.parametrize("address", ["a:1", "10.0.0.1:65535", "[2001:db8::1]:8443", "a.b-c.example:443"])
def test_addresses(address: str) -> None:
    assert ConsortiumConfig.model_validate(NAMED | {"address": address}).address == address


@pytest.mark.parametrize(
    "change",
    [
        *({"address": text} for text in ("a", ":1", "a:", "a:0", "a:65536", "a b:1", "http://a:1", "a:1\n")),
        {"name": "Lungs"},
        {"control_port": 0},
        {"metrics_port": 65536},
        {"certificate_days": 0},
        {"stall_alert_s": 0.0},
        {"listen": "8443"},
        {"surprise": 1},
    ],
)
def test_wrong_files_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConsortiumConfig.model_validate(NAMED | change)


@given(text=st.text(max_size=30))
def test_an_accepted_address_has_a_host_and_a_port(text: str) -> None:
    try:
        address = ConsortiumConfig.model_validate(NAMED | {"address": text}).address
    except ValidationError:
        return
    host, _, port = address.rpartition(":")
    assert host
    assert 1 <= int(port) <= 65535


def test_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "consortium.yaml"
    path.write_text("name: lungs\naddress: fedcad.example.org:99999\n")
    with pytest.raises(ConfigError, match=r"consortium.yaml:2: address: .*99999"):
        load_consortium(path)
