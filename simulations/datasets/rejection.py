"""A file of a data set that cannot be used, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rejection:
    """One file that is left out; never fatal, always listed.

    Attributes:
        file: Path relative to the data set, or the record it belongs to.
        reason: What is wrong with it.
    """

    file: str
    reason: str
