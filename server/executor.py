"""The coordinator's executor: ``python -m fedcad.server.executor FOLDER`` starts a process for each run."""

import sys
from pathlib import Path

from fedcad.server.consortium import Consortium
from fedcad.server.superlink import LOOPBACK
from fedcad.shared.secret_files import read_secret
from fedcad.shared.supervision import die_with_supervisor


def main(folder: Path) -> None:
    """Start the ServerApp of every run of a consortium, until SIGTERM."""
    from fedcad.shared.flower_internals.tasks import run_executor

    die_with_supervisor()
    consortium = Consortium.load(folder)
    secret = read_secret(consortium.executor_secret, "the executor's secret")
    run_executor(f"{LOOPBACK}:{consortium.config.control_port}", consortium.ca_certificate, secret)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
