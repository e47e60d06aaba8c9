"""A study's folder at the coordinator, ``CONSORTIUM/studies/NAME/vNNNN``, without loading any arithmetic.

The supervisor, status, metrics and alerts look at these folders every second: nothing here imports torch.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from fedcad.server.live import NAME as LIVE
from fedcad.server.live import Live, read_live
from fedcad.server.plain_files import plain_errors, read_object
from fedcad.server.printable import printable
from fedcad.server.settings import RunSettings
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.errors import CheckpointError

_VERSION = re.compile(r"v(\d{4,})")
_CHECKPOINT = re.compile(r"round-(\d{4,})(-final)?")
_HOLD_TRIES = 50
_HOLD_PAUSE_S = 0.02


class Wanted(StrEnum):
    """What the coordinator's operator wants of a study."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Wish:
    """What is wanted, since when (ISO 8601, UTC), and why."""

    wanted: Wanted
    since: str = ""
    reason: str = ""

    def since_when(self) -> float:
        """Return since when in seconds since 1970, or 0 where the text is no time."""
        return seconds_of(self.since) or 0.0


@dataclass(frozen=True)
class Seal:
    """What a study's seal says: name, version, hash of the contract, from when until when (ISO 8601)."""

    name: str
    version: int
    study_hash: str
    issued: str
    expires: str

    def expires_at(self) -> float | None:
        """Return the expiry in seconds since 1970, or None where the text is no time."""
        return seconds_of(self.expires)


@dataclass(frozen=True)
class Holder:
    """The process that runs a study: its id, and when it started (seconds since 1970)."""

    pid: int
    started: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended; as :func:`fedcad.server.outcome.write_outcome` wrote it."""

    status: str
    reason: str
    model_sha256: str
    selected_version: int
    rounds_closed: int


@dataclass(frozen=True)
class CheckpointFacts:
    """The newest checkpoint without its tensors.

    Attributes:
        name: File name without its ending.
        round: Last closed round.
        selected_version: Version whose parameters are selected.
        last_counted: For each site, the last round in which its update counted.
        events: Number of lines of the log that belong to closed rounds.
        is_finished: Whether the last version has been validated.
    """

    name: str
    round: int
    selected_version: int
    last_counted: dict[str, int]
    events: int
    is_finished: bool


@dataclass(frozen=True)
class ContractFacts:
    """What status needs to know of a contract: rounds, quorum, deadline in seconds, hash."""

    name: str
    rounds: int
    quorum: int
    deadline_s: float
    study_hash: str


class StudyFolder:
    """One version of one study.

    Every method that reads raises :class:`~fedcad.shared.errors.CheckpointError`, in plain words, where a
    file is damaged, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        """Use a folder; nothing is read yet."""
        self.path = path

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.path.parent.name

    @property
    def version(self) -> int:
        """Version of the study; 0 where the folder is not named as one."""
        match = _VERSION.fullmatch(self.path.name)
        return int(match[1]) if match else 0

    @property
    def title(self) -> str:
        """Name and version as people are shown them: ``chest-xray v2``."""
        return f"{self.name} v{self.version}"

    def want(self, wanted: Wanted, reason: str = "") -> None:
        """Write what is wanted of the study, atomically."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        plain = {"wanted": wanted.value, "since": since, "reason": reason}
        write_bytes(self.path / "wanted.json", json.dumps(plain, indent=1).encode())

    def wish(self) -> Wish | None:
        """Return what is wanted of the study, or None where nobody has said."""
        path = self.path / "wanted.json"
        with plain_errors(path, "pause, resume or stop the study to write it anew"):
            plain = read_object(path)
            if plain is None:
                return None
            return Wish(
                Wanted(plain["wanted"]), str(plain.get("since", "")), printable(str(plain.get("reason", "")))
            )

    def needs_a_run(self) -> bool:
        """Whether the study is wanted running, is not complete, and no process runs it."""
        wish = self.wish()
        if wish is None or wish.wanted is not Wanted.RUNNING or self.is_running():
            return False
        outcome = self.outcome()
        return outcome is None or outcome.status != "completed"

    @property
    def lock_file(self) -> Path:
        """The file on which the run's process holds its lock."""
        return self.path / "lock"

    def is_running(self) -> bool:
        """Whether a living process runs the study."""
        return is_locked(self.lock_file)

    def holder(self) -> Holder | None:
        """Return the process that runs the study; None where there is none, or it has just begun."""
        if not self.is_running():
            return None
        with plain_errors(self.lock_file, "stop the coordinator and start it again"):
            plain = read_object(self.lock_file, empty_is_none=True)
            return None if plain is None else Holder(int(plain["pid"]), float(plain["started"]))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the process that runs the study, until the block ends or the process does, however it ends.

        Raises:
            CheckpointError: Another process runs it.
        """
        with self.lock_file.open("a+b") as stream:
            _lock(stream, self.lock_file)
            stream.truncate(0)
            stream.write(json.dumps({"pid": os.getpid(), "started": time.time()}).encode())
            stream.flush()
            yield

    def settings(self) -> RunSettings:
        """Return the settings of the run."""
        return RunSettings.load(self.path)

    def seal(self) -> Seal | None:
        """Return what the seal says (its signature is not checked here), or None where there is none."""
        path = self.path / "seal.json"
        with plain_errors(path, "submit the study again, or restore the file from a backup"):
            signed = read_object(path)
            if signed is None:
                return None
            plain = signed["seal"]
            texts = {key: str(plain[key]) for key in ("study_hash", "issued", "expires")}
            return Seal(name=str(plain["study"]), version=int(plain["version"]), **texts)

    def outcome(self) -> Outcome | None:
        """Return how the run ended, or None where it has not."""
        path = self.path / "outcome.json"
        with plain_errors(path, "resume the study to write it anew"):
            plain = read_object(path)
            if plain is None:
                return None
            return Outcome(
                status=str(plain["status"]),
                reason=printable(str(plain["reason"])),
                model_sha256=str(plain["model_sha256"]),
                selected_version=int(plain["selected_version"]),
                rounds_closed=int(plain["rounds_closed"]),
            )

    def live(self) -> Live | None:
        """Return what the study last said about itself, or None where it never did."""
        return read_live(self.path / LIVE)

    def contract(self) -> ContractFacts:
        """Return a few facts of the contract; its hash is not checked here."""
        path = self.path / self._contract_folder() / "contract.json"
        with plain_errors(path, "restore the folder from a backup"):
            plain = read_object(path)
            if plain is None:
                raise FileNotFoundError("there is no such file")
            study, participation = plain["study"], plain["study"]["participation"]
            return ContractFacts(
                name=str(study["name"]),
                rounds=int(study["rounds"]),
                quorum=int(participation["quorum"]),
                deadline_s=float(participation["deadline_s"]),
                study_hash=str(plain["study_hash"]),
            )

    def checkpoint(self) -> CheckpointFacts | None:
        """Return facts of the newest checkpoint, or None before the first; tensors are not checked."""
        path = self._newest_checkpoint()
        while path is not None:
            with plain_errors(path, "remove it to go on from the checkpoint before"):
                plain = read_object(path)
                if plain is not None:
                    return _checkpoint_facts(path.stem, plain)
            # A running study removed it after writing newer ones.
            path = self._newest_checkpoint()
        return None

    def _newest_checkpoint(self) -> Path | None:
        folder = self.path / "checkpoints"
        found = {path: _CHECKPOINT.fullmatch(path.stem) for path in folder.glob("round-*.json")}
        return max(
            (path for path, match in found.items() if match),
            key=lambda path: (int(path.stem.split("-")[1]), path.stem),
            default=None,
        )

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the log, in order; a torn last line is not one yet."""
        path = self.path / "rounds.jsonl"
        with plain_errors(path, "restore it from a backup; the checkpoints are not affected"):
            if not path.exists():
                return []
            with path.open("rb") as stream:
                events = [json.loads(line) for line in stream if line.endswith(b"\n")]
            if not all(_is_event(event) for event in events):
                raise ValueError("a line is not an event")
            return events

    def _contract_folder(self) -> str:
        return self.settings().contract if (self.path / "run.json").exists() else "contract"


