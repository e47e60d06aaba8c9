import pytest
import tiny_study


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Emulated hospitals are written once for all end-to-end tests."""
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, archives):
    """One whole simulation with every comparison."""
    simulation = tiny_study.make_simulation(leave_one_site_out=True, external_sites=["site-3"])
    folder = tmp_path_factory.mktemp("finished") / "run"
    return tiny_study.simulate(folder, archives=archives, simulation=simulation, report=True)
