"""The report page: one HTML file that holds everything, needs no script and asks no network.

Guarantees:
    Every value is escaped by the template engine (autoescape is on for every template). The page forbids
    itself, by its content security policy, to load anything but the pictures inside it.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedcad.simulations.report import wording
from fedcad.simulations.report.canvas import Plot
from fedcad.simulations.report.conclusions import conclusions_of, first_line, verdict_of
from fedcad.simulations.report.headline import headline_of, why_undefined
from fedcad.simulations.report.participation import attendance_of
from fedcad.simulations.report.records import EXTERNAL_SITES, Evaluation
from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.unseen import UNSEEN_TITLE, unseen_of

_FOLDER = Path(__file__).parent
_SECTIONS = (
    ("conclusions", "Conclusions"),
    ("headline", "Site by site"),
    ("unseen", UNSEEN_TITLE),
    ("sites", "Who holds what"),
    ("learning", "Learning"),
    ("quality", "Quality of the federated model"),
    ("comparisons", "All comparisons"),
    ("participation", "Participation"),
    ("cost", "Time and bytes"),
    ("reproduce", "How to repeat this"),
    ("words", "Words used here"),
)


def render_page(run: Run, plots: Mapping[str, Plot]) -> str:
    """Return the HTML of the report.

    Args:
        run: The run.
        plots: Its plots by name, of :func:`fedcad.simulations.report.plots.draw_plots`.
    """
    unseen = unseen_of(run.results)
    return render_template(
        "page.html.j2",
        run=run,
        results=run.results,
        plots=plots,
        sections=[each for each in _SECTIONS if each[0] != "unseen" or unseen],
        first_line=first_line(run),
        conclusions=conclusions_of(run),
        headline=headline_of(run.results),
        attendance=attendance_of(run.results, run.journal),
        tested=_federated_tests(run),
        unseen=unseen,
        comparisons=[item for item in run.results.comparisons if _is_shown(run, item.on)],
    )


def render_template(name: str, **values: Any) -> str:
    """Render one of this package's templates with the wording at hand."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=wording.shown,
        label=wording.metric_label,
        title_of=wording.metric_title,
        figure=wording.figure,
        signed=wording.signed,
        interval=wording.interval_text,
        size=wording.data_size,
        duration=wording.duration,
        data_uri=_data_uri,
        pretty=_pretty,
        verdict=verdict_of,
        why_undefined=why_undefined,
    )
    return environment.get_template(name).render(count=wording.count, **values)


def _federated_tests(run: Run) -> list[Evaluation]:
    """Return the federated model's evaluations, sites first."""
    places = [*(site.name for site in run.results.sites), *run.results.joined_places]
    found = (run.results.evaluation("federated", place) for place in places)
    return [item for item in found if item is not None]


def _is_shown(run: Run, place: str) -> bool:
    """Whether a test set is no mere repetition: one external site is all external sites."""
    return place != EXTERNAL_SITES or place in run.results.joined_places


def _data_uri(plot: Plot) -> str:
    return f"data:image/png;base64,{base64.b64encode(plot.png).decode('ascii')}"


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
