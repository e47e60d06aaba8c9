"""One run of one study on some nodes, in a folder of its own: federated, alone, pooled, without a site."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcad.server.app import GridChannel, serve
from fedcad.server.event_log import Observer
from fedcad.server.final_test import counted_up_to
from fedcad.server.outcome import MODEL, read_outcome
from fedcad.server.settings import RunSettings
from fedcad.shared.config.simulation import FaultConfig
from fedcad.shared.contract import Contract
from fedcad.shared.errors import FedCADError
from fedcad.simulations.engines.in_process import InProcessGrid
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.studies import has_personal

CONTRACT = "contract"
_CHECKPOINTS = "checkpoints"  # where fedcad.server.app keeps them
_LOG = "rounds.jsonl"


@dataclass(frozen=True)
class SimulatedSite:
    """A site of a simulation.

    Attributes:
        name: Its name.
        site_files: Its site file; several for the pooled comparison.
        is_external: Tested whole, never trains.
        faults: What goes wrong at it.
    """

    name: str
    site_files: tuple[str, ...]
    is_external: bool = False
    faults: tuple[FaultConfig, ...] = field(default=())

    def node_config(self, contract: Path, state: Path) -> dict[str, Any]:
        """Return what the node's app is told."""
        return {
            "site": self.name,
            "site-files": json.dumps(self.site_files),
            "contract": str(contract),
            "state": str(state / self.name),
            "external": self.is_external,
            "faults": json.dumps([fault.model_dump(mode="json") for fault in self.faults]),
        }


@dataclass(frozen=True)
class Run:
    """A study on some sites.

    Attributes:
        name: ``federated``, ``alone-<site>``, ``pooled`` or ``without-<site>``.
        folder: Where everything of the run is kept.
        contract: The study.
        sites: Who takes part.
    """

    name: str
    folder: Path
    contract: Contract
    sites: Sequence[SimulatedSite]

    def prepare(self) -> list[dict[str, Any]]:
        """Write contract and settings and return the nodes' configurations."""
        self.contract.save(self.folder / CONTRACT)
        names = tuple(site.name for site in self.sites)
        RunSettings(contract=CONTRACT, sites=names, virtual_clock=True).save(self.folder)
        return node_configs(self.folder, self.sites)

    def execute(self, pool: WorkerPool, observe: Observer | None = None) -> None:
        """Run, or go on, in process."""
        serve(InProcessGrid(pool, numbered(self.prepare())), self.folder, observe)

    def execute_once(self, pool: WorkerPool, observe: Observer | None = None) -> None:
        """Run, or go on, unless it has completed; then only what it ended with is kept.

        Why: the checkpoints of one run for each site would fill the coordinator's disk.
        """
        if not self.is_completed():
            self.execute(pool, observe)
        if self.is_completed():
            shutil.rmtree(self.folder / _CHECKPOINTS, ignore_errors=True)

    @property
    def has_personal(self) -> bool:
        """Whether its models are whole only with what its sites keep in this run's folder."""
        return has_personal(self.contract)

    def selected_rounds(self) -> dict[str, int]:
        """Return, for each site that counted, its last counted round of the selected version.

        Raises:
            CheckpointError: How the run ended, or its log, cannot be read.
        """
        outcome = read_outcome(self.folder)
        version = outcome["selected_version"] if outcome is not None else 0
        return counted_up_to(self.folder / _LOG, version)

    def is_completed(self) -> bool:
        """Whether the folder holds the end of this very study on these sites, without any checkpoint."""
        names = tuple(site.name for site in self.sites)
        try:
            outcome = read_outcome(self.folder)
            return (
                outcome is not None
                and outcome["status"] == "completed"
                and (self.folder / MODEL).is_file()
                and RunSettings.load(self.folder).sites == names
                and Contract.load(self.folder / CONTRACT).study_hash == self.contract.study_hash
            )
        except FedCADError:
            return False  # Damaged: it is run again from its newest checkpoint, if it has one.


def node_configs(folder: Path, sites: Sequence[SimulatedSite]) -> list[dict[str, Any]]:
    """Return the configurations of sites for the contract in a run folder."""
    return [site.node_config(folder / CONTRACT, folder / "sites") for site in sites]


def open_channel(folder: Path, sites: Sequence[SimulatedSite], pool: WorkerPool) -> GridChannel:
    """Open a channel to sites for questions outside the rounds, under the contract in a run folder."""
    grid = InProcessGrid(pool, numbered(node_configs(folder, sites)))
    return GridChannel(grid, [site.name for site in sites], virtual_clock=True)


def numbered(nodes: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Give nodes ids, from 1."""
    return dict(enumerate(nodes, start=1))
