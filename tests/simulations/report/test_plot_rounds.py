import dataclasses

from fedcad.simulations.report.participation import STATUSES
from fedcad.simulations.report.plot_rounds import STATUS_COLOURS, STATUS_SIGNS, round_plots
from fedcad.simulations.report.run_folder import Journal, Run


def test_alt_texts_say_who_missed_and_what_it_cost(five: Run) -> None:
    participation, cost = round_plots(five)
    assert "kigali missed 2 rounds; lyon missed 1 round" in participation.alt
    total = sum(event.bytes_sent + event.bytes_received for event in five.journal.rounds)
    assert f"moved {total / 1e6:.3g} MB in all" in cost.alt


def test_every_status_but_the_good_one_has_a_sign_beside_its_colour() -> None:
    assert set(STATUS_COLOURS) == set(STATUS_SIGNS) == set(STATUSES)
    signs = [STATUS_SIGNS[status] for status in STATUSES]
    assert len(set(signs)) == len(signs)


def test_no_rounds_no_plots(five: Run) -> None:
    assert round_plots(dataclasses.replace(five, journal=Journal())) == []
