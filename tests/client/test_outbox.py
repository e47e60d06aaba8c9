"""The outbox: never two answers to one question, whole or absent after kill -9 anywhere."""

import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedcad.client import outbox as module
from fedcad.client.outbox import Outbox
from fedcad.client.worker_protocol import WorkerMessage, read_frame
from fedcad.shared.errors import CheckpointError
from fedcad.shared.messages import RoundPlan

STUDY = "a" * 64


def plan(round_number=1, attempt=1, *, variant="b", last=0, work=("train",)):
    return RoundPlan(
        study_hash=STUDY,
        site="site",
        round=round_number,
        attempt=attempt,
        work=work,
        broadcast_hash=variant * 64,
        last_counted_round=last,
    )


def answer(value=1.0, size=4):
    vectors = {"model": np.full(size, value, np.float32)}
    return WorkerMessage("answer", {"header": f"{value}"}, {"vectors": vectors})


def read(path):
    with path.open("rb") as stream:
        message = read_frame(stream.readinto)
        assert stream.read() == b""
    return message


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox", STUDY)


def files(tmp_path):
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_same_plan_gets_the_same_bytes_and_the_first_answer_stays(outbox, tmp_path):
    assert outbox.admit(plan()) is None
    assert outbox.answer_to(plan()) is None
    kept = outbox.keep(plan(), answer(1.0))
    content = kept.read_bytes()
    again = Outbox(tmp_path / "outbox", STUDY)
    assert again.admit(plan()) is None
    assert again.answer_to(plan()) == kept
    assert again.keep(plan(), answer(2.0)).read_bytes() == content
    assert read(kept).texts == {"header": "1.0"}


def test_another_plan_of_the_attempt_is_refused_also_before_the_answer(outbox):
    outbox.admit(plan())
    assert outbox.admit(plan(variant="c")) == "other-plan"
    assert outbox.admit(plan()) is None
    outbox.keep(plan(), answer())
    assert outbox.admit(plan(variant="c")) == "other-plan"
    with pytest.raises(CheckpointError):
        outbox.keep(plan(variant="c"), answer())


def test_a_higher_attempt_is_kept_beside_and_closes_the_lower(outbox, tmp_path):
    outbox.admit(plan())
    first = outbox.keep(plan(), answer(1.0))
    assert outbox.admit(plan(attempt=3, variant="c")) is None
    second = outbox.keep(plan(attempt=3, variant="c"), answer(2.0))
    assert (first.exists(), second.exists()) == (True, True)
    assert outbox.admit(plan()) == "closed-round"
    assert outbox.admit(plan(attempt=2)) == "closed-round"
    assert outbox.answer_to(plan(attempt=3, variant="c")) == second


@pytest.mark.parametrize(
    "receipt",
    [
        plan(3),
        plan(9, attempt=2),
        plan(3, last=2),
        plan(0, work=("validate",)),
        plan(0, work=("test",), last=2),
    ],
)
def test_answers_stay_until_a_receipt_and_closed_rounds_stay_closed(outbox, tmp_path, receipt):
    outbox.admit(plan(2))
    kept = outbox.keep(plan(2), answer())
    outbox.admit(plan(2))
    assert kept.exists()
    assert outbox.admit(receipt) is None
    assert not kept.exists()
    outbox = Outbox(tmp_path / "outbox", STUDY)
    assert outbox.admit(plan(2)) == "closed-round"
    assert outbox.admit(plan(1)) == "closed-round"
    assert outbox.admit(plan(2, variant="c")) == "closed-round"


def test_a_restored_coordinator_is_answered_in_a_new_attempt_alone(outbox, tmp_path):
    for number in (1, 2, 3):
        outbox.admit(plan(number))
        outbox.keep(plan(number), answer(float(number)))
    assert outbox.admit(plan(2)) == "closed-round"
    assert outbox.admit(plan(2, 2)) is None
    again = outbox.keep(plan(2, 2), answer(9.0))
    outbox = Outbox(tmp_path / "outbox", STUDY)
    assert outbox.admit(plan(3)) == "closed-round"
    assert outbox.admit(plan(4)) == "closed-round"
    assert outbox.admit(plan(1, 2)) == "closed-round"
    assert outbox.answer_to(plan(2, 2)) == again
    assert outbox.admit(plan(3, 2)) is None
    assert outbox.admit(plan(2, 2)) == "closed-round"
    assert outbox.admit(plan(0, 1, work=("validate",))) == "closed-round"
    assert outbox.admit(plan(3, 2)) is None
    outbox.admit(plan(4, 2))
    assert files(tmp_path) == ["closed.json", "update.plan"]


@pytest.mark.parametrize("work", [("validate",), ("test",)])
def test_old_work_outside_the_rounds_is_not_done_again_in_a_later_attempt(outbox, work):
    """A relay that kept the plan could take back the site's state, and the model that it was given."""
    old = plan(0, last=3, work=work)
    assert outbox.admit(old) is None
    assert outbox.admit(plan(2, attempt=2, last=1)) is None
    kept = outbox.keep(plan(2, attempt=2, last=1), answer())
    assert outbox.admit(old) == "closed-round"
    assert outbox.answer_to(plan(2, attempt=2, last=1)) == kept
    assert outbox.admit(plan(0, attempt=2, last=2, work=work)) is None


