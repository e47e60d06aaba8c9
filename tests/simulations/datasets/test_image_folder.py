import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcad.shared.config.simulation import ImageFolderData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.image_folder import ImageFolderDataSet

HEADER = "file,patient_id,site,label,view,note\n"
REAL = Path(__file__).parents[3] / ".." / "shared" / "data"


def _config(pattern: str = "*", exclude: tuple[str, ...] = ()) -> ImageFolderData:
    return ImageFolderData(kind="image-folder", pattern=pattern, exclude=exclude)


def _folder(root: Path, name: str, rows: str, images: dict[str, int]) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text(HEADER + rows, encoding="utf-8")
    for file, value in images.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5), value, dtype=np.uint8)).save(path)
    return folder


def test_records_carry_everything_the_table_and_the_file_say(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        "cxr_a",
        'images/1.png,p1,Seoul,normal,ap supine,"a, b"\nimages/2.jpg,p1,Seoul,nodule,,\n',
        {"images/1.png": 10, "images/2.jpg": 20},
    )
    first, second = ImageFolderDataSet(_config(), tmp_path).records()
    assert first.record_id == "cxr_a/images/1.png"
    assert first.content_id == hashlib.sha256((folder / "images/1.png").read_bytes()).hexdigest()
    assert (first.patient_id, first.label, first.folder) == ("cxr_a/p1", "normal", "cxr_a")
    assert first.columns == {"site": "Seoul", "view": "ap supine", "note": "a, b"}
    assert first.acquisition == {"view": "AP"}
    assert first.read_pixels().tolist() == np.full((4, 5), 10).tolist()
    assert second.acquisition["lossy_method"] == "ISO_10918_1"
    size = (folder / "images/2.jpg").stat().st_size
    assert float(second.acquisition["lossy_ratio"]) == pytest.approx(20 / size, abs=0.005)


def test_same_names_in_two_folders_are_two_patients_in_a_stable_order(tmp_path: Path) -> None:
    for name, value in (("b", 1), ("a", 2), ("deep/c", 3)):
        _folder(tmp_path, name, "1.png,p1,s,x,,\n", {"1.png": value})
    records = list(ImageFolderDataSet(_config(), tmp_path).records())
    assert [record.patient_id for record in records] == ["a/p1", "b/p1", "deep/c/p1"]


def test_pattern_exclusion_links_and_hidden_folders(tmp_path: Path) -> None:
    root = tmp_path / "data"
    _folder(root, "cxr_a", "1.png,p1,s,x,,\n", {"1.png": 1})
    _folder(root, "cxr_b", "1.png,p1,s,x,,\n", {"1.png": 2})
    _folder(root, ".cxr_hidden", "1.png,p1,s,x,,\n", {"1.png": 3})
    _folder(root, "other", "1.png,p1,s,x,,\n", {"1.png": 4})
    (root / "cxr_link").symlink_to(_folder(tmp_path, "elsewhere", "1.png,p1,s,x,,\n", {"1.png": 5}))
    (root / "cxr_loop").symlink_to(root)
    data_set = ImageFolderDataSet(_config("cxr_*", ("cxr_b",)), root)
    assert [record.folder for record in data_set.records()] == ["cxr_a", "cxr_link"]
    assert data_set.rejected == []


def test_the_root_itself_may_be_the_folder(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "cxr_a", "1.png,p1,s,x,,\n", {"1.png": 1})
    (record,) = ImageFolderDataSet(_config("cxr_*"), folder).records()
    assert record.record_id == "cxr_a/1.png"


def test_no_matching_folder_says_what_is_there(tmp_path: Path) -> None:
    _folder(tmp_path, "mri", "", {})
    with pytest.raises(DataError, match=r"no folder matches 'cxr_\*'.*folders with a labels.csv: mri"):
        list(ImageFolderDataSet(_config("cxr_*"), tmp_path).records())


def test_a_missing_column_is_fatal(tmp_path: Path) -> None:
    (_folder(tmp_path, "a", "", {}) / "labels.csv").write_text("file,patient_id,label\n")
    with pytest.raises(
        DataError, match=r"a/labels\.csv: lacks the column site; there is: file, patient_id, label"
    ):
        list(ImageFolderDataSet(_config(), tmp_path).records())


