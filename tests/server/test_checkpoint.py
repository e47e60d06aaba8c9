"""Checkpoints: whole or absent after any interruption, damage found, two newest kept."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from study_factory import bits_of

from fedcad.server import checkpoint as checkpoint_module
from fedcad.server.checkpoint import Checkpoint, CheckpointStore, Selection
from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import CheckpointError

STUDY = "a" * 64


def make_checkpoint(number: int, *, finished: bool = False) -> Checkpoint:
    model = torch.arange(4.0) + number
    return Checkpoint(
        STUDY,
        number,
        {"model": model, "optimizer.step": torch.tensor(number), "optimizer.first": torch.ones(4) * number},
        Selection(number, model, {"a": (0.1 + number / 3, 7), "b": (0.5, 3)}),
        {"a": number, "b": 0},
        2 * number,
        finished,
    )


KINDS = ("newest", "first", "apart", "changing")


def make_run(kind: str, *, count: int = 5) -> list[Checkpoint]:
    """Return the checkpoints of rounds 1, 2, … of one run, by what is selected.

    ``newest``: always the round's own model; ``first``: that of round 1; ``apart``: parameters that are in no
    state, as the initial ones; ``changing``: those of the round before, as with validation.
    """
    made = [make_checkpoint(number) for number in range(1, count + 1)]
    apart = Selection(0, torch.full((4,), 0.25), {"a": (0.5, 7)})
    chosen = {
        "newest": [each.selection for each in made],
        "first": [made[0].selection] * count,
        "apart": [apart] * count,
        "changing": [apart, *(each.selection for each in made[:-1])],
    }[kind]
    return [replace(each, selection=selection) for each, selection in zip(made, chosen, strict=True)]


def latest(folder: Path) -> Checkpoint:
    found = CheckpointStore(folder).latest(STUDY)
    assert found is not None
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "new" / "folder").latest(STUDY) is None


@given(
    number=st.integers(0, 10**6),
    losses=st.dictionaries(st.sampled_from("abc"), st.tuples(st.floats(0, 1e6), st.integers(1, 99))),
    finished=st.booleans(),
    counted=st.dictionaries(st.text(max_size=5).filter(str.isascii), st.integers(0, 10), max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_what_is_saved_comes_back_bit_by_bit(tmp_path_factory, number, losses, finished, counted) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("checkpoints")
    one = make_checkpoint(number, finished=finished)
    one = replace(one, selection=replace(one.selection, losses=losses), last_counted=counted)
    CheckpointStore(folder).save(one)
    assert bits_of(latest(folder)) == bits_of(one)
    assert latest(folder).study_hash == STUDY


def test_views_scalars_and_shared_memory_can_be_state(tmp_path: Path) -> None:
    big = torch.arange(8.0)
    one = replace(make_checkpoint(1), state={"model": big[::2], "other": big[::2].clone()[1:]})
    one = replace(one, selection=replace(one.selection, model=one.state["model"].contiguous()))
    CheckpointStore(tmp_path).save(one)
    assert latest(tmp_path).state["model"].tolist() == [0, 2, 4, 6]


def test_only_the_two_newest_stay_and_the_finished_one_is_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in (8, 9, 10):
        store.save(make_checkpoint(number))
    store.save(make_checkpoint(10, finished=True))
    stems = ["round-0010", "round-0010-final"]
    assert names(tmp_path) == sorted(f"{stem}.{kind}" for stem in stems for kind in ("json", "safetensors"))
    assert latest(tmp_path).is_finished


@pytest.mark.parametrize(
    ("kind", "files"),
    {
        "newest": ["round-0004", "round-0005"],
        "first": ["round-0001", "round-0004", "round-0005"],
        "apart": ["round-0001-selected", "round-0004", "round-0005"],
        "changing": ["round-0003", "round-0004", "round-0005"],
    }.items(),
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_parameters_are_written_once_and_stay_while_a_checkpoint_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, files: list[str], is_resumed: bool
) -> None:
    """The same files whether one process saves all rounds or each round resumes from the one before."""
    written: list[str] = []
    real = checkpoint_module.write_tensors

    def counting(path: Path, tensors: Any) -> str:
        written.append(path.stem)
        return real(path, tensors)

    monkeypatch.setattr(checkpoint_module, "write_tensors", counting)
    store = CheckpointStore(tmp_path)
    run = make_run(kind)
    for before, one in zip([None, *run], run, strict=False):
        next_one = one
        if is_resumed and before is not None:
            store = CheckpointStore(tmp_path)
            resumed = store.latest(STUDY)
            assert resumed is not None
            next_one = as_resumed(one, before, resumed)
        store.save(next_one)
        assert bits_of(latest(tmp_path)) == bits_of(one)
    assert [path.stem for path in sorted(tmp_path.glob("*.safetensors"))] == files
    expected = {f"round-{number:04d}" for number in range(1, 6)}
    assert len(written) == len(set(written))
    assert set(written) == expected | ({"round-0001-selected"} if kind in ("apart", "changing") else set())


def as_resumed(one: Checkpoint, before: Checkpoint, resumed: Checkpoint) -> Checkpoint:
    """Return a checkpoint that selects a tensor which a resumed run has read, not the one that was saved."""
    for saved, read in ((before.selection, resumed.selection.model), (before, resumed.state["model"])):
        model = saved.model if isinstance(saved, Selection) else saved.state["model"]
        if one.selection.model is model:
            return replace(one, selection=replace(one.selection, model=read))
    return one


def test_a_selection_that_is_the_state_comes_back_as_one_tensor(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(make_checkpoint(1))
    found = latest(tmp_path)
    assert found.selection.model is found.state["model"]


def test_a_damaged_checkpoint_does_not_cost_what_it_may_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first, second, third = make_run("apart", count=3)
    store.save(first)
    store.save(second)
    (tmp_path / "round-0002.json").write_text("{")
    store.save(third)
    assert (tmp_path / "round-0001.safetensors").exists()
    assert bits_of(latest(tmp_path)) == bits_of(third)


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in (9999, 10000, 99999, 100000):
        store.save(make_checkpoint(number))
        assert latest(tmp_path).round == number


def test_strangers_files_are_neither_read_nor_removed(tmp_path: Path) -> None:
    strangers = ["round-x.json", "round-0001 (copy).json", "round-.json", "notes.txt", "round-0003.json.bak"]
    for name in strangers:
        (tmp_path / name).write_text("mine")
    store = CheckpointStore(tmp_path)
    for number in (1, 2, 3):
        store.save(make_checkpoint(number))
    assert latest(tmp_path).round == 3
    assert set(strangers) <= set(names(tmp_path))


def test_another_study_is_refused(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(make_checkpoint(1))
    with pytest.raises(CheckpointError, match="another study"):
        CheckpointStore(tmp_path).latest("b" * 64)


# Interruptions.

STEPS: dict[str, tuple[str, int]] = {
    **{f"fsync {number}": ("os.fsync", number) for number in range(4)},
    **{f"replace {number}": ("pathlib.Path.replace", number) for number in range(2)},
    **{f"unlink {number}": ("pathlib.Path.unlink", number) for number in range(2)},
}


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_an_interruption_at_any_step_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: str, after: bool
) -> None:
    store = CheckpointStore(tmp_path)
    run = make_run(kind, count=6)
    for one in run[:3]:
        store.save(one)
    name, count = STEPS[step]
    left = [count]

    def interrupting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and not after:
                raise Interrupted
            result = real(*args, **options)
            if left[0] < 0:
                raise Interrupted
            return result

        return call

    with monkeypatch.context() as patch:
        real = os.fsync if name == "os.fsync" else getattr(Path, name.rpartition(".")[2])
        patch.setattr(name, interrupting(real))
        with pytest.raises(Interrupted):
            store.save(run[3])
    assert bits_of(latest(tmp_path)) in (bits_of(run[2]), bits_of(run[3]))
    again = CheckpointStore(tmp_path)
    for one in run[3:]:
        again.save(one)
        assert bits_of(latest(tmp_path)) == bits_of(one)
    assert [path.stem for path in sorted(tmp_path.glob("*.json"))] == ["round-0005", "round-0006"]
    named = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    needed = {plain[key]["file"] for plain in named for key in ("state_file", "selected_file")}
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == needed


def test_every_step_of_a_save_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps above are all that a save has, for whatever it writes."""
    for kind in KINDS:
        calls: Counter[str] = Counter()
        store = CheckpointStore(tmp_path / kind)
        _, second, third = make_run(kind, count=3)
        store.save(second)
        with monkeypatch.context() as patch:
            for name in ("os.fsync", "pathlib.Path.replace"):
                real = os.fsync if name == "os.fsync" else Path.replace
                patch.setattr(name, _counting(real, calls, name))
            store.save(third)
        assert calls == {"os.fsync": 4, "pathlib.Path.replace": 2}, kind


