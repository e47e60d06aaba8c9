"""Flower's own programs on loopback, as its documentation starts them: TLS, node keys, separate executor.

Nothing of FedCAD runs here but the maker of the certificates.
"""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from benchmarks.deployment_watch import Watch, free_ports, require_alive, running
from fedcad.server.consortium import Consortium, make_config

_POLL_S = 0.1
_PATIENCE_S = 360.0
_START_S = 60.0
_PYPROJECT = """\
[project]
name = "minimal"
version = "1.0.0"
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "minimal.server_app:app"
clientapp = "minimal.client_app:app"
[tool.flwr.app.config]
values = {values}
sites = {sites}
rounds = {rounds}
out = "{out}"
"""


def run(folder: Path, *, sites: int, values: int, rounds: int) -> dict[str, Any]:
    """Run Flower's minimal app over its own deployment.

    Returns:
        ``phases`` (seconds from the start of a round to the start of the next, from round 2 on), ``first``
        (seconds of round 1), ``peak_mb`` (by kind of process).
    """
    folder = folder.resolve()
    port, *node_ports = free_ports(1 + sites)
    out = folder / "times.json"
    _write_app(folder / "app", values=values, sites=sites, rounds=rounds, out=out)
    environment = _environment(folder / "home")
    commands = _commands(folder, port, node_ports, environment)
    servers = {name: each for name, each in commands.items() if not name.startswith("node")}
    nodes = {name: each for name, each in commands.items() if name.startswith("node")}
    watch = Watch()
    with running(servers, folder) as running_servers:
        _until_served(port)
        _connect(folder, port, sites, environment)
        with running(nodes, folder) as running_nodes:
            _flwr(["run", str(folder / "app"), "benchmark"], environment)
            until = time.monotonic() + _PATIENCE_S
            while not out.exists():
                watch.look()
                require_alive({**running_servers, **running_nodes}, folder)
                if time.monotonic() > until:
                    raise RuntimeError(f"Flower's app did not end within {_PATIENCE_S:g} s")
                time.sleep(_POLL_S)
    found = json.loads(out.read_text())
    if found["counted"] != [sites] * rounds:
        raise RuntimeError(f"Flower's rounds had {found['counted']} answers; expected {sites} in each")
    starts = [*found["starts"], found["ends"][-1]]
    steps = [after - before for before, after in itertools.pairwise(starts)]
    return {"first": steps[0], "phases": steps[1:], "peak_mb": watch.peak_mb}


def _write_app(folder: Path, *, values: int, sites: int, rounds: int, out: Path) -> None:
    (folder / "minimal").mkdir(parents=True)
    named = {"values": values, "sites": sites, "rounds": rounds, "out": out}
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(**named))
    (folder / "minimal" / "__init__.py").write_text("")
    for end in ("server", "client"):
        source = Path(__file__).parent / f"deployment_flower_{end}.py"
        shutil.copyfile(source, folder / "minimal" / f"{end}_app.py")


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
    }


def _commands(
    folder: Path, port: int, node_ports: list[int], environment: Mapping[str, str]
) -> dict[str, tuple[list[str], Mapping[str, str]]]:
    consortium = Consortium.create(folder / "ca", make_config("benchmark", f"localhost:{port}"))
    secret, ca = folder / "superexec.secret", str(consortium.ca_certificate)
    secret.write_text("0123456789abcdef" * 4)
    secret.chmod(0o600)
    superlink = [
        *("flower-superlink", "--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-certfile", str(consortium.server_certificate)),
        *("--ssl-keyfile", str(consortium.keys / "server.key"), "--ssl-ca-certfile", ca),
        *("--enable-supernode-auth", "--database", str(folder / "state.db"), "--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret), "--disable-runtime-dependency-installation"),
    ]
    executor = [
        *("flower-superexec", "--runtime-api-address", f"localhost:{port}", "--root-certificates", ca),
        *("--superexec-auth-secret-file", str(secret)),
    ]
    commands = {"superlink": (superlink, environment), "superexec": (executor, environment)}
    for number, node_port in enumerate(node_ports):
        node = [
            *("flower-supernode", "--superlink", f"localhost:{port}", "--root-certificates", ca),
            *("--auth-supernode-private-key", str(folder / f"key{number}"), "--port", str(node_port)),
        ]
        commands[f"node{number}"] = (node, {**environment, "FLWR_HOME": str(folder / f"home{number}")})
    return commands


def _until_served(port: int) -> None:
    """Wait until the SuperLink listens."""
    until = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _connect(folder: Path, port: int, sites: int, environment: Mapping[str, str]) -> None:
    """Tell Flower's command line where the SuperLink is, and register the nodes' keys."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f'[superlink.benchmark]\naddress = "localhost:{port}"\n'
        f'root-certificates = "{folder / "ca" / "ca.crt"}"\n'
    )
    for number in range(sites):
        key = ec.generate_private_key(ec.SECP384R1())
        private = folder / f"key{number}"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        private.chmod(0o600)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        private.with_suffix(".pub").write_bytes(public)
        named = ["--name", f"site{number}"]
        _flwr(["supernode", "register", str(private.with_suffix(".pub")), "benchmark", *named], environment)


def _flwr(arguments: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(["flwr", *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"flwr {arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
