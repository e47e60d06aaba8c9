import os
import stat
from pathlib import Path

import pytest

from fedcad.shared.errors import IdentityError
from fedcad.shared.secret_files import (
    LARGEST_SECRET_BYTES,
    make_private_folder,
    read_secret,
    write_secret,
    write_secretly,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_a_secret_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_secret(tmp_path / "key", b"secret")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "key") == 0o600
    assert read_secret(tmp_path / "key", "a key") == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_secret_is_private_while_it_is_written(tmp_path: Path) -> None:
    seen: list[int] = []
    before = os.umask(0)
    try:
        write_secretly(tmp_path / "key", lambda _: seen.extend(mode_of(path) for path in tmp_path.iterdir()))
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_secret_is_never_overwritten(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"first")
    with pytest.raises(IdentityError, match="never overwritten"):
        write_secret(tmp_path / "key", b"second")
    assert read_secret(tmp_path / "key", "a key") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(stream: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_secretly(tmp_path / "key", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_loose_permissions_are_refused(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path / "key", b"secret")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}.*chmod 600") as caught:
        read_secret(tmp_path / "key", "the signing key")
    assert "secret" not in str(caught.value).replace("key", "")


def test_only_a_plain_file_of_a_sensible_size_is_read(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot be read"):
        read_secret(tmp_path / "absent", "a key")
    with pytest.raises(IdentityError, match="plain file"):
        read_secret(tmp_path, "a key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(IdentityError, match="plain file"):
        read_secret(tmp_path / "pipe", "a key")
    write_secret(tmp_path / "large", bytes(LARGEST_SECRET_BYTES + 1))
    with pytest.raises(IdentityError, match="larger than"):
        read_secret(tmp_path / "large", "a key")


def test_a_private_folder_is_private_also_where_it_was_not(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    make_private_folder(tmp_path / "keys")
    make_private_folder(tmp_path / "new" / "inner")
    assert mode_of(tmp_path / "keys") == mode_of(tmp_path / "new" / "inner") == 0o700
