"""Cohorts: who is ready, who is not and why, and how sites join, leave and come back between rounds."""

from study_factory import DirectChannel, make_contract, make_sites

from fedcad.server.channel import Lost
from fedcad.server.cohort import MOST_CASES, Cohort
from fedcad.server.participation import Participation, Status

CONTRACT = make_contract()


def gather(channel: DirectChannel) -> Cohort:
    return Cohort.gather(channel, CONTRACT.study_hash)


def test_sites_that_are_not_ready_have_their_reason() -> None:
    sites = make_sites(CONTRACT)
    sites[1].cases["train"] = 0
    channel = DirectChannel(sites)
    channel.not_ready = {"c": Lost("x" * 1000)}
    cohort = gather(channel)
    assert set(cohort.sites) == {"a"}
    assert cohort.enrolled == 3
    reasons = {part.site: (part.status, part.reason) for part in cohort.absent}
    assert reasons["b"] == (Status.REFUSED, "no training cases")
    assert reasons["c"][0] is Status.LOST
    assert len(reasons["c"][1]) < 600


def test_a_site_that_answers_for_another_study_or_name_is_rejected() -> None:
    other = DirectChannel(make_sites(make_contract(rounds=9)))
    assert {part.status for part in gather(other).absent} == {Status.REJECTED}


def test_a_site_with_billions_of_cases_is_not_believed() -> None:
    """Its weight would bound the others' updates so narrowly that theirs are rejected."""
    channel = DirectChannel(make_sites(CONTRACT))
    info = channel.sites["a"].info()
    for count, is_believed in ((MOST_CASES, True), (MOST_CASES + 1, False), (2**31 - 1, False)):
        channel.not_ready = {"a": info.model_copy(update={"cases": {**info.cases, "train": count}})}
        cohort = gather(channel)
        assert ("a" in cohort.sites) is is_believed
        assert is_believed or cohort.absent[0].status is Status.REJECTED


def test_only_absent_sites_are_asked_again() -> None:
    channel = DirectChannel(make_sites(CONTRACT))
    channel.not_ready = {"c": Lost("starting")}
    cohort = gather(channel)
    channel.not_ready = {}
    cohort = cohort.with_late_comers(channel, CONTRACT.study_hash)
    assert set(cohort.sites) == {"a", "b", "c"}
    assert cohort.absent == ()
    assert channel.asked_ready[1][0] == ["c"]
    assert cohort.with_late_comers(channel, CONTRACT.study_hash) == cohort
    assert len(channel.asked_ready) == 2


def test_a_site_that_was_enrolled_meanwhile_joins() -> None:
    channel = DirectChannel(make_sites(CONTRACT, "a", "b"))
    cohort = gather(channel)
    channel.sites = {site.name: site for site in make_sites(CONTRACT, "a", "b", "new")}
    cohort = cohort.with_late_comers(channel, CONTRACT.study_hash)
    assert set(cohort.sites) == {"a", "b", "new"}
    assert cohort.enrolled == 3


def test_lost_sites_must_say_again_that_they_are_ready_and_late_ones_stay() -> None:
    channel = DirectChannel(make_sites(CONTRACT))
    parts = (
        Participation("a", Status.COUNTED),
        Participation("b", Status.LOST, "gone"),
        Participation("c", Status.LATE, "slow"),
    )
    cohort = gather(channel).without_lost(parts)
    assert set(cohort.sites) == {"a", "c"}
    assert cohort.absent == (parts[1],)
    assert set(cohort.with_late_comers(channel, CONTRACT.study_hash).sites) == {"a", "b", "c"}


def test_a_site_that_forgot_the_study_is_told_it_again() -> None:
    """Its state folder was made anew: without the question whether it is ready it would refuse for ever."""
    channel = DirectChannel(make_sites(CONTRACT))
    parts = (
        Participation("a", Status.REFUSED, "no-data"),
        Participation("b", Status.REFUSED, "wrong-study"),
        Participation("c", Status.REFUSED, "not-trusted"),
    )
    cohort = gather(channel).without_lost(parts)
    assert set(cohort.sites) == {"a"}
    assert set(cohort.with_late_comers(channel, CONTRACT.study_hash).sites) == {"a", "b", "c"}
    assert channel.asked_ready[1][0] == ["b", "c"]
