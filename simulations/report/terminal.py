"""The headline as a table for the console: rich where it is a terminal, plain lines where it is not."""

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcad.simulations.report.conclusions import Verdict, conclusions_of, first_line, verdict_of
from fedcad.simulations.report.headline import Cell, Headline, Row, headline_of, why_undefined
from fedcad.simulations.report.records import ComparisonRecord
from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.unseen import UNSEEN_TITLE, UnseenRow, unseen_of
from fedcad.simulations.report.wording import DASH, MINUS, figure, metric_title, shown, signed

_GAIN_STYLES: dict[Verdict, str] = {
    "gain": "bold green",
    "loss": "bold red",
    "no evidence": "",
    "no interval": "dim",
}
_PLAIN_WIDTH = 78


def print_summary(run: Run, console: Console | None = None) -> None:
    """Print first line, headline table and the leading conclusions of a run.

    Args:
        run: The run.
        console: Where to; standard output where absent. Not a terminal: plain ASCII-ruled lines.
    """
    console = console or Console()
    if not console.is_terminal:
        console.file.write(plain_summary(run))
        return
    headline = headline_of(run.results)
    console.print(Text(first_line(run), style="bold"))
    if headline.models:
        console.print(_table(run, headline))
    for line in _notes(headline):
        console.print(Text(line, style="dim"))
    if unseen := unseen_of(run.results):
        console.print("", _unseen_table(unseen), "", sep="\n")
    for item in conclusions_of(run)[:4]:
        mark = {"good": "+", "caution": "!", "neutral": "·"}[item.tone]
        console.print(Text(f"{mark} {item.text}"))


def plain_summary(run: Run) -> str:
    """Return the same as plain text, at most 78 columns wide, for logs and pipes."""
    headline = headline_of(run.results)
    lines = [*_wrap(first_line(run))]
    if headline.models:
        lines += ["", metric_title(run.results.primary_metric), *_plain_table(headline)]
    lines += [part for note in _notes(headline) for part in _wrap(note)]
    if _has_gains(headline):
        lines.append("(+) gain, (-) loss, (0) interval contains 0, (?) no interval.")
    if unseen := unseen_of(run.results):
        lines += ["", *_plain_unseen(unseen)]
    lines += ["", *(part for item in conclusions_of(run)[:4] for part in _wrap(f"- {item.text}"))]
    # A plain hyphen: logs and pipes are not always UTF-8.
    return "\n".join(lines).replace(MINUS, "-") + "\n"


def _empty_table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _unseen_table(unseen: Sequence[UnseenRow]) -> Table:
    table = _empty_table(UNSEEN_TITLE)
    table.add_column("trained without, tested at", overflow="fold", max_width=26)
    for head in ("cases", "without", f"fed. {MINUS} without", f"alone {MINUS} without"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in unseen:
        gains = (_rich_gain(row.federated), _rich_gain(row.alone))
        table.add_row(Text(shown(row.name, 40)), str(row.test_cases), _rich_cell(row.without), *gains)
    return table


def _table(run: Run, headline: Headline) -> Table:
    table = _empty_table(metric_title(run.results.primary_metric))
    table.add_column("test set", overflow="fold", max_width=24)
    table.add_column("cases", justify="right", no_wrap=True)
    for model in headline.models:
        table.add_column(model, justify="right", no_wrap=True)
    table.add_column("fed. \N{MINUS SIGN} alone", justify="right", no_wrap=True)
    for row in headline.all_rows:
        style = "bold" if row.role == "mean" else ""
        cells = [_rich_cell(row.cells.get(model)) for model in headline.models]
        table.add_row(Text(_name(row, 40), style=style), _cases(row), *cells, _rich_gain(row.gain))
        if headline.summary and row is headline.rows[-1]:
            table.add_section()
    return table


def _name(row: Row, limit: int = 17) -> str:
    return shown(row.name, limit) + ("*" if row.role == "external" else "")


def _cases(row: Row) -> str:
    return "" if row.role == "mean" else str(row.test_cases)


def _rich_cell(cell: Cell | None) -> Text:
    """Figure above, interval below: two narrow lines instead of one wide one."""
    if cell is None:
        return Text("-", style="dim")
    if cell.value is None:
        return Text("undef.", style="dim italic")
    text = Text(figure(cell.value))
    if cell.interval is not None:
        low, high = (figure(end, 2) for end in cell.interval)
        text.append(f"\n{low}{DASH}{high}", style="dim")
    return text


def _rich_gain(gain: ComparisonRecord | None) -> Text:
    if gain is None:
        return Text("-", style="dim")
    if gain.difference is None:
        return Text("undef.", style="dim italic")
    text = Text(signed(gain.difference), style=_GAIN_STYLES[verdict_of(gain.interval)])
    if gain.interval is not None:
        low, high = (signed(end, 2) for end in gain.interval)
        text.append(f"\n{low}, {high}", style="dim")
    return text


def _plain_table(headline: Headline) -> list[str]:
    heads = "".join(f"{model:>10}" for model in headline.models)
    head = f"{'test set':<18}{'cases':>6}{heads}{'fed-alone':>11}"
    lines = [head, "-" * len(head)]
    for row in headline.all_rows:
        figures = "".join(f"{_plain_cell(row.cells.get(model)):>10}" for model in headline.models)
        lines.append(f"{_name(row):<18}{_cases(row):>6}{figures}{_plain_gain(row.gain):>11}")
    return lines


def _plain_unseen(unseen: Sequence[UnseenRow]) -> list[str]:
    head = f"{'tested at':<18}{'cases':>6}{'without':>10}{'fed-without':>13}{'alone-without':>15}"
    lines = [f"{UNSEEN_TITLE}: the model trained without it", head, "-" * len(head)]
    for row in unseen:
        gains = f"{_plain_gain(row.federated):>13}{_plain_gain(row.alone):>15}"
        lines.append(f"{shown(row.name, 17):<18}{row.test_cases:>6}{_plain_cell(row.without):>10}{gains}")
    return lines


def _plain_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return "undefined" if cell.value is None else figure(cell.value)


def _plain_gain(gain: ComparisonRecord | None) -> str:
    """Write the difference, marked with its verdict: + gain, - loss, 0 interval contains 0."""
    if gain is None:
        return "-"
    if gain.difference is None:
        return "undefined"
    marks = {"gain": " (+)", "loss": " (-)", "no evidence": " (0)", "no interval": " (?)"}
    return signed(gain.difference) + marks[verdict_of(gain.interval)]


def _has_gains(headline: Headline) -> bool:
    return any(row.gain is not None and row.gain.difference is not None for row in headline.all_rows)


def _notes(headline: Headline) -> list[str]:
    """Explain everything in the table that is not a figure."""
    if not headline.models:
        return ["No model was tested."]
    notes = [
        f"{shown(row.name)} is undefined: {shown(why_undefined(row), 300)}."
        for row in headline.rows
        if row.federated is None
    ]
    if any(row.role == "external" for row in headline.rows):
        notes.append("* external: never trained.")
    if _has_gains(headline):
        notes.append("Federated minus alone: a gain or loss only where its interval is clear of 0.")
    return notes


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _PLAIN_WIDTH, subsequent_indent="  " if text.startswith("- ") else "")
