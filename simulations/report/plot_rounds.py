"""Rounds: seconds and bytes of each, and who took part."""

from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedcad.simulations.report.canvas import (
    INK,
    SOFT,
    WIDTH,
    Plot,
    colour_site_labels,
    draw,
    key_above,
    new_figure,
    whole_numbers,
)
from fedcad.simulations.report.participation import STATUSES, Attendance, attendance_of
from fedcad.simulations.report.records import Results
from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.wording import count, data_size, duration, shown

STATUS_COLOURS = {
    "counted": "#a9c9e3",
    "late": "#E69F00",
    "lost": "#1f2328",
    "refused": "#882255",
    "rejected": "#D55E00",
}
STATUS_SIGNS = {"counted": "", "late": "L", "lost": "×", "refused": "R", "rejected": "!"}
_SENT, _RECEIVED = "#0072B2", "#86b7d9"
_SIGNS_UP_TO = 60
"""Beyond this many rounds the cells are too narrow for a sign."""


def round_plots(run: Run) -> list[Plot]:
    """Draw participation, and time and bytes; nothing where no round was recorded."""
    attendance = attendance_of(run.results, run.journal)
    if not attendance.rounds:
        return []
    return [_participation(run, attendance), _cost(run)]


def _participation(run: Run, attendance: Attendance) -> Plot:
    missed = [f"{shown(site.site)} missed {count(len(site.missed), 'round')}" for site in attendance.losses]
    alt = f"A map of {count(len(attendance.sites), 'site')} by {count(len(attendance.rounds), 'round')}. " + (
        "; ".join(missed) or "Every site that was asked counted in every round"
    )
    return draw(
        "participation", "Participation", alt + ".", partial(_participation_figure, run.results, attendance)
    )


def _participation_figure(results: Results, attendance: Attendance) -> Figure:
    figure = new_figure(WIDTH, 1.0 + 0.3 * len(attendance.sites))
    axes = figure.subplots()
    for row, site in enumerate(attendance.sites):
        for number, entry in site.by_round.items():
            left = number - 0.46
            axes.barh(row, 0.92, left=left, height=0.8, color=STATUS_COLOURS[entry.status], linewidth=0)
            if len(attendance.rounds) <= _SIGNS_UP_TO and STATUS_SIGNS[entry.status]:
                axes.text(number, row, STATUS_SIGNS[entry.status], ha="center", va="center", fontsize=8,
                          color=INK if entry.status == "late" else "white", weight="bold")  # fmt: skip
    axes.set_yticks(range(len(attendance.sites)), [shown(site.site, 24) for site in attendance.sites])
    colour_site_labels(axes, results, [site.site for site in attendance.sites])
    axes.set_ylim(len(attendance.sites) - 0.5, -0.5)
    axes.set_xlim(attendance.rounds[0] - 0.6, attendance.rounds[-1] + 0.6)
    axes.set_xlabel("Round")
    whole_numbers(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    seen = {entry.status for site in attendance.sites for entry in site.by_round.values()}
    key_above(
        figure, [(Patch(color=STATUS_COLOURS[status]), _key(status)) for status in STATUSES if status in seen]
    )
    return figure


def _key(status: str) -> str:
    sign = STATUS_SIGNS[status]
    return f"{status} ({sign})" if sign else status


def _cost(run: Run) -> Plot:
    events = run.journal.rounds
    total = sum(event.bytes_sent + event.bytes_received for event in events)
    alt = (
        f"Seconds and bytes of each round. {count(len(events), 'attempt')} took "
        f"{duration(sum(event.seconds for event in events))} and moved {data_size(total)} in all."
    )
    return draw("time-and-bytes", "Time and bytes", alt, partial(_cost_figure, run))


def _cost_figure(run: Run) -> Figure:
    figure = new_figure(WIDTH, 2.6)
    seconds, traffic = figure.subplots(1, 2)
    rounds = sorted({event.round for event in run.journal.rounds})
    _bars(seconds, rounds, [_total(run, number, "seconds") for number in rounds], SOFT)
    seconds.set_title("Seconds by round (all attempts)")
    sent = [_total(run, number, "bytes_sent") / 1e6 for number in rounds]
    received = [_total(run, number, "bytes_received") / 1e6 for number in rounds]
    _bars(traffic, rounds, sent, _SENT, label="sent to sites")
    _bars(traffic, rounds, received, _RECEIVED, bottom=sent, label="received from sites")
    traffic.set_title("Megabytes by round")
    traffic.margins(y=0.25)
    traffic.legend(loc="upper left", ncols=2, handlelength=1.0)
    return figure


def _total(run: Run, number: int, quantity: str) -> float:
    return sum(float(getattr(event, quantity)) for event in run.journal.rounds if event.round == number)


def _bars(
    axes: Axes,
    rounds: list[int],
    heights: list[float],
    colour: str,
    *,
    bottom: list[float] | None = None,
    label: str = "",
) -> None:
    axes.bar(
        rounds, heights, bottom=bottom if bottom is not None else 0, width=0.72, color=colour, label=label
    )
    axes.grid(True, axis="y")
    axes.set_xlabel("Round")
    whole_numbers(axes)
