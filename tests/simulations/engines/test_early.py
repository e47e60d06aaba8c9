"""The fork server starts before anything heavy; the coordinator never warms up what workers need."""

import gc
import json
import subprocess
import sys
from typing import Any

import pytest

from fedcad.simulations.engines.early import collector_off


def run_python(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_starting_it_imports_nothing_heavy_and_twice_is_once() -> None:
    code = """
import json, sys
from multiprocessing import forkserver
from fedcad.simulations.engines.early import start_fork_server
start_fork_server()
first = forkserver._forkserver._forkserver_pid
start_fork_server()
same = forkserver._forkserver._forkserver_pid == first
print(json.dumps([same, sorted({"torch", "numpy", "flwr", "pydantic"} & set(sys.modules))]))
"""
    assert run_python(code) == [True, []]


def test_the_pool_is_imported_without_the_compiler_that_optimizers_pull_in() -> None:
    code = """
import json, sys
import fedcad.simulations.engines.pool
unwanted = {"torch._dynamo", "sympy", "pydicom", "PIL", "matplotlib", "ray"}
print(json.dumps(sorted(unwanted & set(sys.modules))))
"""
    assert run_python(code) == []


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_afterwards_as_it_was(was_on: bool) -> None:
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError), collector_off():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
