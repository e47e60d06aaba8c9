"""A process that ends in every way, with what it found until then."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedcad.client.doctor.isolated import Outcome, run

WORK = """
import os, signal, sys, time
from fedcad.client.doctor.isolated import serve
from fedcad.shared.errors import DataError

def work(request, reporter):
    print("a library prints Mustermann^Erika")
    os.system("echo and so does its child")
    sys.stderr.write("and warns")
    reporter.tell("half way")
    reporter.report("sum", sum(request["numbers"]))
    how = request["how"]
    if how == "refuse":
        raise DataError("it is wrong; do this")
    if how == "raise":
        raise KeyError("Mustermann^Erika")
    if how == "hang":
        time.sleep(60)
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
    reporter.report("end", None)

serve(work)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "doctor_probe.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "doctor_probe"


def outcome_of(module, how):
    told = []
    outcome = run(module, {"numbers": [1, 2, 4], "how": how}, tell=told.append, limit_s=60.0)
    assert told == ["half way"]
    assert outcome.found["sum"] == 7
    return outcome


def test_work_that_returns(module):
    assert outcome_of(module, "") == Outcome({"sum": 7, "end": None})


@pytest.mark.parametrize(
    ("how", "words"),
    [("SIGKILL", "memory"), ("SIGSEGV", "SIGSEGV"), ("SIGABRT", "SIGABRT"), ("raise", "error of FedCAD")],
)
def test_work_that_dies_leaves_what_it_found(module, how, words):
    outcome = outcome_of(module, how)
    assert words in outcome.death
    assert "Mustermann" not in str(outcome)
    assert "end" not in outcome.found


def test_work_that_refuses(module):
    assert outcome_of(module, "refuse") == Outcome({"sum": 7}, refused="it is wrong; do this")


def test_work_that_hangs_is_ended(module):
    outcome = run(module, {"numbers": [], "how": "hang"}, tell=lambda _: None, limit_s=2.0)
    assert outcome.death == "did not end within 2 s"


def test_no_process_is_left_when_the_caller_is_interrupted(module):
    def interrupt(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(module, {"numbers": [], "how": "hang"}, tell=interrupt, limit_s=60.0)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [command for command in commands if b"doctor_probe" in command]


def test_module_that_is_absent():
    outcome = run("no_such_module_here", {}, tell=print, limit_s=30.0)
    assert outcome == Outcome({}, death="ended with an error of FedCAD or of a library")


def test_output_of_a_library_does_not_mix_with_reports(module):
    result = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps({"numbers": [1], "how": ""}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env=os.environ,
    )
    assert json.loads(result.stdout.splitlines()[0]) == {"tell": "half way"}
    assert result.stderr == ""
