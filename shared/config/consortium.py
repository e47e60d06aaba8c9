"""The file that belongs to the coordinator: how its consortium is reached and run."""

from typing import Annotated

from pydantic import AfterValidator, Field

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name

_LARGEST_PORT = 65535
_ADDRESS = r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$"


def _check_port(address: str) -> str:
    if int(address.rpartition(":")[2]) > _LARGEST_PORT:
        raise ValueError(f"the port of {address!r} is larger than {_LARGEST_PORT}")
    return address


Address = Annotated[str, Field(pattern=_ADDRESS, max_length=260), AfterValidator(_check_port)]
"""``host:port``; an IPv6 address in brackets."""
Port = Annotated[int, Field(ge=1, le=_LARGEST_PORT)]


class ConsortiumConfig(Frozen):
    """A consortium, as its coordinator runs it. Lies in the consortium's folder as `consortium.yaml`."""

    name: Name
    """Short name of the consortium."""
    address: Address
    """Host and port at which the sites reach the coordinator, for instance `fedcad.example.org:8443`. It
    stands in the server's certificate and in every enrolment: after a change, renew both."""
    listen: Address = "0.0.0.0:8443"
    """Where the coordinator listens for sites. Only what nodes need is served there."""
    control_port: Port = 9092
    """Port on this machine alone (127.0.0.1) for submitting and controlling studies."""
    metrics_port: Port = 9464
    """Port on this machine alone (127.0.0.1) for Prometheus."""
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = 730
    """For how many days certificates of sites and server are valid."""
    stall_alert_s: Annotated[float, Field(gt=0.0, le=1e7)] = 3600.0
    """After how many seconds without progress a running study is reported as stalled."""
