import subprocess
import sys

PROGRAM = """
import sys, threading
import fedcad.simulations.engines.warm
print(threading.active_count())
print(sorted(name for name in ("ray", "matplotlib", "monai", "jinja2", "scipy") if name in sys.modules))
print("torch._dynamo" in sys.modules, "fedcad.client.node" in sys.modules)
import gc
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def test_everything_that_a_worker_needs_is_there_and_nothing_more() -> None:
    """No thread may run where workers are forked; what reports and other engines need stays out."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    threads, unwanted, wanted, collector = done.stdout.splitlines()
    assert threads == "1"
    assert unwanted == "[]"
    assert wanted == "True True"
    assert collector == "True True"
