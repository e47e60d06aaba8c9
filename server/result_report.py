"""The page of a result: one HTML file that needs nothing else, with an honest first line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 640, 240, 40
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } td.number { text-align: right }
.first { font-size: 1.15rem; font-weight: 600 } .missed { background: #fdecea } code { font-size: .85em;
overflow-wrap: anywhere } svg { max-width: 100%; height: auto } figure { margin: 1rem 0 }
"""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One curve: a name, and (version, value) in order."""

    name: str
    points: Sequence[tuple[int, float]]


def page(
    title: str,
    first: str,
    *,
    facts: Mapping[str, str],
    rows: Sequence[Row],
    curves: Mapping[str, list[Curve]],
    tests: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Return the page.

    Args:
        title: Title of the study.
        first: First line: how far the study is, and who was missing.
        facts: Facts in order, by name.
        rows: Participation, one row for each round and site.
        curves: Learning curves by metric.
        tests: How the final model does at the sites (``sites``, ``union``), and which gave no test and why
            (``without``).
    """
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
            f'<p class="first">{escape(first)}</p>',
            "<table>",
            *(
                f"<tr><th>{escape(name.replace('_', ' '))}<td><code>{escape(str(fact))}</code>"
                for name, fact in facts.items()
            ),
            "</table>",
            *_tests(tests or {}),
            "<h2>Validation at the sites</h2>",
            *(_figure(metric, found) for metric, found in curves.items()),
            "" if curves else "<p>No version has been validated yet.</p>",
            "<h2>Who took part</h2>",
            *_participation(rows),
            "</html>\n",
        ]
    )


def _tests(tests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of the final model's metrics on each site's own test cases; no lines where none are."""
    sites, union, without = (tests.get(key, {}) for key in ("sites", "union", "without"))
    if not sites and not without:
        return []
    columns = list(dict.fromkeys(name for figures in sites.values() for name in figures))
    lines = ["<h2>Test of the model at the sites</h2>", "<table><tr><th>site"]
    lines += [f"<th>{escape(name.replace('_', ' '))}" for name in columns]
    rows = {**sites, **({"all sites": union} if union else {})}
    for name, figures in rows.items():
        cells = "".join(f'<td class="number">{_number(figures.get(column))}' for column in columns)
        lines.append(f"<tr><td>{escape(name)}{cells}")
    lines.append("</table>")
    return lines + [f"<p>{escape(name)}: no test ({escape(str(why))})</p>" for name, why in without.items()]


def _number(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))


def _participation(rows: Sequence[Row]) -> list[str]:
    """Return a table of sites by rounds, and the reasons of what did not count."""
    sites = sorted({str(row["site"]) for row in rows})
    head = "<table><tr><th>site<th>counted<th>did not count"
    lines = [head]
    for site in sites:
        mine = [row for row in rows if row["site"] == site]
        missed = [row for row in mine if row["status"] != "counted"]
        reasons = "<br>".join(
            escape(f"round {row['round']}: {row['status']}{_because(row['reason'])}") for row in missed
        )
        counted = f"{len(mine) - len(missed)} of {len(mine)}"
        mark = ' class="missed"' if missed else ""
        lines.append(f'<tr{mark}><td>{escape(site)}<td class="number">{counted}<td>{reasons}')
    return [*lines, "</table>"] if rows else ["<p>No round has been closed yet.</p>"]


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _figure(metric: str, curves: Sequence[Curve]) -> str:
    """Return one metric over the versions as SVG: all sites' cases together bold, single sites thin."""
    points = [point for curve in curves for point in curve.points]
    low, high = min(value for _, value in points), max(value for _, value in points)
    last = max(max(version for version, _ in points), 1)
    span = (high - low) or 1.0

    def place(point: tuple[int, float]) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * point[0] / last
        y = _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (point[1] - low) / span
        return f"{x:.1f},{y:.1f}"

    parts = [_axes(low, high, last)]
    legend = []
    for number, curve in enumerate(curves):
        colour = "#222" if number == 0 else _COLOURS[(number - 1) % len(_COLOURS)]
        width = 2.5 if number == 0 else 1
        for run in _runs(curve.points):
            line = " ".join(place(point) for point in run)
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{line}"/>')
        x, y = place(curve.points[-1]).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>')
        legend.append(f'<span style="color:{colour}">■ {escape(curve.name)}</span>')
    name = escape(metric.replace("_", " "))
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    return (
        f"<figure><figcaption>{name}, by version (0: initial): {' '.join(legend)}</figcaption>{svg}</figure>"
    )


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Return points in runs of consecutive versions: where a site was missing, its curve has a gap."""
    runs: list[list[tuple[int, float]]] = []
    for point in points:
        if runs and point[0] == runs[-1][-1][0] + 1:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _axes(low: float, high: float, last: int) -> str:
    left, right, top, bottom = _MARGIN, _WIDTH - _MARGIN, _MARGIN, _HEIGHT - _MARGIN
    text = '<text font-size="12" fill="#555" x="{}" y="{}" text-anchor="{}">{}</text>'
    return "".join(
        [
            f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="#bbb"/>',
            text.format(left - 4, bottom, "end", f"{low:.3g}"),
            text.format(left - 4, top + 4, "end", f"{high:.3g}"),
            text.format(left, bottom + 16, "middle", "0"),
            text.format(right, bottom + 16, "middle", str(last)),
        ]
    )
