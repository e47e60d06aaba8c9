import pytest
from engine_apps import make_echo_app

from fedcad.simulations.engines.pool import WorkerPool


@pytest.fixture(scope="session")
def shared_pool():
    """Two workers for tests that leave them alive."""
    with WorkerPool(make_echo_app, 2) as pool:
        yield pool