def _checkpoint_facts(name: str, plain: dict[str, Any]) -> CheckpointFacts:
    return CheckpointFacts(
        name=name,
        round=int(plain["round"]),
        selected_version=int(plain["selection"]["version"]),
        last_counted={str(site): int(number) for site, number in plain["last_counted"].items()},
        events=int(plain["events"]),
        is_finished=bool(plain["is_finished"]),
    )


def seconds_of(text: str) -> float | None:
    """Return a time in ISO 8601, UTC where it names no zone, as seconds since 1970; None for other text."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _is_event(event: Any) -> bool:
    """Whether a line of the log has what its readers use, of the types that they use it as."""
    if not isinstance(event, dict) or "event" not in event:
        return False
    if event["event"] == "round":
        parts = event.get("participation")
        is_list = isinstance(parts, list) and all(isinstance(part, dict) for part in parts)
        return is_list and isinstance(event.get("round"), int)
    if event["event"] == "validation":
        sites, union = event.get("sites"), event.get("union")
        is_table = isinstance(sites, dict) and all(isinstance(each, dict) for each in sites.values())
        return is_table and isinstance(union, dict) and isinstance(event.get("version"), int)
    return True


def all_studies(studies: Path) -> list[StudyFolder]:
    """Return every version of every study below ``CONSORTIUM/studies``, by name, oldest version first."""
    found = [StudyFolder(path) for path in studies.glob("*/v*") if path.is_dir()]
    named = [folder for folder in found if folder.version]
    return sorted(named, key=lambda folder: (folder.name, folder.version))


def newest_studies(studies: Path) -> list[StudyFolder]:
    """Return the newest version of every study, by name."""
    return list({folder.name: folder for folder in all_studies(studies)}.values())


def newest_of(studies: Path, name: str) -> StudyFolder:
    """Return the newest version of a study.

    Raises:
        CheckpointError: There is no study of that name.
    """
    newest = {folder.name: folder for folder in newest_studies(studies)}
    if name not in newest:
        known = f"the studies are {', '.join(newest)}" if newest else "none has been submitted"
        raise CheckpointError(f"there is no study {name!r} in {studies}; {known}")
    return newest[name]


def is_locked(path: Path) -> bool:
    """Whether a living process holds an exclusive lock (flock) on a file; False where there is no file.

    Raises:
        CheckpointError: The file cannot be opened.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; use the coordinator's account") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _lock(stream: IO[bytes], path: Path) -> None:
    """Take the lock; those who only look hold it for an instant, so try for a second."""
    for _ in range(_HOLD_TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_HOLD_PAUSE_S)
    raise CheckpointError(f"{path}: another process runs this study; stop that one first")
