import inspect
import os
import sys
from pathlib import Path

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supercore.superexec.executor.types import LaunchResultStatus

from fedcad.shared.flower_internals.tasks import TaskLauncher

RECORD = """#!{python}
import os, sys
from pathlib import Path
token = sys.argv[sys.argv.index("--token-file") + 1]
Path(r"{out}").write_text(repr((sys.argv[1:], os.path.isfile(token), Path(token).read_text())))
"""


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A program of Flower's name that records how it was started."""
    program = tmp_path / "flwr-serverapp"
    out = tmp_path / "out"
    program.write_text(RECORD.format(python=sys.executable, out=out))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return out


def spec(task_type: TaskType) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=task_type,
        runtime_api_address="127.0.0.1:9092",
        token="5ec7e7" * 8,
        insecure=False,
        root_certificates_path="/consortium/ca.crt",
        runtime_dependency_install=True,
        parent_pid=None,
        suppress_output=True,
        task_id=7,
    )


def test_the_token_is_handed_over_without_being_in_the_arguments(recorded):
    launcher = TaskLauncher(TaskType.SERVER_APP)
    assert launcher.launch(spec(TaskType.SERVER_APP)).status is LaunchResultStatus.ACCEPTED
    (process,) = launcher._processes
    assert process.wait(30) == 0
    arguments, is_file, token = eval(recorded.read_text(), {"__builtins__": {}})  # noqa: S307 - our own repr
    assert token == "5ec7e7" * 8
    assert is_file  # flwr refuses a token file that is no regular file
    assert not any("5ec7e7" in argument for argument in arguments)
    assert arguments[-2:] == ["--root-certificates", "/consortium/ca.crt"]
    assert "--allow-runtime-dependency-installation" not in arguments
    launcher.reconcile()
    assert launcher._processes == []


@pytest.mark.parametrize("other", [kind for kind in TaskType if kind is not TaskType.SERVER_APP])
def test_tasks_of_other_types_are_neither_claimed_nor_started(recorded, other):
    launcher = TaskLauncher(TaskType.SERVER_APP)
    assert launcher.get_eligible_capacity(set(TaskType)) == ({TaskType.SERVER_APP}, set())
    assert launcher.launch(spec(other)).status is LaunchResultStatus.FAILED
    assert not recorded.exists()


def test_the_names_behind_the_fence_are_as_expected():
    wanted = {
        "runtime_api_address",
        "insecure",
        "root_certificates_path",
        "superexec_auth_secret",
        "runtime_dependency_install",
    }
    assert wanted <= set(inspect.signature(superexec.run_superexec).parameters)
    assert "get_executor(" in inspect.getsource(superexec.run_superexec)
    used = {"get_eligible_capacity", "reconcile", "close", "launch"}
    called = {name for name in dir(TaskLauncher) if f".{name}(" in inspect.getsource(superexec)}
    assert called | {"launch"} == used


def test_the_descriptors_of_this_process_are_as_many_as_before(recorded):
    before = len(list(Path("/proc/self/fd").iterdir()))
    process = TaskLauncher(TaskType.SERVER_APP).start("127.0.0.1:1", "ab", ["--insecure"])
    process.wait(30)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
