"""The commands as a person gives them: what is printed, exit codes, Ctrl-C, pipes."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from study_folders import Wanted, add_study, make_consortium, run_rounds

from fedcad.server.consortium import Consortium
from fedcad.shared.cli import run
from fedcad.shared.process_log import ProcessLog

FEDCAD = [sys.executable, "-m", "fedcad.shared.cli", "server"]


@pytest.fixture
def home(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def test_status_in_a_pipe_has_its_news_in_the_first_line(
    home: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    run_rounds(
        add_study(home, "a-rather-long-name-of-a-study-of-the-chest", sites=("a", "b", "c")), stop_in=2
    )
    assert run(["server", "status", str(home.folder)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("after round 1 of 3; the coordinator is not running")


def test_status_as_json(home: Consortium, capsys: pytest.CaptureFixture[str]) -> None:
    run_rounds(add_study(home))
    assert run(["server", "status", str(home.folder), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    (study,) = plain["studies"]
    assert (study["state"], study["round"], study["sites"][0]["rounds"]["counted"]) == ("finished", 3, 3)
    assert plain["coordinator"]["is_running"] is False


def test_status_loads_no_torch(home: Consortium) -> None:
    add_study(home)
    code = f"import sys; from fedcad.shared.cli import run; run(['server', 'status', {str(home.folder)!r}])\n"
    code += "sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_folder_that_is_none_is_refused(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["server", command, str(tmp_path)]) == 2
    assert "no consortium's folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["watch", "result"])
def test_a_study_that_is_none_is_refused(
    home: Consortium, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_study(home)
    assert run(["server", command, str(home.folder), "smal"]) == 2
    assert "the studies are small" in capsys.readouterr().err


def test_watching_an_ended_study_ends_with_its_exit_code(
    home: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = add_study(home)
    folder.want(Wanted.STOPPED, "enough")
    assert run(["server", "watch", str(home.folder), "small"]) == 1
    assert "stopped, no round closed yet; enough" in capsys.readouterr().out
    folder.want(Wanted.RUNNING)
    run_rounds(folder)
    assert run(["server", "watch", str(home.folder), "small"]) == 0
    assert "finished, 3 of 3 rounds" in capsys.readouterr().out


def test_watching_prints_changes_only_and_ends_with_the_study(
    home: Consortium, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_study(home)
    folder.want(Wanted.PAUSED, "holiday")
    looks = iter(
        [lambda: None, lambda: folder.want(Wanted.RUNNING), lambda: None, lambda: run_rounds(folder)]
    )
    monkeypatch.setattr("fedcad.server.commands.studies_view.time.sleep", lambda _: next(looks)())
    assert run(["server", "watch", str(home.folder), "small"]) == 0
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "small v1: paused, no round closed yet; holiday",
        "small v1: interrupted, no round closed yet; the coordinator is not running",
        "small v1: finished, 3 of 3 rounds",
    ]


def test_ctrl_c_in_a_terminal_leaves_it_clean(home: Consortium) -> None:
    add_study(home).want(Wanted.PAUSED, "holiday")
    leader, follower = pty.openpty()
    command = [*FEDCAD, "watch", str(home.folder), "small"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    printed, is_shown = bytearray(), threading.Event()

    def read() -> None:
        while True:
            try:
                found = os.read(leader, 4096)
            except OSError:  # the other end is closed
                return
            printed.extend(found)
            if b"holiday" in printed:
                is_shown.set()

    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        reader = threading.Thread(target=read)
        reader.start()
        assert is_shown.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        reader.join()
    os.close(leader)
    text = printed.decode()
    assert "Traceback" not in text
    assert "no longer watching; the study is not affected" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again


def test_logs(home: Consortium, capsys: pytest.CaptureFixture[str]) -> None:
    ProcessLog(home.logs, "superlink").write("site a [connected]")
    ProcessLog(home.logs, "superexec").write("a\x1b[2Jb", "error")
    assert run(["server", "logs", str(home.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("superlink  site a [connected]")
    assert lines[1].endswith("superexec  ERROR a [2Jb")
    assert run(["server", "logs", str(home.folder), "--site", "a", "--process", "superlink", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "site a [connected]"
    assert run(["server", "logs", str(home.folder), "--site", "nobody"]) == 0
    assert capsys.readouterr().err == "no such lines\n"
    assert run(["server", "logs", str(home.folder), "--process", "x"]) == 2


def test_following_the_logs_shows_what_is_added_until_ctrl_c(
    home: Consortium, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ProcessLog(home.logs, "superlink")
    log.write("before")

    def interrupt() -> None:
        raise KeyboardInterrupt

    steps = iter([lambda: log.write("after"), interrupt])
    monkeypatch.setattr("fedcad.server.commands.studies_view.time.sleep", lambda _: next(steps)())
    assert run(["server", "logs", str(home.folder), "--follow"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["before", "after"]


def test_result_is_named_after_study_and_round(
    home: Consortium, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = add_study(home)
    assert run(["server", "result", str(home.folder), "small"]) == 2
    assert "no round has been closed yet" in capsys.readouterr().err
    run_rounds(folder, stop_in=3)
    assert run(["server", "result", str(home.folder), "small"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("small v1 after 2 of 3 rounds (NOT FINISHED")
    assert (tmp_path / "small-v1-round-2" / "model.safetensors").exists()
    assert run(["server", "result", str(home.folder), "small"]) == 2
    run_rounds(folder)
    assert run(["server", "result", str(home.folder), "small", "--out", str(tmp_path / "end")]) == 0
    assert (tmp_path / "end" / "report.html").exists()
