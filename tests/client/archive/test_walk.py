"""Walking an archive and opening its files."""

import os

import pytest

from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.client.archive.walk import Found, open_read_only, walk_archive
from fedcad.shared.errors import ArchiveError


def test_files_with_size_and_time_and_links_with_a_reason(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"123")
    os.utime(tmp_path / "b" / "x", ns=(7, 7))
    (tmp_path / "link").symlink_to("b")
    os.mkfifo(tmp_path / "pipe")
    assert set(walk_archive(tmp_path)) == {Found("b/x", 3, 7), Found("link", -1, 0, Reason.SYMBOLIC_LINK)}


def test_the_archive_itself_may_be_a_link_but_must_be_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").touch()
    (tmp_path / "link").symlink_to("real")
    assert [found.path for found in walk_archive(tmp_path / "link")] == ["x"]
    with pytest.raises(ArchiveError, match="not a folder"):
        list(walk_archive(tmp_path / "real" / "x"))


def test_a_pipe_does_not_hang_the_site(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnusableFile, match="not a regular file"):
        open_read_only(tmp_path / "pipe")


def test_opening_gives_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"123")
    with open_read_only(tmp_path / "x") as stream:
        assert stream.read() == b"123" and not stream.writable()
