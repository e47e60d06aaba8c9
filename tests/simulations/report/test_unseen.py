"""Models trained without a site, at that site."""

from fedcad.simulations.report.run_folder import Run
from fedcad.simulations.report.unseen import unseen_of


def test_every_left_out_site_has_a_row(unseen: Run) -> None:
    rows = {row.name: row for row in unseen_of(unseen.results)}
    assert list(rows) == ["kigali", "lyon", "osaka", "quito"]
    lyon = rows["lyon"]
    assert lyon.federated is not None
    assert lyon.alone is not None
    assert lyon.without.value is not None
    federated = unseen.results.evaluation("federated", "lyon")
    assert federated is not None
    figure = federated.metrics["macro_auroc"].value
    assert figure is not None
    assert lyon.federated.difference == figure - lyon.without.value
    assert (lyon.federated.model, lyon.alone.model) == ("federated", "alone")
    assert rows["quito"].without.value is None
    assert "normal" in rows["quito"].without.undefined


def test_nothing_without_such_models(five: Run) -> None:
    assert unseen_of(five.results) == ()
