import pytest
import tiny_study

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


def test_progress_is_told(root):
    seen = []
    config = tiny_study.make_simulation(data={"kind": "phantom", "patients": 12, "size": 64})
    build_hospitals(config, data=None, root=root, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[1] == step[2]] == [(f"site-{n}", 4, 4) for n in (1, 2, 3)]


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
