"""One call from a hospital's files to parts and tensors."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from dicom_factory import uid, write, write_labels, xray

from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.preprocessing import preprocess
from fedcad.client.archive.site_data import open_archive
from fedcad.client.archive.splits import PARTS
from fedcad.client.node import Node
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import ArchiveError, DataError

SITE = SiteConfig(name="north", archive="archive", labels="labels.csv", state="state")


def make_study(**data: object) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "test",
            "task": {"kind": "classification", "classes": ["normal", "covid"]},
            "data": data,
            "preprocessing": {"size": 16},
            "model": {"name": "logistic-regression"},
            "training": {
                "optimizer": {"name": "sgd", "learning_rate": 0.1},
                "batch_size": 4,
                "local_epochs": 1,
            },
            "algorithm": {"name": "fedavg"},
            "rounds": 1,
        }
    )


def make_site(folder: Path, patients: int, *, per_patient: int = 2) -> list[tuple[str, str, str]]:
    rows = []
    for number in range(patients * per_patient):
        patient = number // per_patient
        pixels = np.random.default_rng(number).integers(0, 4096, (24, 20)).astype(np.uint16)
        image = xray(pixels, number=number, PatientID=f"Secret{patient}", WindowCenter=2048, WindowWidth=4096)
        write(folder / "archive" / f"{number}.dcm", image)
        rows.append((uid(number), f"Secret{patient}", ("normal", "covid")[patient % 2]))
    write_labels(folder / "labels.csv", rows)
    return rows


def test_parts_inputs_labels_and_patients_belong_together(tmp_path):
    make_site(tmp_path, 10)
    seen: list[tuple[str, int, int]] = []
    data = open_archive(SITE, tmp_path, make_study(), progress=lambda *call: seen.append(call))
    assert seen == [("index", 20, 20), ("decode", 20, 20)]
    assert [len(data.cases(part)) for part in PARTS] == [12, 4, 4]
    owners = [set(data.patients(part).tolist()) for part in PARTS]
    assert set().union(*owners) == set(range(10)) and sum(map(len, owners)) == 10
    for part in PARTS:
        cases = data.cases(part)
        assert data.labels(part) == [case.label for case in cases]
        inputs = data.inputs(part, [len(cases) - 1, 0])["image"]
        assert inputs.shape == (2, 1, 16, 16)
        for image, case in zip(inputs, (cases[-1], cases[0]), strict=True):
            wanted = preprocess(read_display_pixels(case.path), make_study().preprocessing) / np.float32(
                32767
            )
            np.testing.assert_allclose(image[0].numpy(), wanted, atol=1e-7)


def test_a_second_opening_gives_the_same_and_decodes_nothing(tmp_path):
    make_site(tmp_path, 4)
    first = open_archive(SITE, tmp_path, make_study())
    seen: list[tuple[str, int, int]] = []
    second = open_archive(SITE, tmp_path, make_study(), progress=lambda *call: seen.append(call))
    assert seen == []
    assert all(first.cases(part) == second.cases(part) for part in PARTS)


def test_the_summary_counts_and_names_nobody(tmp_path):
    rows = make_site(tmp_path, 5)
    (tmp_path / "archive" / "letter.txt").write_text("Dear Secret3")
    damaged = tmp_path / "archive" / "9.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    write_labels(tmp_path / "labels.csv", [*rows[1:], ("2.25.77", "Secret9", "normal")])
    summary = open_archive(SITE, tmp_path, make_study()).summary()
    assert {part: counts["patients"] for part, counts in summary["parts"].items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }
    assert sum(counts["cases"] for counts in summary["parts"].values()) == 8
    assert summary["vendors"] == {"other": 8} and summary["views"] == {"PA": 8}
    assert summary["rejects"] == {"unknown_instance": 2, "no_label": 1, "not_dicom": 1, "truncated": 1}
    text = json.dumps(summary)
    assert "Secret" not in text and "2.25" not in text


def test_text_typed_into_a_header_does_not_leave_the_site(tmp_path):
    rows = [(uid(number), f"Secret{number}", "normal") for number in range(4)]
    typed = [("SIEMENS", "AP"), ("Doe^Jane", "DOE JANE"), ("", ""), ("Secret3", "PA SECRET3")]
    for number, (manufacturer, view) in enumerate(typed):
        image = xray(np.arange(48, dtype=np.uint16).reshape(8, 6), number=number, PatientID=f"Secret{number}")
        image.Manufacturer, image.ViewPosition = manufacturer, view
        write(tmp_path / "archive" / f"{number}.dcm", image)
    write_labels(tmp_path / "labels.csv", rows)
    data = open_archive(SITE, tmp_path, make_study())
    bench = Workbench(freeze(tiny_study.make_study()))
    info = Node("north", data, bench, state=tmp_path / "state").info()
    summary = json.loads(info.summary)
    assert summary["vendors"] == {"Siemens": 1, "other": 2, "unknown": 1}
    assert summary["views"] == {"AP": 1, "other": 2, "unknown": 1}
    assert not any(part in info.summary.upper() for part in ("DOE", "JANE", "SECRET"))


def test_one_patient_trains_and_an_external_site_only_tests(tmp_path):
    make_site(tmp_path, 1)
    data = open_archive(SITE, tmp_path, make_study())
    assert [len(data.cases(part)) for part in PARTS] == [2, 0, 0]
    assert data.inputs("test", [])["image"].shape == (0, 1, 16, 16)
    external = open_archive(SITE, tmp_path, make_study(), external=True)
    assert [len(external.cases(part)) for part in PARTS] == [0, 0, 2]


def test_too_few_usable_patients_are_refused_by_name(tmp_path):
    make_site(tmp_path, 3)
    with pytest.raises(DataError, match="site north has 3 usable patients; the study needs 4"):
        open_archive(SITE, tmp_path, make_study(minimum_patients=4))
    with pytest.raises(DataError, match="6 other_view"):
        open_archive(SITE, tmp_path, make_study(views=["LL"]))


def test_state_inside_the_archive_is_refused_before_anything_is_written(tmp_path):
    make_site(tmp_path, 1)
    before = sorted(tmp_path.rglob("*"))
    inside = SITE.model_copy(update={"state": "archive/state"})
    with pytest.raises(ArchiveError, match="inside the archive"):
        open_archive(inside, tmp_path, make_study())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_archive_or_table_is_refused(tmp_path):
    make_site(tmp_path, 1)
    with pytest.raises(ArchiveError, match="not a folder"):
        open_archive(SITE.model_copy(update={"archive": "nowhere"}), tmp_path, make_study())
    with pytest.raises(DataError, match="cannot be read"):
        open_archive(SITE.model_copy(update={"labels": "nowhere.csv"}), tmp_path, make_study())
