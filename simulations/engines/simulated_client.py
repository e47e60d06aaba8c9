"""The hospital's Flower app as a simulation runs it: the same app, opened on emulated sites, with faults.

A node's configuration says: ``site`` (name), ``site-files`` (JSON list; several for the pooled comparison),
``contract`` (folder), ``state`` (folder), ``external`` (tested whole, never trains), ``faults`` (JSON list).
"""

import json
import sqlite3
from collections import OrderedDict
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from fedcad.client.archive.site_data import SiteData, open_archive
from fedcad.client.case_source import CaseSource
from fedcad.client.node import Node
from fedcad.client.node_app import make_client_app
from fedcad.client.workbench import Workbench
from fedcad.shared.canonical import canonical_json
from fedcad.shared.config.load import load_site
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract
from fedcad.shared.errors import DataError, FedCADError
from fedcad.simulations.engines.faults import inject_faults
from fedcad.simulations.pooling import PooledCases

REFUSED = "the site's data cannot be used: "
"""How an error begins that the data themselves cause, so that trying again gives the same."""

_KEPT_BENCHES = 4


def make_simulated_app() -> ClientApp:
    """Return the client app of emulated sites."""
    return make_client_app(_open_node, mods=[inject_faults], describe=describe_error)


def describe_error(error: Exception) -> str:
    """Return all of an error's text: emulated hospitals have no patients to protect.

    What the data cause begins with :data:`REFUSED`; a disk that is full or fails does not, whatever it broke.
    """
    if isinstance(error, DataError) and not isinstance(error.__cause__, OSError | sqlite3.Error):
        return f"{REFUSED}{error}"
    return str(error) if isinstance(error, FedCADError) else f"{type(error).__name__}: {error}"


def _open_node(context: Context) -> Node:
    config = context.node_config
    bench = _bench(str(config["contract"]))
    study, external = bench.contract.study, bool(config.get("external", False))
    sources: list[CaseSource] = [
        _data(path, _cases_key(study), str(config["contract"]), external)
        for path in json.loads(str(config["site-files"]))
    ]
    data = sources[0] if len(sources) == 1 else PooledCases(sources)
    return Node(str(config["site"]), data, bench, state=Path(str(config["state"])))


_benches: OrderedDict[str, Workbench] = OrderedDict()
"""By study: all runs of one study share the networks, whichever folder their contract is in."""

_studies: dict[str, str] = {}
"""Hash of the study by the folder of its contract, which is read once."""


def _bench(contract_folder: str) -> Workbench:
    study = _studies.get(contract_folder)
    if study is None or study not in _benches:
        # The terms alone: parameters come with every plan, and every worker would keep them once more.
        terms = Contract.load(Path(contract_folder)).terms
        study = _studies[contract_folder] = terms.study_hash
        if study not in _benches:
            _benches[study] = Workbench(terms)
    _benches.move_to_end(study)
    while len(_benches) > _KEPT_BENCHES:
        _benches.popitem(last=False)
    return _benches[study]


def _cases_key(study: StudyConfig) -> str:
    """Return what decides a site's cases: studies that agree on it share the opened archive."""
    parts = study.model_dump(mode="json", include={"data", "preprocessing", "seed", "task"})
    return canonical_json(parts).decode()


_opened: dict[tuple[str, str, bool], SiteData] = {}


def _data(site_file: str, key: str, contract_folder: str, external: bool) -> SiteData:
    place = (site_file, key, external)
    if place not in _opened:
        path = Path(site_file)
        study = _bench(contract_folder).contract.study
        _opened[place] = open_archive(load_site(path), path.parent, study, external=external)
    return _opened[place]
