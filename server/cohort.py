"""Which sites take part in a round: those that said that they are ready; all others with their reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedcad.server.channel import Channel, Lost
from fedcad.server.participation import Participation, Status, shortened
from fedcad.shared.messages import SiteInfo

LATE_READY_S = 30.0
"""How long a round waits, at most, for a connected site that was not ready when the study began.

An idle node asks every 4 s, and starting the processes of a message and of the training worker takes seconds
more: a site that is let in must manage all of it within this time, else it never joins.
"""

MOST_CASES = 10**7
"""Most training cases that a site is believed to have. The sum of all weights bounds the values of every
update: one site with a weight of billions would have those of all others rejected."""
_FORGOTTEN = ("wrong-study", "not-trusted")
"""Objections of a site whose state folder was made anew, or whose clock or enrolment was wrong."""


@dataclass(frozen=True)
class Cohort:
    """The sites of a run.

    Attributes:
        sites: Those that are ready for this study and have training cases, by name.
        absent: All others that are enrolled, with the reason.
    """

    sites: Mapping[str, SiteInfo]
    absent: tuple[Participation, ...]

    @property
    def enrolled(self) -> int:
        """Number of enrolled sites, ready or absent."""
        return len(self.sites) + len(self.absent)

    @classmethod
    def gather(cls, channel: Channel, study_hash: str) -> "Cohort":
        """Ask every enrolled site whether it is ready for the study of this hash."""
        return cls._of(channel.ready(), study_hash)

    def with_late_comers(self, channel: Channel, study_hash: str) -> "Cohort":
        """Ask those that are absent, or enrolled since, and only them; the others stay as they enrolled."""
        asked = sorted(channel.enrolled() - set(self.sites))
        if not asked:
            return replace(self, absent=())
        answers = channel.ready(asked, deadline_s=LATE_READY_S)
        late = self._of(answers, study_hash)
        return Cohort({**self.sites, **late.sites}, late.absent)

    def without_lost(self, participation: Sequence[Participation]) -> "Cohort":
        """Take out the sites that must say that they are ready before they are asked again.

        Those that were lost, and those that do not know the study any more: only the question whether they
        are ready brings them its contract.
        """
        lost = {part.site: part for part in participation if _must_say(part)}
        gone = tuple(part for site, part in sorted(lost.items()) if site in self.sites)
        return Cohort(
            {site: info for site, info in self.sites.items() if site not in lost}, self.absent + gone
        )

    @classmethod
    def _of(cls, answers: Mapping[str, SiteInfo | Lost], study_hash: str) -> "Cohort":
        sites, absent = {}, []
        for name, answer in sorted(answers.items()):
            if isinstance(answer, Lost):
                absent.append(Participation(name, Status.LOST, f"not ready: {shortened(answer.reason)}"))
            elif answer.site != name or answer.study_hash != study_hash:
                absent.append(Participation(name, Status.REJECTED, "ready for another study or as another"))
            elif answer.cases["train"] > MOST_CASES:
                reason = (
                    f"says that it has {answer.cases['train']} training cases; at most {MOST_CASES} count"
                )
                absent.append(Participation(name, Status.REJECTED, reason))
            elif not answer.cases["train"]:
                absent.append(Participation(name, Status.REFUSED, "no training cases"))
            else:
                sites[name] = answer
        return cls(sites, tuple(absent))


def _must_say(part: Participation) -> bool:
    has_forgotten = part.status is Status.REFUSED and part.reason in _FORGOTTEN
    return part.status is Status.LOST or has_forgotten
