"""A study's folder: real runs are read without torch, locks die with their process, damage is a sentence."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_factory import DirectChannel, make_contract, make_run, make_sites

from fedcad.server.outcome import write_outcome
from fedcad.server.settings import RunSettings
from fedcad.server.study_folder import (
    StudyFolder,
    Wanted,
    all_studies,
    is_locked,
    newest_of,
    newest_studies,
)
from fedcad.shared.errors import CheckpointError

HOLD = """
import sys, pathlib
from fedcad.server.study_folder import StudyFolder
with StudyFolder(pathlib.Path(sys.argv[1])).hold():
    print("held", flush=True)
    sys.stdin.read()
"""


def make_folder(root: Path, name: str = "small", version: int = 1) -> StudyFolder:
    path = root / name / f"v{version:04d}"
    path.mkdir(parents=True)
    return StudyFolder(path)


def finished(root: Path) -> StudyFolder:
    """Return the folder of a real, finished run."""
    folder, contract = make_folder(root), make_contract()
    contract.save(folder.path / "contract")
    RunSettings(contract="contract", sites=("a", "b", "c")).save(folder.path)
    checkpoint = make_run(folder.path, contract, DirectChannel(make_sites(contract))).run()
    write_outcome(folder.path, checkpoint, contract.layout)
    return folder


def test_a_real_run_is_read(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    outcome, checkpoint, contract = folder.outcome(), folder.checkpoint(), folder.contract()
    assert outcome is not None
    assert checkpoint is not None
    assert (outcome.status, outcome.rounds_closed) == ("completed", 3)
    assert (checkpoint.round, checkpoint.is_finished, checkpoint.name) == (3, True, "round-0003-final")
    assert checkpoint.last_counted == {"a": 3, "b": 3, "c": 3}
    assert checkpoint.selected_version == outcome.selected_version
    assert (contract.name, contract.rounds, contract.study_hash) == ("small", 3, make_contract().study_hash)
    assert [event["event"] for event in folder.events()][-1] == "last-validation"
    assert folder.settings().sites == ("a", "b", "c")


def test_an_empty_folder_has_nothing_and_says_so(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    read = (folder.wish, folder.outcome, folder.checkpoint, folder.live, folder.seal, folder.holder)
    assert [what() for what in read] == [None] * len(read)
    assert folder.events() == []
    assert not folder.is_running()
    with pytest.raises(CheckpointError, match="no such file"):
        folder.contract()


def test_reading_needs_no_torch() -> None:
    code = "import sys, fedcad.server.study_folder, fedcad.server.study_state, fedcad.server.stall\n"
    code += "sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("wanted", list(Wanted))
def test_wishes(tmp_path: Path, wanted: Wanted) -> None:
    folder = make_folder(tmp_path)
    folder.want(wanted, "a reason")
    wish = folder.wish()
    assert wish is not None
    assert (wish.wanted, wish.reason, wish.since[-6:]) == (wanted, "a reason", "+00:00")


def test_a_run_is_needed_only_while_wanted_not_held_and_not_complete(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    assert not folder.needs_a_run()
    folder.want(Wanted.RUNNING)
    assert folder.needs_a_run()
    with folder.hold():
        assert not folder.needs_a_run()
    folder.want(Wanted.PAUSED)
    assert not folder.needs_a_run()
    done = finished(tmp_path / "other")
    done.want(Wanted.RUNNING)
    assert not done.needs_a_run()


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        holder = folder.holder()
        assert holder is not None
        assert holder.pid == process.pid
        with pytest.raises(CheckpointError, match="another process"), folder.hold():
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not folder.is_running()
    assert folder.holder() is None
    with folder.hold():
        holder = folder.holder()
        assert holder is not None
        assert holder.pid == os.getpid()
    assert not folder.is_running()


def test_looking_never_keeps_a_run_from_its_lock(tmp_path: Path) -> None:
    folder, end = make_folder(tmp_path), threading.Event()
    folder.lock_file.touch()

    def look() -> None:
        while not end.is_set():
            is_locked(folder.lock_file)

    looking = [threading.Thread(target=look) for _ in range(3)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(20):
            with folder.hold():
                pass
    finally:
        end.set()
        for thread in looking:
            thread.join()


def test_the_seal(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    seal = {"study": "small", "version": 2, "study_hash": "a" * 64, "issued": "2026-01-01T00:00:00+00:00"}
    seal["expires"] = "1970-01-01T01:00:00+00:00"
    (folder.path / "seal.json").write_text(json.dumps({"seal": seal, "signature": "0" * 128}))
    found = folder.seal()
    assert found is not None
    assert (found.name, found.version, found.study_hash, found.expires_at()) == ("small", 2, "a" * 64, 3600.0)


READS: dict[str, Callable[[StudyFolder], Any]] = {
    "wanted.json": StudyFolder.wish,
    "outcome.json": StudyFolder.outcome,
    "seal.json": StudyFolder.seal,
    "live.json": StudyFolder.live,
    "rounds.jsonl": StudyFolder.events,
    "checkpoints/round-0001.json": StudyFolder.checkpoint,
    "contract/contract.json": StudyFolder.contract,
    "run.json": StudyFolder.settings,
}


@pytest.mark.parametrize("content", [b"{\n", b"[]\n", b"{}\n", b"\xff\n", b"null\n", b"[" * 5000 + b"\n"])
@pytest.mark.parametrize("file", READS)
def test_damage_is_one_plain_sentence(tmp_path: Path, file: str, content: bytes) -> None:
    folder = make_folder(tmp_path)
    (folder.path / file).parent.mkdir(exist_ok=True)
    (folder.path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="read"):
        READS[file](folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_another_account_is_a_plain_sentence(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.want(Wanted.RUNNING)
    (folder.path / "wanted.json").chmod(0)
    with pytest.raises(CheckpointError, match="Permission denied"):
        folder.wish()


@pytest.mark.parametrize(
    "event",
    [
        {"event": "round"},
        {"event": "round", "round": "1", "participation": []},
        {"event": "round", "round": 1, "participation": ["a"]},
        {"event": "round", "round": 1, "participation": 5},
        {"event": "validation", "version": 1, "sites": {}},
        {"event": "validation", "version": 1, "sites": {"a": 1}, "union": {}},
        {"event": "validation", "version": None, "sites": {}, "union": {}},
    ],
)
def test_a_strange_event_is_damage(tmp_path: Path, event: dict[str, Any]) -> None:
    folder = make_folder(tmp_path)
    (folder.path / "rounds.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(CheckpointError, match="not an event"):
        folder.events()


def test_a_torn_line_is_no_event_yet(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder.path / "rounds.jsonl").write_bytes(b'{"event": "stopped"}\n{"event": "ro')
    assert folder.events() == [{"event": "stopped"}]


def test_studies_are_found_by_name_and_version(tmp_path: Path) -> None:
    for name, version in (("b", 2), ("b", 10), ("a", 1)):
        make_folder(tmp_path, name, version)
    (tmp_path / "a" / ".v0002.unfinished").mkdir()
    (tmp_path / "a" / "v2").mkdir()
    (tmp_path / "file").write_text("")
    assert [folder.title for folder in all_studies(tmp_path)] == ["a v1", "b v2", "b v10"]
    assert [folder.title for folder in newest_studies(tmp_path)] == ["a v1", "b v10"]
    assert newest_of(tmp_path, "b").version == 10
    with pytest.raises(CheckpointError, match="the studies are a, b"):
        newest_of(tmp_path, "../a")
    with pytest.raises(CheckpointError, match="none has been submitted"):
        newest_of(tmp_path / "nowhere", "a")
