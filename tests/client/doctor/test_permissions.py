import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.doctor.check import Verdict
from fedcad.client.doctor.permissions import folders, secrets, untouched, writable

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    for name in ("node.key", "signing.key"):
        (folder / name).touch(mode=0o600)
    return folder


def test_private_keys_are_ok_and_absent_ones_are_not(keys, tmp_path):
    assert secrets(keys).verdict is Verdict.OK
    absent = secrets(tmp_path / "none")
    assert absent.verdict is Verdict.FAILED
    assert "fedcad client request" in absent.remedy


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_remedy_for_an_open_key_works_when_it_is_run(keys, mode):
    (keys / "node.key").chmod(mode)
    finding = secrets(keys)
    assert finding.verdict is Verdict.FAILED
    assert "node.key" in finding.found
    assert "signing.key" not in finding.found
    command = finding.remedy.removeprefix("Run: ")
    subprocess.run(command, shell=True, check=True)
    assert secrets(keys).verdict is Verdict.OK


def test_open_folder_is_named_once(keys):
    keys.chmod(0o755)
    (keys / "node.key").chmod(0o644)
    assert secrets(keys).remedy == f"Run: chmod -R go-rwx {keys}"


def test_blanks_in_paths_are_quoted(tmp_path):
    place = tmp_path / "a folder"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    finding = folders([place, tmp_path / "absent"])
    assert finding.verdict is Verdict.FAILED
    subprocess.run(finding.remedy.removeprefix("Run: "), shell=True, check=True)
    assert folders([place]).verdict is Verdict.OK


@given(st.integers(0, 0o777))
def test_every_bit_of_others_counts(tmp_path_factory, mode):
    place = tmp_path_factory.mktemp("folder")
    place.chmod(mode)
    assert (folders([place]).verdict is Verdict.OK) == (mode % 0o100 == 0)
    place.chmod(0o700)


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files away")
def test_files_of_another_account_are_named(keys):
    os.chown(keys / "node.key", 65534, 65534)
    finding = secrets(keys)
    assert finding.verdict is Verdict.FAILED
    assert "another account" in finding.found


def test_state_is_written_to_and_left_as_it_was(tmp_path):
    state = tmp_path / "state"
    assert "can be made" in writable(state).found
    assert not state.exists()
    state.mkdir()
    assert writable(state).verdict is Verdict.OK
    assert list(state.iterdir()) == []
    (tmp_path / "file").touch()
    assert writable(tmp_path / "file").verdict is Verdict.FAILED


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_state_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    finding = writable(tmp_path / "state")
    tmp_path.chmod(0o700)
    assert finding.verdict is Verdict.FAILED
    assert "chown" in finding.remedy


def test_nothing_of_ours_lies_in_the_archive(tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    assert untouched(archive, [tmp_path / "state"]).verdict is Verdict.WARNING
    for place in (archive, archive / "state", tmp_path / "x" / ".." / "archive" / "deep"):
        finding = untouched(archive, [tmp_path / "state", place])
        assert finding.verdict is Verdict.FAILED
        assert "out of the archive" in finding.remedy


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_archive_that_this_account_cannot_change(tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir(mode=0o500)
    assert untouched(archive, []).verdict is Verdict.OK