def _counting(real: Callable[..., Any], calls: Counter[str], name: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        return real(*args, **options)

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_at_any_system_call_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, kind: str) -> None:
    """One process that forks a child for each step; each child dies by SIGKILL in the midst of saving."""
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import importlib.util
spec = importlib.util.spec_from_file_location("checkpoints", {__file__!r})
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)
for step in range(20):
    folder = Path({str(tmp_path)!r}) / str(step)
    store = checkpoints.CheckpointStore(folder)
    first, second, third = checkpoints.make_run({kind!r}, count=3)
    store.save(first)
    store.save(second)
    child = os.fork()
    if child == 0:
        left = [step]
        def killing(real):
            def call(*args, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)
            return call
        os.fsync, os.open = killing(os.fsync), killing(os.open)
        Path.open, Path.replace = killing(Path.open), killing(Path.replace)
        Path.unlink = killing(Path.unlink)
        store.save(third)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    ends = [int(line) for line in result.stdout.split()]
    assert ends.count(signal.SIGKILL) >= 10
    assert ends[-1] == 0, "more steps than this test kills at; raise its range"
    rounds = [latest(tmp_path / str(step)).round for step in range(len(ends))]
    assert rounds == sorted(rounds)
    assert set(rounds) == {2, 3}
    for step, number in enumerate(rounds):
        assert bits_of(latest(tmp_path / str(step))) == bits_of(make_run(kind)[number - 1])
        assert not [name for name in names(tmp_path / str(step)) if name.startswith(".")]


