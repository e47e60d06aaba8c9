"""What the coordinator asks of its own SuperLink, over loopback: keys of sites, and runs of studies.

Why not the ``flwr`` command: it takes 1.5 s and 110 MB for each call, prints for people, and keeps its own
settings; the client of the same API takes milliseconds. No call here takes longer than a few seconds.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcad.shared.bundle import RUN_DIRECTORY_KEY, bundle, bundle_hash
from fedcad.shared.errors import ProtocolError
from fedcad.shared.secret_files import read_secret

FINISHED = "finished"
CONTROL_HEADER = "x-fedcad-control"
"""Header that proves to the SuperLink that this coordinator itself asks."""


@dataclass(frozen=True)
class RunStatus:
    """A run of Flower: its id, ``pending|starting|running|finished``, why it ended, its study's folder."""

    run_id: int
    status: str
    details: str
    run_directory: str


@dataclass(frozen=True)
class NodeStatus:
    """A site as the SuperLink sees it: its name, whether it is online, since when (ISO 8601)."""

    site: str
    node_id: int
    is_online: bool
    last_activated: str


def control_token(secret: bytes) -> str:
    """Return what only who can read the executor's secret can send along: a token derived from it."""
    return hmac.new(secret, b"fedcad:control", hashlib.sha256).hexdigest()


class FlowerControl:
    """The Control API of the coordinator's SuperLink.

    Every call raises :class:`~fedcad.shared.errors.ProtocolError` where the SuperLink cannot be reached or
    refuses.
    """

    def __init__(self, address: str, ca_certificate: Path, executor_secret: Path) -> None:
        """Use a SuperLink; nothing is sent yet.

        Args:
            address: ``host:port`` on loopback.
            ca_certificate: Certificate of the consortium's CA.
            executor_secret: File of the secret that SuperLink and executor share.

        Raises:
            IdentityError: The secret cannot be read, or others can read it.
        """
        from fedcad.shared.flower_internals.control import ControlClient

        token = control_token(read_secret(executor_secret, "the executor's secret"))
        self._client = ControlClient(address, ca_certificate.read_bytes(), {CONTROL_HEADER: token})

    def register_sites(self, wanted: Mapping[str, str]) -> list[str]:
        """Make the registered keys those of the enrolled sites; doing it again changes nothing.

        Args:
            wanted: Public key of each site's node, OpenSSH format, by the site's name.

        Returns:
            What was changed, a line each.
        """
        from fedcad.shared.flower_internals.control import public_key_bytes

        keys = {name: public_key_bytes(key) for name, key in wanted.items()}
        changes: list[str] = []
        with _plain_errors():
            known = self._client.nodes()
            right = {node.name for node in known if keys.get(node.name) == node.public_key}
            for node in known:
                if keys.get(node.name) != node.public_key:
                    self._client.unregister(node.node_id)
                    changes.append(f"the node key of {node.name} is no longer accepted")
            for name in keys.keys() - right:
                self._client.register(name, keys[name])
                changes.append(f"the node key of {name} is accepted")
        return sorted(changes)

    def nodes(self) -> list[NodeStatus]:
        """Return the registered sites."""
        with _plain_errors():
            return [
                NodeStatus(node.name, node.node_id, node.status == "online", node.last_activated)
                for node in self._client.nodes()
            ]

    def start_run(self, run_directory: Path) -> int:
        """Start a run of this version's bundle for a study's folder; return the run's id."""
        settings = {RUN_DIRECTORY_KEY: str(run_directory)}
        with _plain_errors():
            run_id = self._client.start_run(bundle(), bundle_hash(), settings)
        if not run_id:
            raise ProtocolError(f"the SuperLink started no run for {run_directory}; its log says why")
        return run_id

    def runs(self) -> list[RunStatus]:
        """Return the newest runs."""
        with _plain_errors():
            return [
                RunStatus(
                    run.run_id,
                    run.status,
                    f"{run.sub_status} {run.details}".strip(),
                    run.settings.get(RUN_DIRECTORY_KEY, ""),
                )
                for run in self._client.runs()
            ]

    def run(self, run_id: int) -> RunStatus | None:
        """Return one of the newest runs, or None where it is unknown."""
        return next((run for run in self.runs() if run.run_id == run_id), None)

    def stop_run(self, run_id: int) -> None:
        """Stop a run; a run that has finished, or is unknown, stays as it is."""
        status = self.run(run_id)
        if status is not None and status.status != FINISHED:
            with _plain_errors():
                self._client.stop_run(run_id)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextmanager
def _plain_errors() -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        raise ProtocolError(
            f"the SuperLink refused {error.request.url.path} (HTTP status {error.response.status_code}): "
            f"{error.response.text[:200]}"
        ) from error
    except httpx.HTTPError as error:
        raise ProtocolError(f"the SuperLink does not answer yet ({type(error).__name__})") from error
