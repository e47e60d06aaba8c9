import hashlib
import io
import tomllib
import zipfile

from fedcad.shared.bundle import CLIENT_COMPONENT, SERVER_COMPONENT, bundle, bundle_hash, pack
from fedcad.shared.version import __version__


def test_the_bundle_holds_no_code_and_names_the_installed_components():
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        project = tomllib.loads(archive.read("pyproject.toml").decode())
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    assert project["project"]["version"] == __version__
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "fedcad.server.app:app",
        "clientapp": "fedcad.client.app:app",
    }
    assert project["tool"]["flwr"]["app"]["config"] == {"run-directory": ""}


def test_the_bundle_is_constant_and_its_hash_is_the_sha256_of_its_bytes():
    assert pack(SERVER_COMPONENT, CLIENT_COMPONENT) == bundle()
    assert bundle_hash() == hashlib.sha256(bundle()).hexdigest()
    assert pack(SERVER_COMPONENT, "other.app:app") != bundle()


def test_no_field_of_the_archive_depends_on_the_machine_or_the_time():
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        for member in archive.infolist():
            assert (member.date_time, member.create_system) == ((1980, 1, 1, 0, 0, 0), 3)
            assert (member.extra, member.comment, member.external_attr) == (b"", b"", 0o100644 << 16)


def test_flower_reads_installs_and_accepts_the_bundle(tmp_path):
    from flwr.cli.install import install_from_fab
    from flwr.common.config import get_fab_config, get_metadata_from_config, validate_config

    config = get_fab_config(bundle())
    assert get_metadata_from_config(config) == ("fedcad/fedcad", __version__)
    assert validate_config(config, check_module=False)[:2] == (True, [])
    folder = install_from_fab(bundle(), install_dir=tmp_path, skip_prompt=True)
    assert [path.name for path in folder.iterdir()] == ["pyproject.toml"]
