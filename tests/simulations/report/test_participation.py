"""Who took part is counted by the last attempt at each round."""

from fedcad.simulations.report.participation import attendance_of
from fedcad.simulations.report.records import Participant, RoundEvent
from fedcad.simulations.report.run_folder import Journal, Run


def event(number: int, attempt: int, **statuses: str) -> RoundEvent:
    entries = tuple(Participant(site=site, status=status, reason="why") for site, status in statuses.items())  # type: ignore[arg-type]
    return RoundEvent(event="round", round=number, attempt=attempt, participation=entries)


def test_losses_by_site_with_reasons_most_absent_first(five: Run) -> None:
    losses = attendance_of(five.results, five.journal).losses
    assert [(site.site, sorted(site.missed)) for site in losses] == [
        ("kigali", [3, 4]),
        ("lyon", [6]),
        ("osaka", [8]),
    ]
    assert losses[0].reasons == {("lost", "the worker process died"): 2}


def test_the_last_attempt_counts(five: Run) -> None:
    journal = Journal(rounds=(event(1, 1, kigali="lost"), event(1, 2, kigali="counted"), event(2, 1)))
    attendance = attendance_of(five.results, journal)
    assert attendance.losses == ()
    assert attendance.repeated == {1: 2}
    assert attendance.rounds == (1, 2)


def test_a_site_that_was_not_asked_has_not_missed(five: Run) -> None:
    attendance = attendance_of(five.results, Journal(rounds=(event(1, 1, kigali="counted"),)))
    lyon = next(site for site in attendance.sites if site.site == "lyon")
    assert (dict(lyon.by_round), dict(lyon.missed)) == ({}, {})


def test_sites_unknown_to_the_results_are_shown_all_the_same(five: Run) -> None:
    attendance = attendance_of(five.results, Journal(rounds=(event(1, 1, stranger="refused"),)))
    assert [site.site for site in attendance.sites][-1] == "stranger"
    assert attendance.losses[0].site == "stranger"


def test_external_sites_are_not_expected_to_train(five: Run) -> None:
    assert "tromso" not in [site.site for site in attendance_of(five.results, five.journal).sites]
