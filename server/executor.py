"""The coordinator's executor: ``python -m fedcad.server.executor FOLDER`` starts a process for each run."""

import os
import sys
from pathlib import Path

from fedcad.server.consortium import Consortium
from fedcad.server.superlink import LOOPBACK
from fedcad.shared.secret_files import read_secret
from fedcad.shared.supervision import die_with_supervisor

_MAPPED_BYTES = 4 * 2**20
"""Memory of this size and more a ServerApp gives back to the system as soon as it is free: pieces of updates
have 5 MB each, and the C library would keep them in its heaps."""


def main(folder: Path) -> None:
    """Start the ServerApp of every run of a consortium, until SIGTERM."""
    from fedcad.shared.flower_internals.tasks import run_executor

    die_with_supervisor()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(_MAPPED_BYTES)
    consortium = Consortium.load(folder)
    secret = read_secret(consortium.executor_secret, "the executor's secret")
    run_executor(f"{LOOPBACK}:{consortium.config.control_port}", consortium.ca_certificate, secret)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
