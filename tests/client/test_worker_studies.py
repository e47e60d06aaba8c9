"""A site's studies on a real archive with real keys: who is believed, what is answered, what is kept."""

from datetime import UTC, datetime, timedelta

import joined_site
import numpy as np
import pytest
import torch

from fedcad.client import worker_studies
from fedcad.client.round_checkpoint import StopRequested
from fedcad.client.workbench import Workbench
from fedcad.client.worker_protocol import WorkerMessage, read_frame
from fedcad.client.worker_studies import Interruption, Keys, Studies
from fedcad.shared.errors import CheckpointError, ConfigError, DeviceMemoryError, ProtocolError
from fedcad.shared.messages import Refusal, SiteInfo, Update
from fedcad.shared.signing import SigningKey

UNDISTURBED = Interruption()
STEPS_OF_TWO = {"optimizer": {"name": "adam", "learning_rate": 0.01}, "batch_size": 2, "local_steps": 4}


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    return joined_site.join_site(tmp_path_factory.mktemp("joined"))


@pytest.fixture(scope="module")
def contract():
    return joined_site.make_contract()


@pytest.fixture
def coordinator(joined):
    return joined[1]


@pytest.fixture
def place(joined, tmp_path):
    """Archive and caches of the module, with a state of its own for what rounds leave."""
    state = joined[0].state
    state.mkdir(exist_ok=True)
    for name in ("studies", "outbox", "algorithm"):
        if (state / name).exists():
            (state / name).rename(tmp_path / name)
    return state


@pytest.fixture
def make(joined, place):
    hospital, coordinator = joined

    def make(interruption=UNDISTURBED, now=lambda: datetime.now(UTC)):
        keys = Keys(hospital.signing_key(), coordinator.key.public)
        return Studies(hospital.site, hospital.folder, keys, interruption=interruption, now=now)

    return make


def read(answer):
    if isinstance(answer, WorkerMessage):
        return answer
    with answer.open("rb") as stream:
        return read_frame(stream.readinto)


def code(coordinator, studies, message):
    answer = coordinator.update(read(studies.answer(message)))
    assert isinstance(answer, Refusal)
    assert answer.site == coordinator.site
    return answer.code


def test_ready_and_a_round_and_the_last_validation(make, coordinator, contract, place):
    studies = make()
    info = coordinator.info(studies.answer(coordinator.ready(contract)))
    assert isinstance(info, SiteInfo)
    assert sum(info.cases.values()) == 24
    asked = coordinator.train(contract)
    kept = studies.answer(asked)
    update = coordinator.update(read(kept))
    assert isinstance(update, Update)
    assert set(update.vectors) == {"model"}
    assert np.abs(update.vectors["model"]).max() > 0
    assert not list(kept.parent.glob("*.training"))
    content = kept.read_bytes()
    assert studies.answer(asked).read_bytes() == content
    assert make().answer(asked).read_bytes() == content
    last = studies.answer(coordinator.train(contract, round=0, work=("validate",), last_counted_round=1))
    assert isinstance(last, WorkerMessage)
    assert coordinator.update(last).vectors == {}
    assert not kept.exists()
    assert code(coordinator, studies, asked) == "closed-round"


def test_another_process_needs_no_new_contract(make, coordinator, contract):
    make().answer(coordinator.ready(contract))
    assert isinstance(coordinator.update(read(make().answer(coordinator.train(contract)))), Update)


def test_what_the_coordinator_did_not_sign_is_refused_before_data_are_touched(
    make, coordinator, contract, monkeypatch
):
    studies, other = make(), SigningKey.generate()
    studies.answer(coordinator.ready(contract))
    studies = make()
    monkeypatch.setattr(worker_studies, "open_archive", lambda *_: pytest.fail("touched"))
    assert coordinator.info(studies.answer(coordinator.ready(contract, key=other))).code == "not-trusted"
    assert code(coordinator, studies, coordinator.train(contract, key=other)) == "not-trusted"
    asked = coordinator.train(contract)
    changed = dict(asked.texts) | {"plan": asked.texts["plan"].replace('"round":1', '"round":2')}
    assert code(coordinator, studies, WorkerMessage("train", changed, asked.arrays)) == "not-trusted"
    unsigned = WorkerMessage("train", {"plan": asked.texts["plan"]}, asked.arrays)
    assert code(coordinator, studies, unsigned) == "not-trusted"
    added = WorkerMessage("train", dict(asked.texts) | {"more": "x"}, asked.arrays)
    assert code(coordinator, studies, added) == "not-trusted"


def test_a_signed_seal_of_another_key_or_an_ended_contract_is_refused(make, coordinator, contract):
    ended = coordinator.info(make().answer(coordinator.ready(contract, days=-0.5)))
    assert ended.code == "not-trusted"
    studies = make()
    studies.answer(coordinator.ready(contract, days=1))
    later = make(now=lambda: datetime.now(UTC) + timedelta(days=2))
    assert code(coordinator, later, coordinator.train(contract)) == "not-trusted"


def test_plans_of_other_sites_and_unknown_studies_are_refused(make, coordinator, contract):
    studies = make()
    assert code(coordinator, studies, coordinator.train(contract)) == "wrong-study"
    studies.answer(coordinator.ready(contract))
    assert code(coordinator, studies, coordinator.train(contract, site="other")) == "wrong-site"
    assert code(coordinator, studies, coordinator.train(contract, study_hash="f" * 64)) == "wrong-study"
    assert isinstance(coordinator.update(read(studies.answer(coordinator.train(contract)))), Update)