# Damage.


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_changed_byte_is_found(tmp_path_factory, data) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("damaged")
    CheckpointStore(folder).save(make_checkpoint(1))
    path = folder / data.draw(st.sampled_from(["round-0001.json", "round-0001.safetensors"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = latest(folder)
    except CheckpointError:
        return
    # White space of the JSON text and the case of an exponent's e carry no meaning.
    assert path.suffix == ".json"
    assert bits_of(found) == bits_of(make_checkpoint(1))


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_torn_files_are_refused_and_the_one_before_is_still_there(
    tmp_path: Path, kind: str, kept: int
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    path = tmp_path / f"round-0002.{kind}"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="round-0002"):
        latest(tmp_path)
    (tmp_path / "round-0002.json").unlink()
    assert bits_of(latest(tmp_path)) == bits_of(make_checkpoint(1))


@pytest.mark.parametrize("kind", ["first", "apart", "changing"])
def test_a_rollback_to_the_checkpoint_before_finds_its_selection(tmp_path: Path, kind: str) -> None:
    store = CheckpointStore(tmp_path)
    run = make_run(kind)
    for one in run[:4]:
        store.save(one)
    (tmp_path / "round-0004.json").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="round-0004"):
        latest(tmp_path)
    (tmp_path / "round-0004.json").unlink()
    assert bits_of(latest(tmp_path)) == bits_of(run[2])
    again = CheckpointStore(tmp_path)
    again.latest(STUDY)
    again.save(run[3])
    again.save(run[4])
    assert bits_of(latest(tmp_path)) == bits_of(run[4])


@pytest.mark.parametrize(("kind", "file"), [("first", "round-0001"), ("apart", "round-0001-selected")])
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_damaged_selection_is_refused(tmp_path: Path, kind: str, file: str, is_missing: bool) -> None:
    store = CheckpointStore(tmp_path)
    for one in make_run(kind):
        store.save(one)
    path = tmp_path / f"{file}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if is_missing:
        path.unlink()
    with pytest.raises(CheckpointError, match=file):
        latest(tmp_path)


@pytest.mark.parametrize("file", ["../round-0001", "/etc/passwd", "round-1", "round-0001-selected-final", ""])
def test_a_checkpoint_names_only_files_of_its_folder(tmp_path: Path, file: str) -> None:
    CheckpointStore(tmp_path).save(make_checkpoint(1))
    path = tmp_path / "round-0001.json"
    plain = json.loads(path.read_text())
    plain.pop("sha256")
    plain["selected_file"]["file"] = file
    path.write_text(json.dumps(plain | {"sha256": hash_of(plain)}))
    with pytest.raises(CheckpointError, match="names the file"):
        latest(tmp_path)


def test_tensors_of_another_round_are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(make_checkpoint(1))
    store.save(make_checkpoint(2))
    (tmp_path / "round-0002.safetensors").write_bytes((tmp_path / "round-0001.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="not the ones"):
        latest(tmp_path)


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(make_checkpoint(1))
    (tmp_path / "round-0001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        latest(tmp_path)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "{}", '{"sha256": 3}', '{"sha256": null}'])
def test_other_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "round-0001.json").write_text(text)
    with pytest.raises(CheckpointError):
        latest(tmp_path)


@pytest.mark.parametrize("key", ["round", "events", "is_finished", "last_counted", "selection", "study_hash"])
def test_changed_facts_are_refused(tmp_path: Path, key: str) -> None:
    CheckpointStore(tmp_path).save(make_checkpoint(1))
    path = tmp_path / "round-0001.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {key: []}))
    with pytest.raises(CheckpointError):
        latest(tmp_path)


# Selection.


def test_the_lower_loss_on_common_sites_wins_and_a_tie_keeps_the_earlier() -> None:
    chosen = Selection(1, torch.zeros(1), {"a": (0.5, 10), "b": (1.0, 10)})  # mean 0.75
    assert chosen.is_beaten_by({"a": (0.5, 10), "b": (0.9, 10)})
    assert not chosen.is_beaten_by({"a": (1.0, 10), "b": (0.5, 10)})
    assert not chosen.is_beaten_by({"a": (float("nan"), 10), "b": (0.5, 10)})
    assert chosen.is_beaten_by({"a": (0.4, 10)}), "b was lost: only a compares"
    assert not chosen.is_beaten_by({"a": (0.6, 10), "c": (0.0, 1000)}), "c never saw the chosen one"
    assert not chosen.is_beaten_by({"c": (0.0, 10)}), "nobody saw both"
    large = Selection(1, torch.zeros(1), {"a": (0.5, 100), "b": (0.5, 100), "c": (0.3, 5)})
    assert not large.is_beaten_by({"c": (0.0, 5)}), "c alone is too small to decide"
    assert large.is_beaten_by({"a": (0.4, 100), "c": (0.3, 5)})
    assert Selection(0, torch.zeros(1)).is_beaten_by({"a": (99.0, 1)})


def test_the_place_for_single_updates_is_apart_from_checkpoints(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(make_checkpoint(1))
    assert store.spill().updates() == ()
    store.save(make_checkpoint(2))
    assert (tmp_path / "updates").is_dir()
    assert latest(tmp_path).round == 2
