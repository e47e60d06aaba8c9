"""Start the fork server before anything heavy is imported, so that it imports at the same time as we do.

Only the standard library is imported here: a command calls :func:`start_fork_server` first of all.
"""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

_WARM = ["fedcad.simulations.engines.warm"]
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def start_fork_server() -> None:
    """Start the process from which workers are forked; returns at once, and does nothing the second time.

    Also asks torch, here and in the workers, to keep large tensors in huge pages, where the kernel has them:
    touching a new vector of 45 MB then takes a fifth of the time.
    """
    os.environ.setdefault(_HUGE_PAGES, "1")
    multiprocessing.set_forkserver_preload(_WARM)
    forkserver.ensure_running()


@contextmanager
def collector_off() -> Iterator[None]:
    """Import modules without looking for garbage cycles; the collector is as before afterwards.

    Why: imports of this size make hundreds of thousands of objects that stay, and looking through them again
    and again takes a quarter of their time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
