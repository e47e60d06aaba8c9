import shutil

import pytest
import tiny_study
from PIL import Image

from fedcad.shared.errors import DataError
from fedcad.simulations.hospitals import build_hospitals


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("archives")


def build(root, **changes):
    data = {"kind": "phantom", "patients": 12, "size": 64}
    return build_hospitals(tiny_study.make_simulation(data=data, **changes), data=None, root=root)


def test_each_site_has_a_real_archive(root):
    hospitals = build(root)
    assert list(hospitals.archives) == ["site-1", "site-2", "site-3"]
    for archive in hospitals.archives.values():
        assert archive.records == 4
        assert len(list((archive.folder / "dicom").rglob("*.dcm"))) == 4
        assert archive.site_file.is_file()
    assert hospitals.excluded == ()
    assert hospitals.notes == ()


def test_archives_are_reused(root):
    first = build(root)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.dcm")}
    assert build(root) == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.dcm")} == stamps


def told(root, **changes):
    seen = []
    config = tiny_study.make_simulation(data={"kind": "phantom", "patients": 12, "size": 64}, **changes)
    build_hospitals(config, data=None, root=root, progress=lambda *step: seen.append(step))
    return seen


def test_progress_is_one_count_over_all_sites(tmp_path):
    seen = told(tmp_path)
    assert seen[:3] == [("reading the data set", done, None, "") for done in (0, 1, 2)]
    assert ("reading the data set", 12, 12, "") in seen
    written = [step for step in seen if step[0] == "writing hospitals' DICOM archives"]
    assert [done for _, done, _, _ in written] == sorted(done for _, done, _, _ in written)
    assert written[0][1:] == (0, 12, "site-1")
    assert written[-1][1:] == (12, 12, "site-3")
    assert not any("reusing" in step[0] for step in seen)


def test_reused_archives_are_one_step(tmp_path):
    told(tmp_path)
    assert [step for step in told(tmp_path) if "reading" not in step[0]] == [
        ("reusing hospitals' DICOM archives", 12, 12, "")
    ]


def write_folder(folder, rows):
    (folder / "images").mkdir(parents=True)
    for number in range(8):
        Image.new("L", (64, 64), number * 20).save(folder / "images" / f"{number}.png")
    (folder / "labels.csv").write_text("file,patient_id,site,label\n" + "".join(f"{row}\n" for row in rows))


def build_folder(root, data):
    partition = {"kind": "iid", "sites": 2}
    config = tiny_study.make_simulation(data={"kind": "image-folder"}, partition=partition)
    return build_hospitals(config, data=data, root=root)


def test_everything_left_out_is_listed_and_summed_up_by_reason(root, tmp_path):
    rows = [f"images/{number}.png,p{number},a,normal" for number in range(6)]
    write_folder(
        tmp_path / "cxr", [*rows, "no.png,p8,a,normal", "none.png,p9,a,normal", "images/7.png,p7,a,"]
    )
    hospitals = build_folder(root, tmp_path)
    assert sorted(bad.file for bad in hospitals.rejected) == [
        "cxr/images/6.png",
        "cxr/images/7.png",
        "cxr/no.png",
        "cxr/none.png",
    ]
    assert hospitals.notes == (
        "4 entries of the data set were left out (2 because: there is no such file; 1 because: the column "
        "label is empty; 1 because: no row of labels.csv names it); the first: cxr/no.png",
    )


def test_a_data_set_without_a_usable_record_says_why(root, tmp_path):
    write_folder(tmp_path / "cxr", ["none.png,p1,a,normal"])
    shutil.rmtree(tmp_path / "cxr" / "images")
    with pytest.raises(DataError, match=r"no usable record: 1 entry .*was.*no such file.*Check --data"):
        build_folder(root, tmp_path)
    (tmp_path / "cxr" / "labels.csv").write_text("file,patient_id,site,label\n")
    with pytest.raises(DataError, match="no usable record: its label tables have no rows"):
        build_folder(root, tmp_path)


def test_small_sites_are_named(root):
    hospitals = build(root, partition={"kind": "quantity", "sites": 3, "ratio": 0.2}, minimum_patients=3)
    assert hospitals.excluded
    assert all("minimum_patients" in reason for _, reason in hospitals.excluded)
    assert not set(hospitals.archives) & {name for name, _ in hospitals.excluded}


@pytest.mark.parametrize(
    "changes",
    [
        {"external_sites": ["site-9"]},
        {"faults": [{"kind": "drop", "site": "site-9", "rounds": [1]}]},
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(root, changes):
    with pytest.raises(DataError, match=r"site-9.*site-1, site-2, site-3"):
        build(root, **changes)


def test_no_site_left_is_refused(root):
    with pytest.raises(DataError, match="minimum_patients"):
        build(root, minimum_patients=100)


def test_archives_that_cannot_be_written_are_an_error_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.*cannot be written \(.*--archives"):
        build(tmp_path / "file")
