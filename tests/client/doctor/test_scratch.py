import os
import stat
import subprocess
import sys

import pytest

from fedcad.client.doctor.scratch import scratch_folder


def test_folder_is_private_beside_the_state_and_gone_afterwards(tmp_path):
    with scratch_folder(tmp_path / "state" / "deep") as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "sub").mkdir()
        (folder / "sub" / "pixels").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []


def test_folder_goes_also_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_doctor_left_is_removed_and_a_living_ones_is_not(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from fedcad.client.doctor.scratch import scratch_folder\n"
        f"with scratch_folder(Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'pixels').write_bytes(b'1')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env=os.environ)
    (left,) = tmp_path.iterdir()
    with scratch_folder(tmp_path) as first:
        assert not left.exists()
        with scratch_folder(tmp_path) as second:
            assert first.exists()
            assert second != first
        assert first.exists()


def test_link_with_our_prefix_is_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    place = tmp_path / "state"
    place.mkdir()
    (place / ".fedcad-doctor-x").symlink_to(outside)
    with scratch_folder(place):
        pass
    assert (outside / "file").exists()
