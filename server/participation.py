"""Who took part in a round and who did not, each with a reason. Nobody is dropped silently."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

LONGEST_REASON = 500


def shortened(reason: str) -> str:
    """Return a reason that a site gave, cut to a length that no log minds."""
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"


class Status(StrEnum):
    """What became of a site's part in a round."""

    COUNTED = "counted"
    """Its update is in the sum."""
    LATE = "late"
    """It had not answered by the deadline."""
    LOST = "lost"
    """It failed or its connection did."""
    REFUSED = "refused"
    """It declined, with a typed reason."""
    REJECTED = "rejected"
    """It answered with something that cannot be used."""


@dataclass(frozen=True)
class Participation:
    """One site's part in one round."""

    site: str
    status: Status
    reason: str = ""
    weight: int = 0
    delay_s: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)
