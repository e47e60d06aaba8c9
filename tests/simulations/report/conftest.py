"""Run folders that are written once for all tests of the report, which only read them."""

import sys
from pathlib import Path

import pytest

from fedcad.simulations.report.run_folder import Run, read_run
from fedcad.simulations.report.write import write_report

sys.path.insert(0, str(Path(__file__).parent))

from run_folder_factory import FIVE_SITES, SitePlan, many_sites, write_run


@pytest.fixture(scope="session")
def five_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sites, one of a single class, one external; faults in four rounds."""
    return write_run(tmp_path_factory.mktemp("runs") / "five")


@pytest.fixture(scope="session")
def five(five_folder: Path) -> Run:
    return read_run(five_folder)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Stopped after four of twelve rounds, nothing tested."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    return read_run(write_run(folder, closed=4, changes={"evaluations": [], "comparisons": []}))


@pytest.fixture(scope="session")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One site, no baselines."""
    folder = tmp_path_factory.mktemp("runs") / "lonely"
    return read_run(write_run(folder, sites=FIVE_SITES[:1], baselines=(), faults=False))


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two external sites, and every training site left out once."""
    folder = tmp_path_factory.mktemp("runs") / "unseen"
    sites = (*FIVE_SITES, SitePlan("uluru", 40, (0.3, 0.3, 0.4), role="external"))
    changes = {"case_passes": {"federated": 12.0, "pooled": 12.04}}
    baselines = ("alone", "pooled", "ensemble", "without")
    return read_run(write_run(folder, sites=sites, baselines=baselines, changes=changes))


@pytest.fixture(scope="session")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "thirty", sites=many_sites(30), rounds=5))


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written report of five sites."""
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "written"))
