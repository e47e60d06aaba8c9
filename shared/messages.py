"""What travels between coordinator and sites. Typed, sized, without code or pickle.

Sign convention, stated once: an update is ``local − global``, so that the mean update is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from fedcad.shared.canonical import canonical_json, hash_of
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.errors import ProtocolError

LARGEST_HEADER_BYTES = 1_000_000
LARGEST_WEIGHT = 2**31 - 1
LARGEST_ROUND = 2**31 - 1
MOST_RELEASES = 64
MOST_VECTORS = 16
"""Most named vectors in one update."""
_LONGEST_PLACE = 100

Vectors = Mapping[str, NDArray[np.float32]]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Round = Annotated[int, Field(ge=0, le=LARGEST_ROUND)]
VectorName = Annotated[str, Field(min_length=1, max_length=100)]
Weight = Annotated[int, Field(ge=1, le=LARGEST_WEIGHT)]
Cases = Annotated[int, Field(ge=0, le=LARGEST_WEIGHT)]
Part = Literal["train", "validation", "test"]
Work = Literal["validate", "train", "test"]
Objection = Literal[
    "wrong-study", "wrong-site", "wrong-broadcast", "no-data", "other-plan", "closed-round", "not-trusted"
]
"""Why a site will not do what a plan asks: the plan is of another study, or for another site; what came along
is not what the plan says; there is nothing to train on; another plan of this round was answered already; the
round is over; or it is not signed by whom this site trusts."""
Message = TypeVar("Message", bound=Frozen)


class RoundPlan(Frozen):
    """What one site is asked to do in one stage of a round. Never carries a seed or a privacy parameter."""

    protocol: Literal[1] = 1
    """Version of these messages."""
    study_hash: Hash
    """Hash of the contract."""
    site: SiteName
    """Whom it is for; no other site answers it."""
    round: Round
    """Round, from 1; 0 stands for work outside a round."""
    attempt: Annotated[int, Field(ge=1, le=LARGEST_ROUND)] = 1
    """How often this round has been tried."""
    stage: Literal["update"] = "update"
    """Stage of the round; protocols with several (keys, shares, masked update) add theirs."""
    work: Annotated[tuple[Work, ...], Field(min_length=1, max_length=3, strict=False)]
    """What to do, in this order and each once, with the parameters that come along."""
    broadcast_hash: Hash
    """Hash of the vectors that come along."""
    last_counted_round: Round = 0
    """The last round in which this site's update counted; its state from then is now final."""
    selected_round: Round = 0
    """The version that is selected so far: the site keeps its state as of then. In a plan that only tests,
    the last round up to the selected version in which this site's update counted: its state from then is
    tested."""

    @field_validator("work")
    @classmethod
    def _each_once(cls, work: tuple[Work, ...]) -> tuple[Work, ...]:
        if len(set(work)) != len(work):
            raise ValueError("a kind of work is named more than once")
        return work

    @property
    def identity(self) -> str:
        """Hash of the plan."""
        return hash_of(self.model_dump(mode="json"))


class Header(Frozen):
    """What an update says about itself."""

    study_hash: Hash
    """Hash of the contract."""
    plan: Hash
    """Identity of the plan that it answers."""
    round: Round
    """Round of that plan."""
    site: SiteName
    """Name of the site."""
    weights: Annotated[dict[VectorName, Weight], Field(max_length=MOST_VECTORS, default_factory=dict)]
    """Weight of each of its vectors in the sum, by the vector's name; empty where nothing was trained."""
    releases: Annotated[tuple[str, ...], Field(max_length=MOST_RELEASES, strict=False)] = ()
    """What the update reveals: names of its vectors and statistics."""


class Refusal(Frozen):
    """A site's typed answer that it will not do what a plan asks."""

    plan: Hash
    """Identity of the plan that it answers."""
    site: SiteName
    """Name of the site."""
    code: Objection
    """Why. The full text stays at the site."""


@dataclass(frozen=True)
class Update:
    """A site's answer to a plan.

    Attributes:
        header: Who answers what, with which weights.
        vectors: Named flat float32 vectors over the study's layout (``model``: local − global); empty
            where nothing was trained.
        statistics: Named int64 vectors of metric statistics, of the layout of the task's family.
    """

    header: Header
    vectors: Vectors = field(default_factory=dict)
    statistics: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


class SiteInfo(Frozen):
    """What a site says about itself when it is ready; counts only."""

    site: SiteName
    """Name of the site."""
    study_hash: Hash
    """Contract that it is ready for."""
    cases: dict[Part, Cases]
    """Cases in train, validation and test; each part is named, also where it is empty."""
    summary: str
    """Counts by label, vendor and view as JSON text; no identifiers."""

    @field_validator("cases")
    @classmethod
    def _every_part(cls, cases: dict[str, int]) -> dict[str, int]:
        missing = {"train", "validation", "test"} - set(cases)
        if missing:
            raise ValueError(f"the parts {sorted(missing)} are missing")
        return cases


def encode(message: Frozen) -> str:
    """Return a message header as canonical JSON text."""
    return canonical_json(message.model_dump(mode="json")).decode()


def decode(kind: type[Message], text: object) -> Message:
    """Read a header from text that may be hostile.

    Raises:
        ProtocolError: Not text, too large, or not a valid header of that kind.
    """
    if not isinstance(text, str) or len(text) > LARGEST_HEADER_BYTES:
        raise ProtocolError(f"a {kind.__name__} must be JSON text of at most {LARGEST_HEADER_BYTES} bytes")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:_LONGEST_PLACE]
        raise ProtocolError(f"a {kind.__name__} is not valid: {where}: {first['msg']}") from error
