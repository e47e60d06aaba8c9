"""Single updates on disk: the same bits back, in an order of their own, and nothing of a broken round."""

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.server.spill import Spill


def vector(*values: float) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(values, dtype=np.float32)


@given(st.permutations([(vector(1, 2), 3), (vector(-1, 0), 3), (vector(1, 2), 4), (vector(1, 2), 3)]))
@settings(max_examples=20, deadline=None)
def test_the_order_of_arrival_does_not_show(tmp_path_factory, arrived) -> None:  # type: ignore[no-untyped-def]
    spill = Spill(tmp_path_factory.mktemp("spill"))
    for values, weight in arrived:
        spill.add({"model": values}, weights={"model": weight})
    found = [(update.weights["model"], update.vectors["model"].tolist()) for update in spill.updates()]
    assert sorted(found) == [(3, [-1.0, 0.0]), (3, [1.0, 2.0]), (3, [1.0, 2.0]), (4, [1.0, 2.0])]
    again = Spill(tmp_path_factory.mktemp("spill"))
    for values, weight in reversed(arrived):
        again.add({"model": values}, weights={"model": weight})
    assert [(u.weights["model"], u.vectors["model"].tolist()) for u in again.updates()] == found


def test_several_vectors_of_one_update_stay_together(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.add({"model": vector(1, 2), "variate": vector(3)}, weights={"model": 5, "variate": 1})
    (update,) = spill.updates()
    assert update.weights == {"model": 5, "variate": 1}
    assert update.vectors["model"].tolist() == [1.0, 2.0]
    assert update.vectors["variate"].tolist() == [3.0]
    assert update.vectors["model"].dtype == torch.float32


def test_updates_are_not_in_memory_and_writing_to_them_does_not_reach_the_disk(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.add({"model": vector(1, 2)}, weights={"model": 1})
    spill.updates()[0].vectors["model"][0] = 9
    assert spill.updates()[0].vectors["model"].tolist() == [1.0, 2.0]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 8


def test_what_an_interrupted_round_left_is_removed_and_other_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    Spill(folder).add({"model": vector(1)}, weights={"model": 1})
    (folder / "note.txt").write_text("mine")
    assert Spill(folder).updates() == ()
    assert [path.name for path in folder.iterdir()] == ["note.txt"]
