"""Disks that are full, at a hospital and at the coordinator."""

import time
from collections.abc import Callable

from deployed_study import DeployedStudy
from faults.kills import end
from faults.table import Bench
from faults.tools import can_mount, small_disk

_SITE_MB, _SERVER_MB = 120, 200
_LITTLE_BYTES = 5 * 2**20
_SHOWN_S = 20.0


def full_disks(bench: Bench) -> None:
    """A hospital's disk has too little room, then none; then the coordinator's."""
    if not can_mount(bench.folder / "probe"):
        bench.table.leave_out("disks are full", "this account may not mount a small disk")
        return
    root = bench.folder / "disks"
    with (
        small_disk(root / "sites" / "site-2", _SITE_MB) as at_site,
        small_disk(root / "server", _SERVER_MB) as at_server,
        DeployedStudy(
            root, bench.runs["strict"], bench.archives, coordinator=root / "server" / "coordinator"
        ) as deployed,
    ):
        at_site.fill(_LITTLE_BYTES)
        deployed.start()
        with bench.table.row(
            "a hospital's disk has 5 MB left", "before round 1", "the study waits, its reason names the site"
        ) as row:
            row.measured = waits_for(deployed, "site-2")
            assert deployed.closed() == 0
            at_site.empty()
            deployed.until_closed(1)
        with bench.table.row(
            "a hospital's disk is full to the last byte", "while it trains", "the study waits for it"
        ) as row:
            deployed.wait(lambda: deployed.has_plan("site-2", 2), "training")
            at_site.fill()
            row.measured = waits_for(deployed, "site-2")
            at_site.empty()
            deployed.until_closed(2)
        with bench.table.row(
            "the coordinator's disk is full to the last byte", "while sites train", "the study goes on later"
        ) as row:
            deployed.wait(lambda: deployed.has_plan("site-1", 3), "round 3")
            at_server.fill()
            time.sleep(_SHOWN_S)
            assert deployed.closed() == 2, "a round was closed that could not be saved"
            at_server.empty()
            deployed.until_closed(3)
            row.measured = "round 3 was closed when there was room"
        end(bench, deployed, "all of these")


def waits_for(deployed: DeployedStudy, site: str, also: str = "") -> str:
    """Wait until the study says that it waits, and for whom; return its reason."""

    def shown() -> bool:
        reason = str(deployed.live().get("reason", ""))
        return site in reason and also in reason

    deployed.wait(shown, f"a reason that names {site}")
    reason = str(deployed.live()["reason"])
    return reason[: reason.find("Remedy")].strip()


SCENARIOS: tuple[Callable[[Bench], None], ...] = (full_disks,)
