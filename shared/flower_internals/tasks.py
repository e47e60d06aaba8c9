"""Starting flwr's task processes: one for every run at the coordinator, one for every message at a site."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

from fedcad.shared.flower_internals.fence import replace, require_flower


def run_executor(address: str, root_certificates: Path, secret: bytes) -> None:
    """Start the ServerApp of every run of the SuperLink at an address, until a signal ends this process."""
    from flwr.supercore.superexec import run_superexec as superexec

    require_flower()
    launcher = TaskLauncher(TaskType.SERVER_APP)
    replace(superexec, "get_executor", lambda *_positional, **_named: launcher)
    superexec.run_superexec(
        runtime_api_address=address,
        insecure=False,
        root_certificates_path=str(root_certificates),
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
    )


class TaskLauncher:
    """Starts flwr's task processes of one type; takes the place of flwr's ``SubprocessExecutor``.

    flwr's own passes the task's token as an argument, where everyone on the machine can read it, and throws
    away what a ServerApp prints. Here the token is handed over in memory, and the output is inherited.
    """

    def __init__(self, task_type: TaskType) -> None:
        """Accept tasks of one type; others are never claimed."""
        self._task_type = task_type
        self._processes: list[subprocess.Popen[bytes]] = []

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: Any
    ) -> tuple[set[TaskType], set[str]]:
        """Return the type of tasks that may be claimed."""
        return supported_task_types & {self._task_type}, set()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a claimed task."""
        if spec.task_type is not self._task_type:
            return LaunchResult.failed(f"tasks of type {spec.task_type} are not run here")
        secured = (
            ["--insecure"] if spec.insecure else ["--root-certificates", str(spec.root_certificates_path)]
        )
        self.start(spec.runtime_api_address, spec.token, secured)
        return LaunchResult.accepted()

    def start(self, address: str, token: str, secured: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a task's process.

        Args:
            address: Runtime API, ``host:port``.
            token: The task's token.
            secured: ``--insecure`` (loopback inside one site) or the root certificates.
        """
        descriptor = os.memfd_create("token", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, token.encode())
            os.lseek(descriptor, 0, os.SEEK_SET)
            process = subprocess.Popen(
                [
                    *(TASK_TYPE_TO_COMMAND[self._task_type], "--runtime-api-address", address),
                    *("--token-file", f"/dev/fd/{descriptor}", "--parent-pid", str(os.getpid())),
                    *secured,
                ],
                pass_fds=(descriptor,),
            )
        finally:
            os.close(descriptor)
        self._processes.append(process)
        return process

    def reconcile(self) -> None:
        """Let ended processes go."""
        self._processes = [process for process in self._processes if process.poll() is None]

    def close(self) -> None:
        """Ask the processes to stop; flwr calls this when the executor stops."""
        for process in self._processes:
            process.terminate()
