"""Names of emulated hospitals, made of whatever a data set calls its sources."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from fedcad.shared.errors import DataError

_LONGEST = 64
_RESERVED = frozenset({"union", "pooled"})
"""Names with a meaning of their own in results."""


def name_sites(raw_names: Iterable[str]) -> dict[str, str]:
    """Give every raw name a site name that matches ``^[a-z0-9][a-z0-9._-]{0,63}$``.

    A raw name that is a site name already is kept. Others are written in lower-case ASCII; where two would
    become the same, those that had to change get a suffix of 8 hexadecimal digits of their SHA-256, as do
    names that results use for something else (``union``, ``pooled``). So
    the result does not depend on the order, and a new source renames no other that was alone.

    Raises:
        DataError: Two names are still the same.
    """
    raw = sorted(set(raw_names))
    plain = {name: _slug(name) for name in raw}
    holders: dict[str, list[str]] = {}
    for name in raw:
        holders.setdefault(plain[name], []).append(name)
    named = {
        name: _with_digest(slug, name)
        if slug in _RESERVED or (len(holders[slug]) > 1 and slug != name)
        else slug
        for name, slug in plain.items()
    }
    if len(set(named.values())) < len(named):
        raise DataError("two sources get the same site name; rename one of them in the data set")
    return named


def _slug(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9._]+", "-", ascii_name).lstrip("._-")[:_LONGEST].rstrip("-") or "site"
    return name if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) else slug


def _with_digest(slug: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug[: _LONGEST - 9]}-{digest}"