def test_work_outside_the_rounds_is_not_stored_and_before_all_rounds_closes_none(outbox, tmp_path):
    outside = plan(0, work=("validate",))
    assert outbox.admit(outside) is None
    assert outbox.admit(outside) is None
    assert outbox.answer_to(outside) is None
    assert files(tmp_path) == []
    assert outbox.admit(plan(1)) is None
    with pytest.raises(CheckpointError):
        outbox.keep(outside, answer())


def test_disk_holds_the_open_round_alone(outbox, tmp_path):
    for number in range(1, 6):
        outbox.admit(plan(number, last=number - 1))
        outbox.keep(plan(number, last=number - 1), answer())
        (outbox.scratch(plan(number, last=number - 1)) / "secret").write_bytes(b"key")
    assert files(tmp_path) == ["closed.json", "secret", "update.answer", "update.plan"]


def test_studies_do_not_meet(outbox, tmp_path):
    outbox.admit(plan(5))
    other = Outbox(tmp_path / "outbox", "b" * 64)
    assert other.admit(plan(1, variant="c")) is None


def test_damaged_memory_is_an_error_and_not_forgotten(outbox, tmp_path):
    outbox.admit(plan(5))
    (next((tmp_path / "outbox").iterdir()) / "closed.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match="closed"):
        outbox.admit(plan(3))


def test_too_little_room_is_said_before_the_work(outbox, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SPARE_BYTES", 1000)
    free = module.shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: free)
    outbox.require_space(4000)
    with pytest.raises(CheckpointError, match="MB free"):
        outbox.require_space(4001)


def in_child(work):
    """Run work in a forked process; return whether it ended by itself."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_full_disk_leaves_no_half_answer_and_the_next_try_succeeds(outbox, tmp_path):
    outbox.admit(plan())

    def fill():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            outbox.keep(plan(), answer(1.0, size=5000))
        except OSError:
            return 7

    assert in_child(fill) == 7
    assert outbox.answer_to(plan()) is None
    assert files(tmp_path) == ["update.plan"]
    assert read(outbox.keep(plan(), answer(1.0, size=5000))).texts == {"header": "1.0"}


def killed_at(number, work):
    """Run work in a process that is gone at its n-th step to the disk; return whether it got through."""

    def run():
        left = [number]

        def dying(call):
            def step(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return call(*args, **kwargs)

            return step

        for name in ("fsync", "mkdir", "replace", "unlink", "rmdir", "open"):
            setattr(os, name, dying(getattr(os, name)))
        work()

    return in_child(run) == 0


def test_killed_at_every_step_to_the_disk_it_is_all_or_nothing(tmp_path):
    def work(outbox, value):
        assert outbox.admit(plan(2)) is None
        if outbox.answer_to(plan(2)) is None:
            outbox.keep(plan(2), answer(value))
        kept = outbox.answer_to(plan(2)).read_bytes()
        assert outbox.admit(plan(3)) is None
        return kept

    deaths = 0
    for number in range(60):
        folder = tmp_path / str(number)
        Outbox(folder, STUDY).admit(plan(1))
        through = killed_at(number, lambda folder=folder: work(Outbox(folder, STUDY), 1.0) and None)
        outbox = Outbox(folder, STUDY)
        answers = list(folder.rglob("update.answer"))
        if answers:
            assert read(answers[0]).texts == {"header": "1.0"}
            if outbox.admit(plan(2)) is None:
                assert read(outbox.answer_to(plan(2))).texts == {"header": "1.0"}
        if outbox.admit(plan(2)) is None:
            work(outbox, 2.0)
        assert outbox.admit(plan(2)) == "closed-round"
        assert list(folder.rglob("*unfinished")) == [] or not through
        deaths += not through
        if through:
            break
    assert through
    assert deaths > 8


class Exchange(RuleBasedStateMachine):
    """A coordinator that sends any plans in any order to a site that is restarted and interrupted."""

    def __init__(self):
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.outbox = Outbox(Path(self.place.name), STUDY)
        self.sent = {}
        self.order = []
        self.made = 0.0

    @rule()
    def restart(self):
        self.outbox = Outbox(Path(self.place.name), STUDY)

    @rule(
        number=st.integers(0, 4),
        attempt=st.integers(1, 3),
        variant=st.sampled_from("bc"),
        last=st.integers(0, 3),
        dies=st.booleans(),
    )
    def send(self, number, attempt, variant, last, dies):
        asked = plan(number, attempt, variant=variant, last=min(last, max(0, number - 1)))
        if self.outbox.admit(asked) is not None or number == 0:
            return
        path = self.outbox.answer_to(asked)
        if path is None and dies:
            self.restart()
            return
        self.made += 1
        path = path or self.outbox.keep(asked, answer(self.made))
        content = path.read_bytes()
        key = (number, attempt)
        assert key not in self.sent or max(self.order) == key[::-1]
        self.order.append(key[::-1])
        assert self.order == sorted(self.order)
        assert self.sent.setdefault(key, (asked.identity, content)) == (asked.identity, content)

    @invariant()
    def disk_holds_one_open_round_of_each_attempt(self):
        attempts = [folder.name[16:] for folder in Path(self.place.name).rglob("round-*")]
        assert len(set(attempts)) == len(attempts)

    def teardown(self):
        self.place.cleanup()


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
