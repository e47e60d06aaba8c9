"""One process of an emulated deployment: ``python -m … coordinator|site FOLDER``, ending with its engine."""

import sys
from pathlib import Path

from fedcad.shared.supervision import die_with_supervisor


def main(arguments: list[str]) -> None:
    """Be the coordinator or a hospital's node of a folder, until SIGTERM."""
    die_with_supervisor()
    kind, folder = arguments[0], Path(arguments[1])
    # Imported late: a hospital's process must not load the coordinator's half.
    if kind == "coordinator":
        from fedcad.server.supervisor import Coordinator

        Coordinator(folder, _say).run()
    else:
        from fedcad.client.supervisor import Node

        Node(folder, _say).run()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
