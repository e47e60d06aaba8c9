"""How the rounds reach the sites: a small protocol, so that they know nothing of Flower."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from fedcad.shared.messages import Refusal, RoundPlan, SiteInfo, Update, Vectors

FIRST_READY_S = 3600.0
"""How long sites may take to become ready in the beginning: a first index of an archive takes long."""


@dataclass(frozen=True)
class Lost:
    """A site that gave no usable answer.

    Attributes:
        reason: What is known, without anything about a patient.
        is_late: True where the deadline passed.
        is_garbage: True where it answered with something that breaks the protocol.
    """

    reason: str
    is_late: bool = False
    is_garbage: bool = False


@dataclass(frozen=True)
class Reply:
    """What came back from one site.

    Attributes:
        site: Name of the site that was asked.
        answer: Its update or refusal, or why there is none. An update's arrays are only valid until the
            next reply is asked for: copy what must stay.
        delay_s: Seconds after the question, on the channel's clock.
        sent_bytes: Size of the vectors that went out to it.
        received_bytes: Size of the arrays that came back.
    """

    site: str
    answer: Update | Refusal | Lost
    delay_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0


class Channel(Protocol):
    """Connection to the enrolled sites."""

    def enrolled(self) -> frozenset[str]:
        """Return the names of all sites that are enrolled now."""
        ...

    def ready(
        self, sites: Collection[str] | None = None, *, deadline_s: float = FIRST_READY_S
    ) -> Mapping[str, SiteInfo | Lost]:
        """Ask enrolled sites whether they are ready for the study, and learn how to reach them.

        Args:
            sites: Names of those to ask; the connection to others stays as it is. None asks all.
            deadline_s: How long to wait for answers, in seconds; not on a virtual clock.

        Returns:
            For each enrolled site that was asked, its answer or why there is none.
        """
        ...

    def ask(self, plans: Mapping[str, RoundPlan], vectors: Vectors, deadline_s: float) -> Iterator[Reply]:
        """Send plans and yield one reply for each site, as they arrive; never more than the deadline."""
        ...
