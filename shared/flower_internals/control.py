"""flwr's Control API: keys of nodes, and runs."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedcad.shared.flower_internals.fence import require_flower

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RegisteredNode:
    """A node key that the SuperLink knows: flwr's node id, site name, key as flwr's bytes, and its state."""

    node_id: int
    name: str
    public_key: bytes
    status: str
    last_activated: str
    online_until: float


@dataclass(frozen=True)
class FlowerRun:
    """A run: its id, ``pending|starting|running|finished``, how it finished, and its settings."""

    run_id: int
    status: str
    sub_status: str
    details: str
    settings: Mapping[str, str]


def public_key_bytes(openssh: str) -> bytes:
    """Return a node's public key as flwr compares it."""
    key = load_ssh_public_key(openssh.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a node's key is an elliptic-curve key in OpenSSH format")
    return public_key_to_bytes(key)


class ControlClient:
    """flwr's Control API. Calls raise :class:`httpx.HTTPError` where it refuses or cannot be reached."""

    def __init__(
        self, address: str, root_certificates: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Make a client for ``host:port``, which sends these headers along; nothing is sent yet."""
        require_flower()
        interceptors = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        self._client = ControlHttpClient.from_server_address(
            address, False, root_certificates, interceptors=interceptors
        )
        # flwr waits for half a minute; this is loopback, and the caller has other things to keep alive.
        self._client._client.timeout = httpx.Timeout(_TIMEOUT_S)
        self._client._client.headers.update(headers or {})

    def nodes(self) -> list[RegisteredNode]:
        """Return the nodes whose keys are registered."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            RegisteredNode(
                node.node_id,
                node.name,
                node.public_key,
                node.status,
                node.last_activated_at,
                node.online_until,
            )
            for node in found
            if node.status != "unregistered"
        ]

    def register(self, name: str, public_key: bytes) -> int:
        """Register a key; return the node's id."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(self._client.RegisterNode(request).node_id)

    def unregister(self, node_id: int) -> None:
        """Forget a key; its node is refused from now on."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start_run(self, bundle: bytes, bundle_hash: str, settings: Mapping[str, str]) -> int:
        """Start a run of a bundle; return its id, 0 where the SuperLink made none."""
        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle_hash, bundle, {})),
            override_config=user_config_to_proto(dict(settings)),
        )
        return int(self._client.StartRun(request).run_id)

    def runs(self, limit: int = 200) -> list[FlowerRun]:
        """Return the newest runs."""
        found = self._client.ListRuns(ListRunsRequest(limit=limit)).run_dict
        return [
            FlowerRun(
                run.run_id,
                run.status.status,
                run.status.sub_status,
                run.status.details,
                {key: value.string for key, value in run.override_config.items()},
            )
            for run in found.values()
        ]

    def stop_run(self, run_id: int) -> None:
        """Stop a run."""
        self._client.StopRun(StopRunRequest(run_id=run_id))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
