"""Following the deployment documents: their blocks, who does what they say, mail and telephone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tiny_study

import fedcad.shared

ROOT = Path(fedcad.shared.__path__[0]).parent
DOCUMENTS = {"coordinator": "deploy-coordinator.md", "hospital": "deploy-hospital.md"}
SITES = ("north", "south", "east")
PATIENCE_S = 120.0
_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (?:\d+\. )?(.+)$", re.MULTILINE)
_STAYS = re.compile(r"^(?:cd|export) ")
_RUNS_ON = re.compile(r"^fedcad (?:server|client) start ")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind that, and its text."""

    language: str
    mark: str
    text: str


def text_of(document: str) -> str:
    return (ROOT / "docs" / DOCUMENTS[document]).read_text(encoding="utf-8")


def sections_of(document: str) -> dict[str, list[Block]]:
    """Return the blocks under each heading that has any."""
    parts = _HEADING.split(text_of(document))
    found = {
        title: [Block(language, mark or "", text) for language, mark, text in _FENCE.findall(body)]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {title: blocks for title, blocks in found.items() if blocks}


@dataclass
class Person:
    """Whoever follows one of the documents, in folders of their own."""

    document: str
    home: Path
    replacements: Mapping[str, str]
    environment: Mapping[str, str]
    prelude: str = ""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def follow(self, section: str, *, only: int | None = None, patience_s: float = 0.0) -> str:
        """Do what a section says; return what the last block printed.

        Args:
            section: Its heading, without the number.
            only: Number of the one block that is done; all if None.
            patience_s: For how long a block that fails is tried again, where the document says to wait.
        """
        blocks = [each for each in sections_of(self.document)[section] if each.mark != "admin"]
        printed = ""
        for block in blocks if only is None else blocks[only : only + 1]:
            if block.language == "yaml":
                (self.home / block.mark).write_text(block.text)
            else:
                printed = self._do(block.text, patience_s)
        self.done.append(section)
        return printed

    def _do(self, text: str, patience_s: float) -> str:
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        lines, printed = text.strip().splitlines(), ""
        for line in lines:
            if _STAYS.match(line):
                self.prelude += f"{line}\n"
            elif _RUNS_ON.match(line):
                self._start(line)
            else:
                printed = self.run(line, patience_s)
            if " -m venv " in line:
                provide_requirements(Path(line.split()[-1]))
        return printed

    def run(self, line: str, patience_s: float) -> str:
        until = time.monotonic() + patience_s
        while True:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{self.prelude}{line}"],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S * 5,
                check=False,
            )
            if done.returncode == 0 or time.monotonic() > until:
                break
            time.sleep(1.0)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def _start(self, line: str) -> None:
        with (self.home / "started.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"{self.prelude}exec {line}"],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)

    def leave(self) -> None:
        """End what was started and is still there."""
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environment_for_pip(root: Path) -> dict[str, str]:
    """Return an environment in which pip installs FedCAD's wheel alone: the rest is in this environment."""
    kept = ("LANG", "TMPDIR", "SSL_CERT_FILE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(root),
        "OMP_NUM_THREADS": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FORCE_REINSTALL": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def provide_requirements(installed: Path) -> None:
    """Let a new environment see this one's packages, so that nothing is fetched; FedCAD it gets itself."""
    (packages,) = installed.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "requirements-of-fedcad.pth").write_text("\n".join(here))


def make_person(root: Path, name: str, replacements: Mapping[str, str]) -> Person:
    """Return somebody with an empty home."""
    home, installed = root / name, root / f"{name}-opt"
    home.mkdir()
    document = "coordinator" if name == "coordinator" else "hospital"
    own = {"/var/lib/fedcad": str(home), "/opt/fedcad": str(installed)}
    return Person(document, home, {**own, **replacements}, environment_for_pip(root))


def copy_sources(target: Path) -> None:
    """Copy what a checkout has and a wheel is made of."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    for name in ("server", "client", "shared", "simulations", "configs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def fingerprint_in(printed: str) -> str:
    """Return the last fingerprint that a command showed: the telephone."""
    return " ".join(re.findall(r"^ +((?:[0-9a-f]{4} ){7}[0-9a-f]{4})$", printed, re.MULTILINE)[-2:])


class Consortium:
    """The coordinator and three hospitals, and the mail and telephone between them."""

    def __init__(self, root: Path) -> None:
        archives = tiny_study.build_archives(root / "archives", sites=len(SITES))
        public, control, metrics = free_ports(3)
        address = {"fedcad.example.org:8443": f"127.0.0.1:{public}"}
        self.ports = {9092: control, 9464: metrics}
        ports = {f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in self.ports.items()}
        self.address = ("127.0.0.1", public)
        self.coordinator = make_person(root, "coordinator", address | ports)
        copy_sources(self.coordinator.home / "fedcad-source")
        self.hospitals = {
            name: make_person(
                root,
                name,
                {
                    "/mnt/archive/chest": str(archive.folder / "dicom"),
                    "/mnt/archive/labels.csv": str(archive.folder / "labels.csv"),
                    "--name north": f"--name {name}",
                    "enrolment-north": f"enrolment-{name}",
                },
            )
            for name, archive in zip(SITES, archives.values(), strict=True)
        }
        self._heard: dict[str, str] = {}

    @property
    def everybody(self) -> list[Person]:
        return [self.coordinator, *self.hospitals.values()]

    def mail_wheel(self) -> None:
        for hospital in self.hospitals.values():
            shutil.copy(next(self.coordinator.home.glob("*.whl")), hospital.home)

    def mail_request(self, name: str, printed: str) -> None:
        self._heard[name] = fingerprint_in(printed)
        shutil.copy(
            self.hospitals[name].home / "node/request.json", self.coordinator.home / f"request-{name}.json"
        )

    def enrol(self, section: str, name: str, only: int | None = None) -> None:
        """The coordinator takes a request; its file goes back, and its fingerprint is read out."""
        before = dict(self.coordinator.replacements)
        for_site = {"-north": f"-{name}", "SITE FINGERPRINT AS READ OUT": self._heard[name]}
        self.coordinator.replacements = before | for_site
        printed = self.coordinator.follow(section, only=only)
        self.coordinator.replacements = before
        self.mail_enrolment(name)
        if only is None:
            said = {"CONSORTIUM FINGERPRINT AS READ OUT": fingerprint_in(printed)}
            self.hospitals[name].replacements = {**self.hospitals[name].replacements, **said}

    def mail_enrolment(self, name: str) -> None:
        shutil.copy(self.coordinator.home / f"enrolment-{name}.json", self.hospitals[name].home)

    def use_free_ports(self) -> None:
        """What the document says to do where others use the ports."""
        path = self.coordinator.home / "consortium/consortium.yaml"
        text = path.read_text()
        for old, new in self.ports.items():
            text = text.replace(str(old), str(new))
        path.write_text(text)

    def until_listening(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(self.address) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError((self.coordinator.home / "started.log").read_text()[-3000:])
