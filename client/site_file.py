"""Making a hospital node's folder with its commented site file."""

import json
from pathlib import Path

from pydantic import ValidationError

from fedcad.client.hospital import SITE_FILE, Hospital
from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.errors import ConfigError
from fedcad.shared.secret_files import PRIVATE_FOLDER

_EXPECTED = {
    "name": "expected 1 to 64 of a-z 0-9 . _ -, first a letter or digit",
    "proxy": "expected http://host:port, without a password",
}


def make_site(folder: Path, site: SiteConfig) -> Hospital:
    """Make a hospital node's folder, or add the site file to one.

    Args:
        folder: A folder without a site file; made if absent, for this account only.
        site: What the site file says.

    Raises:
        ConfigError: There is a site file already, or the folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: exists and is no folder; nothing was changed. Give another name")
    if (folder / SITE_FILE).exists():
        raise ConfigError(
            f"{folder / SITE_FILE} exists already; nothing was changed. Edit it, or give another folder"
        )
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"{folder.absolute().parent}: no such folder; make it first")
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    write_bytes(folder / SITE_FILE, site_text(site).encode())
    return Hospital.load(folder)


def make_site_config(values: dict[str, str]) -> SiteConfig:
    """Make a site's configuration of what a person typed.

    Raises:
        ConfigError: A value cannot be used.
    """
    try:
        return SiteConfig.model_validate(values)
    except ValidationError as error:
        wrong = [str(problem["loc"][0]) for problem in error.errors()]
        reasons = [
            f"{key}: got {values.get(key, '')[:100]!r}; {_EXPECTED.get(key, 'expected text')}"
            for key in wrong
        ]
        raise ConfigError("; ".join(reasons)) from error


def site_text(site: SiteConfig) -> str:
    """Return a commented site.yaml."""
    return f"""\
# The hospital's own file: nobody else reads it.
# Every key: fedcad schema site. Check the file: fedcad check {SITE_FILE}
# Paths are relative to this file.

# Name of the hospital in the consortium; it must be that of the enrolment.
name: {site.name}

# Folder of DICOM files, searched with all its folders; only ever read.
archive: {_quoted(site.archive)}

# Table of labels as the RIS exports it: CSV with the columns sop_instance_uid, patient_id and label.
labels: {_quoted(site.labels)}

# Folder for index, tensor cache and what the algorithms keep; made if absent. Needs room for the cache.
state: {_quoted(site.state)}

{_proxy_lines(site.proxy)}
# After so many seconds without work, models and caches are unloaded from memory.
worker_idle_s: {site.worker_idle_s:g}

# Seconds between checkpoints inside a round: what a killed node loses of its training, at most.
checkpoint_s: {site.checkpoint_s:g}

# How many threads training uses. With one, a repetition anywhere gives the same bits; more may be faster.
threads: {site.threads}

# Where training runs: cpu, or an NVIDIA GPU: cuda (the first), cuda:1 (the second) and so on.
device: {site.device}

# Largest message to or from the coordinator, in MB.
largest_payload_mb: {site.largest_payload_mb}
"""


def _proxy_lines(proxy: str | None) -> str:
    value = (
        f"proxy: {_quoted(proxy)}" if proxy is not None else '# proxy: "http://proxy.hospital.example:3128"'
    )
    return (
        '# Web proxy to the coordinator. Without this line the system\'s counts; "" means none at all.\n'
        f"{value}\n"
    )


def _quoted(text: str) -> str:
    """Return text in double quotes, which YAML reads as JSON does."""
    return json.dumps(text, ensure_ascii=False)
