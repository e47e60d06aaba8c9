"""Who took part in which round, and why not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedcad.simulations.report.records import Participant, Results
from fedcad.simulations.report.run_folder import Journal

STATUSES = ("counted", "late", "lost", "refused", "rejected")


@dataclass(frozen=True)
class SiteParticipation:
    """One site over all rounds, judged by the last attempt at each.

    Attributes:
        site: Name.
        by_round: Its entry in each round it was asked for.
        missed: Rounds in which its update did not count, with the entry.
        reasons: How often each (status, reason) happened among the missed rounds.
    """

    site: str
    by_round: Mapping[int, Participant]
    missed: Mapping[int, Participant]
    reasons: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Attendance:
    """Participation of a whole run.

    Attributes:
        rounds: Round numbers with any attempt, in order.
        sites: Training sites in the order of the results.
        repeated: Rounds that took more than one attempt, with the number of attempts.
    """

    rounds: tuple[int, ...]
    sites: tuple[SiteParticipation, ...]
    repeated: Mapping[int, int]

    @property
    def losses(self) -> tuple[SiteParticipation, ...]:
        """Sites that missed at least one round, the most absent first."""
        lost = [site for site in self.sites if site.missed]
        return tuple(sorted(lost, key=lambda site: (-len(site.missed), site.site)))


def attendance_of(results: Results, journal: Journal) -> Attendance:
    """Collect participation by site."""
    last: dict[int, dict[str, Participant]] = {}
    attempts: Counter[int] = Counter()
    for event in journal.rounds:
        attempts[event.round] += 1
        last[event.round] = {entry.site: entry for entry in event.participation}
    names = [site.name for site in results.sites if site.role == "training"]
    others = sorted({name for entries in last.values() for name in entries} - set(names))
    return Attendance(
        rounds=tuple(sorted(last)),
        sites=tuple(_one_site(name, last) for name in [*names, *others]),
        repeated={number: tries for number, tries in sorted(attempts.items()) if tries > 1},
    )


def _one_site(name: str, last: Mapping[int, Mapping[str, Participant]]) -> SiteParticipation:
    by_round = {number: entries[name] for number, entries in sorted(last.items()) if name in entries}
    missed = {number: entry for number, entry in by_round.items() if entry.status != "counted"}
    reasons = Counter((entry.status, entry.reason) for entry in missed.values())
    return SiteParticipation(name, by_round, missed, dict(reasons.most_common()))
