"""One column of the simulation benchmark, in a process of its own.

``python -m benchmarks.one_run ENGINE FOLDER ROUNDS WORKERS RESULT``; the engine is a module beside this one.
Why not the module itself: Ray's workers must be able to import it by its name.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    engine, folder, rounds, workers, result = sys.argv[1:]
    found = import_module(f"benchmarks.{engine}").run(Path(folder), int(rounds), int(workers))
    Path(result).write_text(json.dumps(found), encoding="utf-8")
