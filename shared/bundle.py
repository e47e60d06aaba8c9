"""The Flower app bundle of this version of FedCAD: constant, without code, known to every site by its hash.

Flower ships the code of an app to every node with each run. FedCAD ships none: the bundle only names the two
components, which every site has installed itself. It is therefore the same bytes for every study and every
site of a version, and a site refuses all others by comparing one hash.

Why not Flower's own builder: it deflates the files, and what deflate yields depends on the zlib that Python
was built with (zlib-ng writes other bytes). Two hospitals of one version could then have two hashes. The
members are stored here instead, with every field of the archive fixed.
"""

import hashlib
import io
import zipfile
from functools import cache

from fedcad.shared.version import __version__

RUN_DIRECTORY_KEY = "run-directory"
"""The one key of the run's configuration: the coordinator's folder of the study. Sites never read it."""
SERVER_COMPONENT = "fedcad.server.app:app"
CLIENT_COMPONENT = "fedcad.client.app:app"
_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644 << 16


def _project_file(server_component: str, client_component: str) -> bytes:
    """Return the pyproject.toml of the bundle."""
    return (
        '[project]\nname = "fedcad"\n'
        f'version = "{__version__}"\n'
        'description = "Names the components that every site of a FedCAD consortium has installed."\n'
        'license = "Apache-2.0"\n'
        "\n[tool.flwr.app]\n"
        'publisher = "fedcad"\n'
        "\n[tool.flwr.app.components]\n"
        f'serverapp = "{server_component}"\nclientapp = "{client_component}"\n'
        f'\n[tool.flwr.app.config]\n{RUN_DIRECTORY_KEY} = ""\n'
    ).encode()


def pack(server_component: str, client_component: str) -> bytes:
    """Write a bundle that names two components and holds no code.

    Guarantees:
        The same names and version give the same bytes, on every machine.
    """
    project = _project_file(server_component, client_component)
    listing = f"pyproject.toml,{hashlib.sha256(project).hexdigest()},{len(project) * 8}".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (("pyproject.toml", project), (".info/CONTENT", listing)):
            member = zipfile.ZipInfo(name, _DATE)
            member.create_system, member.external_attr = _UNIX, _MODE
            archive.writestr(member, content)
    return buffer.getvalue()


@cache
def bundle() -> bytes:
    """Return the bundle of this version."""
    return pack(SERVER_COMPONENT, CLIENT_COMPONENT)


def hash_of_bundle(content: bytes) -> str:
    """Return a bundle's hash as Flower writes it: SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def bundle_hash() -> str:
    """Return the hash of the only bundle that this version's sites accept."""
    return hash_of_bundle(bundle())
