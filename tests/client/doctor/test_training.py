import pytest
from doctor_site import listing, make_site, request_of, write_study
from tiny_study import make_study

from fedcad.client.archive.cache import cache_key
from fedcad.client.doctor import training
from fedcad.client.doctor.check import NotCheckable, Verdict
from fedcad.client.doctor.isolated import Outcome
from fedcad.client.doctor.study_file import load_study_file
from fedcad.client.doctor.training import Rehearsal, cache_bytes, judge_cases, judge_training

OK, WARNING, FAILED, SKIPPED = Verdict
EVEN = {"normal": 4, "opacity": 4, "nodule": 4}


def quiet(text):
    pass


def cases(train=EVEN, patients=20, left_out=()):
    return {
        "patients": patients,
        "parts": {"train": train, "validation": {"normal": 2}, "test": {}},
        "left_out": list(left_out),
    }


def test_cases_are_listed_by_part_and_label_with_the_reasons():
    left_out = [{"reason": "no_label", "count": 3, "sentence": "the image is not in the label table"}]
    finding = judge_cases(make_study(), cases(left_out=left_out))
    assert finding.verdict is OK
    assert "train: 12 cases (4 normal, 4 opacity, 4 nodule)" in finding.found
    assert "validation: 2 cases (2 normal, 0 opacity, 0 nodule)" in finding.found
    assert "3 because the image is not in the label table" in finding.found


def test_too_few_patients_say_what_the_study_takes():
    study = make_study(data={"minimum_patients": 21, "views": ["PA", "AP"]})
    finding = judge_cases(study, cases())
    assert finding.verdict is FAILED
    assert "needs 21" in finding.found
    assert "CR or DX, view PA or AP" in finding.remedy
    assert "normal, opacity, nodule" in finding.remedy
    assert judge_cases(make_study(), cases(train={})).verdict is FAILED


def test_absent_class_is_a_warning():
    finding = judge_cases(make_study(), cases(train={"normal": 4, "nodule": 1}))
    assert finding.verdict is WARNING
    assert "labelled opacity" in finding.remedy


def measured(step_s=1.0, steps=10, memory_bytes=2**20, device="cpu", device_bytes=0):
    return {
        "batch": 8,
        "decoding_s": 0.5,
        "step_s": step_s,
        "steps": steps,
        "evaluation_s": 5.0,
        "memory_bytes": memory_bytes,
        "device": device,
        "device_bytes": device_bytes,
        "parameters": 1234567,
    }


@pytest.mark.parametrize(("deadline_s", "verdict"), [(14, FAILED), (16, WARNING), (29, WARNING), (31, OK)])
def test_round_is_compared_with_the_deadline(deadline_s, verdict):
    study = make_study(participation={"deadline_s": deadline_s}, rounds=40)
    finding = judge_training(study, measured(), cases())
    # 10 steps of 1 s and 5 s of validation; 40 rounds of it: 600 s; 14 cases of 0.5 s to decode.
    assert "about 15 s for 10 steps" in finding.found
    assert "40 rounds: about 10 min" in finding.found
    assert "about 7.0 s to decode 14 images" in finding.found
    assert "1,234,567 parameters" in finding.found
    assert finding.verdict is verdict


def test_memory_of_a_gpu_is_named():
    on_gpu = judge_training(make_study(), measured(device="cuda:1", device_bytes=3 * 2**30), cases())
    assert "of memory, 3.0 GiB on cuda:1\n" in on_gpu.found
    assert "cpu" not in judge_training(make_study(), measured(), cases()).found


def test_memory_that_is_not_free_is_a_warning(monkeypatch):
    monkeypatch.setattr(training, "memory_bytes", lambda: (2**34, 2**30))
    assert judge_training(make_study(), measured(memory_bytes=2**31), cases()).verdict is WARNING
    assert judge_training(make_study(), measured(memory_bytes=2**29), cases()).verdict is OK


def test_room_for_images_is_what_the_cache_does_not_hold_yet(tmp_path):
    study = make_study(preprocessing={"size": 32})
    assert cache_bytes(study, 10, tmp_path) == 10 * 32 * 32 * 2
    folder = tmp_path / "tensors" / cache_key(study.preprocessing)
    folder.mkdir(parents=True)
    (folder / "pixels.int16").write_bytes(b"\0" * 6 * 32 * 32 * 2)
    assert cache_bytes(study, 10, tmp_path) == 4 * 32 * 32 * 2
    assert cache_bytes(study, 5, tmp_path) == 0


def rehearsal_of(folder):
    path = write_study(folder)
    return Rehearsal(load_study_file(path), request_of(folder))


def test_whole_rehearsal_in_a_process_of_its_own(tmp_path):
    make_site(tmp_path)
    rehearsal, told = rehearsal_of(tmp_path), []
    before = listing(tmp_path)
    findings = [rehearsal.cases(told.append), rehearsal.training(told.append)]
    assert [finding.verdict for finding in findings] == [OK, OK]
    assert told[0].startswith("reading headers")
    assert listing(tmp_path) == before
    assert "Secret" not in str((findings, told))


def test_site_that_cannot_take_part_is_one_problem(tmp_path):
    make_site(tmp_path, classes=("other",))
    rehearsal = rehearsal_of(tmp_path)
    cases_found = rehearsal.cases(quiet)
    assert cases_found.verdict is FAILED
    assert "20 because the label is none of the study's classes" in cases_found.found
    with pytest.raises(NotCheckable):
        rehearsal.training(quiet)


def test_reason_of_a_refusal_and_a_death_are_told(tmp_path):
    rehearsal = rehearsal_of(tmp_path)
    rehearsal._outcome = lambda: Outcome({}, refused="it is wrong; do this")
    assert rehearsal.cases(quiet).found == "it is wrong; do this"
    rehearsal._outcome = lambda: Outcome({"cases": cases()}, death="was killed by the system")
    assert rehearsal.cases(quiet).verdict is OK
    finding = rehearsal.training(quiet)
    assert finding.verdict is FAILED
    assert "the training process was killed by the system" in finding.found
    assert "memory" in finding.remedy