def test_changed_arrays_are_refused_and_the_honest_plan_is_answered_afterwards(make, coordinator, contract):
    studies = make()
    studies.answer(coordinator.ready(contract))
    asked = coordinator.train(contract)
    changed = {"vectors": {"model": contract.initial.numpy() + np.float32(1e-3)}}
    assert code(coordinator, studies, WorkerMessage("train", asked.texts, changed)) == "wrong-broadcast"
    assert isinstance(coordinator.update(read(studies.answer(asked))), Update)


def test_attempts(make, coordinator, contract):
    studies = make()
    studies.answer(coordinator.ready(contract))
    first, second = coordinator.train(contract), coordinator.train(contract, attempt=2)
    other = coordinator.train(contract, work=("train",))
    answers = [coordinator.update(read(studies.answer(asked))) for asked in (first, second)]
    assert np.array_equal(*(each.vectors["model"] for each in answers))
    assert code(coordinator, studies, other) == "closed-round"
    assert code(coordinator, studies, coordinator.train(contract, attempt=2, work=("train",))) == "other-plan"
    assert code(coordinator, studies, first) == "closed-round"


def test_half_precision_travels_both_ways(make, coordinator):
    contract = joined_site.make_contract(name="half", exchange={"precision": "float16"})
    studies = make()
    studies.answer(coordinator.ready(contract))
    half = contract.initial.numpy().astype(np.float16)
    message = read(studies.answer(coordinator.train(contract, vectors={"model": half})))
    assert message.arrays["vectors"]["model"].dtype == np.float16
    assert isinstance(coordinator.update(message), Update)


@pytest.mark.parametrize(
    "message",
    [
        WorkerMessage("other"),
        WorkerMessage("train"),
        WorkerMessage("train", {"plan": "{}"}),
        WorkerMessage("train", {"plan": "x" * 2_000_000}),
    ],
)
def test_no_messages(make, message):
    with pytest.raises(ProtocolError):
        make().answer(message)


def test_plan_without_its_arrays(make, coordinator, contract):
    studies = make()
    studies.answer(coordinator.ready(contract))
    for arrays in ({}, {"vectors": {"model": np.zeros(3, np.int64)}}):
        with pytest.raises(ProtocolError):
            studies.answer(WorkerMessage("train", coordinator.train(contract).texts, arrays))


def test_stopped_at_every_step_it_goes_on_to_the_same_answer(make, coordinator, place):
    contract = joined_site.make_contract(name="stopped", training=STEPS_OF_TWO)
    undisturbed = make()
    undisturbed.answer(coordinator.ready(contract))
    asked = coordinator.train(contract)
    kept = undisturbed.answer(asked)
    expected = kept.read_bytes()
    kept.unlink()
    stops = 0
    while True:
        studies = make(Interruption(is_stopping=lambda: True))
        try:
            assert studies.answer(asked).read_bytes() == expected
            break
        except StopRequested:
            stops += 1
            assert len(list(kept.parent.glob("*.training"))) == 1
    assert stops == 4
    assert not list(kept.parent.glob("*.training"))


def test_at_most_two_studies_are_warm(make, coordinator, monkeypatch):
    opened, real = [], worker_studies.open_archive
    monkeypatch.setattr(worker_studies, "open_archive", lambda *a: (opened.append(a[2].name), real(*a))[1])
    contracts = {name: joined_site.make_contract(name=name) for name in "abc"}
    studies = make()
    for name in "abacb":
        studies.answer(coordinator.ready(contracts[name]))
    assert opened == ["a", "b", "c", "b"]


def test_full_disk_is_said_before_training(make, coordinator, contract, monkeypatch):
    studies = make()
    studies.answer(coordinator.ready(contract))
    monkeypatch.setattr("fedcad.client.outbox.SPARE_BYTES", 2**60)
    monkeypatch.setattr(worker_studies.Node, "answer", lambda *_: pytest.fail("began"))
    with pytest.raises(CheckpointError, match="MB free"):
        studies.answer(coordinator.train(contract))


def test_memory_of_a_gpu_that_does_not_suffice_is_told_and_the_next_message_builds_anew(
    make, coordinator, contract, monkeypatch
):
    studies, asked = make(), coordinator.train(contract)
    studies.answer(coordinator.ready(contract))
    opened = []
    real = Workbench.__init__

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of")

    def counted(bench, terms, **more):
        opened.append(more)
        real(bench, terms, **more)

    monkeypatch.setattr(Workbench, "__init__", counted)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", full)
        with pytest.raises(DeviceMemoryError, match=r"asked for 2.00 GiB more.*smaller training.batch_size"):
            studies.answer(asked)
    assert opened == []
    assert isinstance(coordinator.update(read(studies.answer(asked))), Update)
    assert opened == [{"device": torch.device("cpu")}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_of_the_site_that_is_not_there_is_refused_at_the_start(joined):
    hospital, coordinator = joined
    keys = Keys(hospital.signing_key(), coordinator.key.public)
    site = hospital.site.model_copy(update={"device": "cuda:1"})
    with pytest.raises(ConfigError, match=r"site.yaml: device: got cuda:1; .*set device: cpu"):
        Studies(site, hospital.folder, keys, interruption=UNDISTURBED)