def test_bad_files_are_rejected_with_reasons_and_nothing_else_is_lost(tmp_path: Path) -> None:
    rows = (
        "good.png,p1,s,x,,\nabsent.png,p1,s,x,,\ngood2.png,,s,x,,\n../b.png,p,s,x,,\n/etc/passwd,p,s,x,,\n"
        "cut.png,p2,s,x,,\ntext.png,p2,s,x,,\ntwin.png,p3,s,x,,\ngood.png,p1,s,x,,\nlast.png,p4,s,y,,\n"
    )
    values = {"good.png": 1, "good2.png": 2, "cut.png": 3, "twin.png": 1, "last.png": 5}
    folder = _folder(tmp_path, "a", rows, values)
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-20])
    (folder / "text.png").write_text("not an image")
    data_set = ImageFolderDataSet(_config(), tmp_path)
    assert [record.record_id for record in data_set.records()] == ["a/good.png", "a/last.png"]
    reasons = {bad.file: bad.reason for bad in data_set.rejected}
    assert len(data_set.rejected) == 8
    assert "no such file" in reasons["a/absent.png"]
    assert "patient_id is empty" in reasons["a/good2.png"]
    assert "leads out" in reasons["a/../b.png"]
    assert "absolute" in reasons["a//etc/passwd"]
    assert "truncated" in reasons["a/cut.png"]
    assert "not a PNG" in reasons["a/text.png"]
    assert reasons["a/twin.png"] == "the same bytes as a/good.png"
    assert "listed already in line 2" in reasons["a/good.png"]
    assert list(data_set.records()), "a second pass gives the same"
    assert len(data_set.rejected) == 8


def test_images_that_no_table_names_are_reported(tmp_path: Path) -> None:
    rows = "images/1.png,p1,s,x,,\nimages/./2.png,,s,x,,\nlink.png,p3,s,x,,\n"
    values = {
        name: value for value, name in enumerate(("images/1.png", "images/2.png", "3.png", "new/4.PNG"))
    }
    folder = _folder(tmp_path / "data", "cxr_a", rows, values)
    (folder / "link.png").symlink_to(folder / "3.png")
    (folder / ".thumb.png").write_bytes(b"x")
    (folder / "LICENSE.txt").write_text("x")
    bare = _folder(tmp_path / "data", "cxr_bare", "", {"deep/1.png": 9})
    (bare / "labels.csv").unlink()
    (tmp_path / "data" / "cxr_empty").mkdir()
    data_set = ImageFolderDataSet(_config("cxr_*"), tmp_path / "data")
    assert [record.record_id for record in data_set.records()] == ["cxr_a/images/1.png", "cxr_a/3.png"]
    assert {bad.file: bad.reason for bad in data_set.rejected} == {
        "cxr_a/images/./2.png": "line 3: the column patient_id is empty",
        "cxr_a/new/4.PNG": "no row of labels.csv names it",
        "cxr_bare": "a folder with images, but without a labels.csv",
    }


def test_acquisition_columns_are_checked(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "a", "", {"1.png": 1, "2.png": 2})
    (folder / "labels.csv").write_text(
        "file,patient_id,site,label,modality,vendor,pixel_spacing_mm\n"
        "1.png,p,s,x,DX,Acme,0.2\n2.png,p,s,x,MR,Acme,0.2\n"
    )
    data_set = ImageFolderDataSet(_config(), tmp_path)
    (record,) = data_set.records()
    assert record.acquisition == {"modality": "DX", "vendor": "Acme", "pixel_spacing_mm": "0.2"}
    assert data_set.rejected[0].reason == "modality is 'MR'; expected one of CR, DX"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "images", "patients", "labels"),
    [
        ("cxr_cohen", 101, 60, {"covid19", "normal", "pneumonia"}),
        ("cxr_guangzhou", 1200, 1103, {"normal", "pneumonia"}),
        ("cxr_hannover", 132, 34, {"covid19"}),
        ("cxr_nih", 480, 327, {"normal", "pneumonia"}),
    ],
)
def test_real_images_are_read_without_a_reject(
    folder: str, images: int, patients: int, labels: set[str]
) -> None:
    if not (REAL / folder).is_dir():
        pytest.skip(f"the public images {folder} are not beside the repository")
    data_set = ImageFolderDataSet(_config(folder), REAL)
    records = list(data_set.records())
    assert (len(records), data_set.rejected) == (images, [])
    assert len({record.patient_id for record in records}) == patients
    assert {record.label for record in records} == labels
    for record in records[:: max(1, images // 20)]:
        pixels = record.read_pixels()
        assert pixels.dtype == np.uint8
        assert min(pixels.shape) >= 100
        assert np.ptp(pixels) > 50
