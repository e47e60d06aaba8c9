"""What a hospital gets that never took part: models trained without one site, tested at that site."""

from dataclasses import dataclass

from fedcad.simulations.report.headline import Cell, cell_of
from fedcad.simulations.report.records import ComparisonRecord, Results

UNSEEN_TITLE = "A site never trained on"
WITHOUT = "without"


@dataclass(frozen=True)
class UnseenRow:
    """One training site that was left out once.

    Attributes:
        name: The site.
        test_cases: Cases in its test set.
        without: The model trained without it, on its test set.
        federated: Federated minus that model, paired; None where not compared.
        alone: The site's own model minus that model, paired; None where not compared.
    """

    name: str
    test_cases: int
    without: Cell
    federated: ComparisonRecord | None
    alone: ComparisonRecord | None


def unseen_of(results: Results) -> tuple[UnseenRow, ...]:
    """Return a row for every site that was left out once; none where leave_one_site_out was not asked for."""
    rows = []
    for site in results.sites:
        cell = cell_of(results, f"{WITHOUT}-{site.name}", site.name)
        if cell is not None:
            federated = results.comparison(WITHOUT, site.name)
            alone = results.comparison(WITHOUT, site.name, model="alone")
            rows.append(UnseenRow(site.name, site.cases.test, cell, federated, alone))
    return tuple(rows)
