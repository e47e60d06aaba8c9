"""Networks that drop every packet, for one hospital and for all, longer than Flower's patience."""

import time
from collections.abc import Callable

from deployed_study import SITES, DeployedStudy
from faults.kills import end
from faults.table import Bench
from faults.tools import Link

LONG_S = 75.0
"""Longer than the 60 s after which Flower counts a silent node as gone."""
SHORT_S = 25.0
"""Longer than the 5 to 10 s after which one call of a node fails."""


def network(bench: Bench) -> None:
    """A hospital's network drops everything, then that of all hospitals."""
    with DeployedStudy(bench.folder / "network", bench.runs["strict"], bench.archives) as deployed:
        port = int(deployed.consortium.config.listen.rpartition(":")[2])
        links = {name: Link(port) for name in SITES}
        for name, link in links.items():
            deployed.make_site(name, address=f"localhost:{link.port}")
        try:
            _cut(bench, deployed, links)
        finally:
            for link in links.values():
                link.close()


def _cut(bench: Bench, deployed: DeployedStudy, links: dict[str, Link]) -> None:
    deployed.start()
    deployed.wait(lambda: deployed.trains("site-2", 1), "training")
    with bench.table.row(
        f"one hospital's packets are dropped for {LONG_S:.0f} s", "while it trains", "the round waits for it"
    ) as row:
        row.measured = _drop(deployed, [links["site-2"]], LONG_S, 0)
        deployed.until_closed(1)
        row.measured += f"; {deployed.participation(1)['site-2'][0]}"
    deployed.wait(lambda: deployed.has_answered("site-1", 2), "an answer")
    with bench.table.row(
        f"all packets are dropped for {SHORT_S:.0f} s", "while updates are on their way", "the study goes on"
    ) as row:
        row.measured = _drop(deployed, list(links.values()), SHORT_S, 1)
        deployed.until_closed(2)
    end(bench, deployed, "both of these")


def _drop(deployed: DeployedStudy, links: list[Link], seconds: float, closed: int) -> str:
    """Cut links for some seconds; the round must still be open then."""
    for link in links:
        link.cut()
    time.sleep(seconds)
    assert deployed.closed() == closed, f"round {closed + 1} was closed without a hospital"
    for link in links:
        link.mend()
    return f"round {closed + 1} stayed open"


SCENARIOS: tuple[Callable[[Bench], None], ...] = (network,)
