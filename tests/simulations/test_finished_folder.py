import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event as EventType
from pathlib import Path
from typing import Any

import pytest

from fedcad.simulations.finished_folder import finished_folder

CONTEXT = multiprocessing.get_context("fork")


class Writer:
    """Writes two files and counts how often it was asked to."""

    def __init__(self, **facts: Any) -> None:
        self.calls = 0
        self.facts = facts

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text("hello")
        (folder / "b.txt").write_text("world")
        return {"count": 2, **self.facts}


def test_everything_is_on_the_disk_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    folder, fsync = tmp_path / "key", os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, folder.exists()))

    monkeypatch.setattr(os, "fsync", watched)
    finished_folder(folder, Writer())
    before = sorted(name for name, is_named in synced if not is_named)
    assert before[1:] == ["a.txt", "b.txt", "complete.json", "deep"]
    assert before[0].startswith(".writing-"), "the folder itself, under its temporary name"
    assert [name for name, is_named in synced if is_named] == [tmp_path.name], "the new name"


def _left_over(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_written_once_and_reused(tmp_path: Path) -> None:
    writer = Writer()
    folder = tmp_path / "root" / "key"
    assert finished_folder(folder, writer) == {"count": 2}
    assert finished_folder(folder, writer) == {"count": 2}
    assert writer.calls == 1
    assert (folder / "deep" / "a.txt").read_text() == "hello"
    assert _left_over(folder.parent) == []


@pytest.mark.parametrize("damage", ["remove", "cut", "manifest", "no manifest"])
def test_a_damaged_folder_is_written_anew(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "key"
    finished_folder(folder, Writer())
    if damage == "remove":
        (folder / "b.txt").unlink()
    elif damage == "cut":
        (folder / "deep" / "a.txt").write_text("")
    elif damage == "manifest":
        (folder / "complete.json").write_text("[1")
    else:
        (folder / "complete.json").unlink()
    writer = Writer()
    assert finished_folder(folder, writer) == {"count": 2}
    assert writer.calls == 1
    assert (folder / "deep" / "a.txt").read_text() == "hello"
    assert (folder / "b.txt").read_text() == "world"
    assert _left_over(tmp_path) == []


def test_files_added_later_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    finished_folder(folder, Writer())
    (folder / "state").mkdir()
    (folder / "state" / "index.sqlite").write_text("x")
    writer = Writer()
    finished_folder(folder, writer)
    assert writer.calls == 0


def test_facts_that_ask_for_it_have_the_folder_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    finished_folder(folder, Writer(retry=True))
    writer = Writer()
    assert finished_folder(folder, writer) == {"count": 2}
    assert writer.calls == 1
    finished_folder(folder, writer)
    assert writer.calls == 1


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "a.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        finished_folder(tmp_path / "key", fail)
    assert list(tmp_path.iterdir()) == []


def _hang(folder: Path, started: EventType) -> None:
    def write(temporary: Path) -> dict[str, Any]:
        (temporary / "a.txt").write_text("half")
        started.set()
        signal.pause()
        return {}

    finished_folder(folder, write)


def test_what_a_killed_process_left_is_removed_but_never_a_living_one_s(tmp_path: Path) -> None:
    started = CONTEXT.Event()
    process = CONTEXT.Process(target=_hang, args=(tmp_path / "other", started))
    process.start()
    assert started.wait(30)
    finished_folder(tmp_path / "key", Writer())
    assert len(_left_over(tmp_path)) == 1, "the living process still needs its folder"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "other").exists()
    finished_folder(tmp_path / "key", Writer())
    assert _left_over(tmp_path) == []


def _write_together(folder: Path, barrier: Any) -> None:
    def write(temporary: Path) -> dict[str, Any]:
        barrier.wait(30)
        return Writer()(temporary)

    facts = finished_folder(folder, write)
    os._exit(0 if facts == {"count": 2} and (folder / "b.txt").read_text() == "world" else 1)


def test_two_processes_may_write_the_same(tmp_path: Path) -> None:
    barrier = CONTEXT.Barrier(2)
    processes = [CONTEXT.Process(target=_write_together, args=(tmp_path / "key", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]
