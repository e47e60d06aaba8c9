import json

import pytest
import tiny_study
from doctor_site import write_study

from fedcad.client.doctor.study_file import load_study_file
from fedcad.client.workbench import freeze
from fedcad.shared.errors import ConfigError


def test_study_contract_and_its_folder(tmp_path):
    study = tiny_study.make_study()
    assert load_study_file(write_study(tmp_path)).study == study
    contract = freeze(study)
    contract.save(tmp_path / "saved")
    (tmp_path / "sent.json").write_text(contract.terms.text())
    for path in (tmp_path / "saved", tmp_path / "saved" / "contract.json", tmp_path / "sent.json"):
        given = load_study_file(path)
        assert given.study == study
        assert given.terms.study_hash == contract.study_hash


def test_contract_of_another_version_says_which(tmp_path):
    plain = freeze(tiny_study.make_study()).terms.to_plain() | {"fedcad": "99.1"}
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(ConfigError, match=r"frozen with FedCAD 99\.1"):
        load_study_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b'{"fedcad": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_hostile_contract_is_refused(tmp_path, content):
    path = tmp_path / "contract.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_study_file(path)


def test_absent_files_are_refused(tmp_path):
    for name in ("study.yaml", "contract.json", "."):
        with pytest.raises(ConfigError):
            load_study_file(tmp_path / name)
