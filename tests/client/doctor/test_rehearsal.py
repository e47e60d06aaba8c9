"""A study tried for real, on real files, without a trace."""

import dataclasses
import sqlite3

import pytest
import torch
from doctor_site import Reports, listing, make_site, request_of, write_study
from tiny_study import make_study

from fedcad.client.archive.index import update_index
from fedcad.client.archive.site_data import open_archive
from fedcad.client.doctor.rehearsal import STEPS, peak_memory_bytes, rehearse, reuse_index, steps_of_round
from fedcad.client.workbench import freeze
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.errors import CheckpointError, ConfigError, DataError, DeviceMemoryError

SITE = SiteConfig(name="north", archive="archive", labels="labels.csv", state="state")


def rehearsed(folder, study=None):
    reports = Reports()
    rehearse(request_of(folder, study), reports)
    assert "Secret" not in str((reports.found, reports.told))
    return reports


def test_cases_are_those_that_the_study_gets_and_nothing_is_left(tmp_path):
    make_site(tmp_path)
    write_study(tmp_path)
    before = listing(tmp_path)
    found = rehearsed(tmp_path).found
    assert listing(tmp_path) == before
    data = open_archive(SITE, tmp_path, make_study())
    summary = data.summary()["parts"]
    assert found["cases"]["patients"] == 20
    assert found["cases"]["left_out"] == []
    for part in ("train", "validation", "test"):
        assert found["cases"]["parts"][part] == summary[part]["labels"]


def test_steps_are_timed_and_counted(tmp_path):
    make_site(tmp_path)
    write_study(tmp_path)
    reports = rehearsed(tmp_path)
    measured = reports.found["training"]
    assert f"training step {STEPS} of {STEPS}" in reports.told
    # 12 training cases in batches of 8: 2 steps.
    assert (measured["batch"], measured["steps"]) == (8, 2)
    assert measured["parameters"] == freeze(make_study()).layout.size
    assert measured["step_s"] > 0
    assert measured["memory_bytes"] > 50 * 2**20
    assert (measured["device"], measured["device_bytes"]) == ("cpu", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_that_is_not_there_is_refused_after_the_cases(tmp_path):
    make_site(tmp_path)
    write_study(tmp_path)
    before, reports = listing(tmp_path), Reports()
    with pytest.raises(ConfigError, match="set device: cpu"):
        rehearse(request_of(tmp_path, None) | {"device": "cuda"}, reports)
    assert set(reports.found) == {"cases"}
    assert listing(tmp_path) == before


def test_memory_of_a_gpu_that_does_not_suffice_is_told_with_what_to_do(tmp_path, monkeypatch):
    make_site(tmp_path)
    write_study(tmp_path)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", full)
    with pytest.raises(DeviceMemoryError, match=r"asked for 2.50 GiB more.*batch_size"):
        rehearsed(tmp_path)


@pytest.mark.parametrize(
    ("length", "expected"),
    [({"local_epochs": 3}, 3 * 3), ({"local_steps": 7}, 7), ({"local_epochs": 1}, 3)],
)
def test_steps_of_a_round(length, expected):
    plain = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "batch_size": 8} | length
    assert steps_of_round(make_study(training=plain), 17) == expected


@pytest.mark.parametrize("algorithm", ["fedavg", "fedbn", "scaffold"])
def test_algorithms_and_a_batch_larger_than_the_images(tmp_path, algorithm):
    make_site(tmp_path, patients=8)
    training = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "batch_size": 64, "local_epochs": 1}
    model = {"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch"}
    model |= {"norm": "group"} if algorithm == "scaffold" else {}
    write_study(tmp_path, training=training, algorithm={"name": algorithm}, model=model)
    assert rehearsed(tmp_path).found["training"]["batch"] <= 8


def test_a_contract_is_compared_with_what_is_built_here(tmp_path):
    make_site(tmp_path)
    contract = freeze(make_study())
    contract.save(tmp_path / "contract")
    assert "training" in rehearsed(tmp_path, tmp_path / "contract").found
    other = freeze(make_study(model={"name": "cnn", "convolutions": [{"features": 5}]}))
    wrong = dataclasses.replace(contract.terms, layout=other.layout)
    (tmp_path / "wrong.json").write_text(wrong.text())
    with pytest.raises(CheckpointError, match="differ"):
        rehearsed(tmp_path, tmp_path / "wrong.json")


def test_site_without_the_studys_labels_is_counted_and_not_trained(tmp_path):
    make_site(tmp_path, classes=("covid", "other"))
    write_study(tmp_path)
    found = rehearsed(tmp_path).found
    assert found["cases"]["patients"] == 0
    assert [(item["reason"], item["count"]) for item in found["cases"]["left_out"]] == [
        ("label_not_in_study", 20)
    ]
    assert "training" not in found


def test_undecodable_images_are_refused_and_the_scratch_goes(tmp_path, monkeypatch):
    make_site(tmp_path)
    write_study(tmp_path, preprocessing={"size": 32, "crop_top": 0.0})
    before = listing(tmp_path)
    monkeypatch.setattr("fedcad.client.archive.cache.preprocess", _unusable)
    with pytest.raises(DataError, match="decoding"):
        rehearsed(tmp_path)
    assert listing(tmp_path) == before


def _unusable(*_):
    from fedcad.client.archive.reasons import Reason, UnusableFile

    raise UnusableFile(Reason.EMPTY_IMAGE, "no row is left")


@pytest.mark.parametrize("busy", [False, True])
def test_index_of_the_node_is_used_and_not_touched(tmp_path, busy):
    make_site(tmp_path)
    (tmp_path / "state").mkdir()
    known, copy = tmp_path / "state" / "index.sqlite", tmp_path / "copy.sqlite"
    update_index(tmp_path / "archive", known)
    held = sqlite3.connect(known)
    if busy:
        held.execute("CREATE TABLE written_meanwhile (x)")
    else:
        held.close()
    before = [entry for entry in listing(tmp_path) if not entry[0].endswith("-shm")]
    reuse_index(known, copy)
    assert [e for e in listing(tmp_path) if not e[0].endswith("-shm") and "copy" not in e[0]] == before
    held.close()
    report = update_index(tmp_path / "archive", copy)
    assert (report.read, report.unchanged) == (0, 20)


def test_damaged_index_is_ignored(tmp_path):
    (tmp_path / "index.sqlite").write_bytes(b"nonsense")
    (tmp_path / "index.sqlite-wal").touch()
    reuse_index(tmp_path / "index.sqlite", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    reuse_index(tmp_path / "absent", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_memory_grows_with_what_is_used():
    before = peak_memory_bytes()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert peak_memory_bytes() >= held.numel()
    assert peak_memory_bytes() >= before
