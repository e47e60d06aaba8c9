"""Which sites a simulation is on: opened at its beginning, remembered, and the same after every resume."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcad.server.channel import Lost
from fedcad.shared.errors import CheckpointError, ProtocolError
from fedcad.shared.messages import SiteInfo
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.engines.simulated_client import REFUSED
from fedcad.simulations.progress import Display
from fedcad.simulations.results import write_json
from fedcad.simulations.runs import SimulatedSite, open_channel

SITES = "sites.json"
_PART = "preparing sites"


@dataclass(frozen=True)
class OpenedSites:
    """What sites answered when they were opened.

    Attributes:
        infos: Sites that take part, by name.
        refused: Name and reason of sites whose data cannot be used.
    """

    infos: dict[str, SiteInfo]
    refused: tuple[tuple[str, str], ...]


def open_sites(
    folder: Path, sites: Sequence[SimulatedSite], *, pool: WorkerPool, display: Display
) -> OpenedSites:
    """Let every site build its index and cache; leave out those whose data cannot be used, with the reason.

    The first opening is remembered in ``sites.json``; a later one must come to the same sites and cases.

    Args:
        folder: Run folder; its contract is there.
        sites: All sites.
        pool: Worker processes.
        display: Shows progress.

    Raises:
        ProtocolError: A site failed for another reason than its data, so that it may succeed the next time.
        CheckpointError: A site is not what it was when the run began.
    """
    answers = _ask_all(folder, sites, pool, display)
    infos = {name: each for name, each in sorted(answers.items()) if isinstance(each, SiteInfo)}
    lost = {name: each.reason for name, each in sorted(answers.items()) if isinstance(each, Lost)}
    for name, reason in lost.items():
        if not reason.startswith(REFUSED):
            raise ProtocolError(
                f"site {name} could not be opened ({reason}). Its data were not refused, so that it is not "
                "left out: remove the cause and go on with --resume"
            )
    refused = {name: reason.removeprefix(REFUSED) for name, reason in lost.items()}
    _remember(folder / SITES, infos, refused)
    return OpenedSites(infos, tuple(refused.items()))


def _ask_all(
    folder: Path, sites: Sequence[SimulatedSite], pool: WorkerPool, display: Display
) -> dict[str, SiteInfo | Lost]:
    answers = dict[str, SiteInfo | Lost]()
    display.update(_PART, 0, len(sites))

    def ask(site: SimulatedSite) -> SiteInfo | Lost:
        return open_channel(folder, [site], pool).ready()[site.name]

    # One node each, so that a failure is known to be this site's; threads only wait for the workers.
    with ThreadPoolExecutor(len(sites)) as threads, pool.killed_on_error():
        asked = {threads.submit(ask, site): site.name for site in sites}
        for done in as_completed(asked):
            answers[asked[done]] = done.result()
            display.update(_PART, len(answers), len(sites), asked[done])
    return answers


def _remember(path: Path, infos: Mapping[str, SiteInfo], refused: Mapping[str, str]) -> None:
    """Write which sites there are, or check that they are those of the first opening."""
    now: dict[str, dict[str, Any]] = {
        "sites": {name: dict(info.cases) for name, info in infos.items()},
        "left_out": dict(refused),
    }
    if not path.exists():
        write_json(path, now)
        return
    before = _read(path)
    for name in sorted({*_names(before), *_names(now)}):
        had, has = before["sites"].get(name), now["sites"].get(name)
        if had != has:
            raise CheckpointError(
                f"{path.parent}: site {name} {_said(had)} when the run began and now {_said(has)}"
                f"{_because(refused.get(name))}. Bring its archive back to what it was and go on with "
                "--resume, or choose another --out"
            )


def _names(plain: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {*plain["sites"], *plain["left_out"]}


def _said(cases: Mapping[str, int] | None) -> str:
    if cases is None:
        return "was left out"
    return "had " + ", ".join(f"{number} {part}" for part, number in sorted(cases.items())) + " cases"


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        plain = json.loads(path.read_bytes())
        return {part: dict(plain[part]) for part in ("sites", "left_out")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); choose another --out") from error
