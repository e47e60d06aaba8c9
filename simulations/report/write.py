"""The one entry: write the report and the plots of a run into its folder."""

from pathlib import Path

from fedcad.shared.atomic_files import write_bytes
from fedcad.simulations.report.page import render_page
from fedcad.simulations.report.plots import draw_plots
from fedcad.simulations.report.run_folder import read_run


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` and ``plots/*.png`` and return the path of the page.

    Guarantees:
        Every file is whole or absent; the page comes last. The same run folder gives the same bytes with
        the same versions of matplotlib and Jinja. Nothing else in the folder is changed.

    Raises:
        DataError: The folder is not that of a finished or stopped run.
    """
    run = read_run(run_folder)
    plots = draw_plots(run)
    page = render_page(run, plots)
    folder = run_folder / "plots"
    folder.mkdir(exist_ok=True)
    for name, plot in plots.items():
        write_bytes(folder / f"{name}.png", plot.png)
    path = run_folder / "report.html"
    write_bytes(path, page.encode("utf-8"))
    return path
