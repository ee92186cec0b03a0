"""A fit as tables: each measured figure beside the fitted one. Printed to standard error by commands.py."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from workers.calibrate.fit import Fit
from workers.simulated.cost_model import PARAMETERS


def print_fit(fit: Fit) -> None:
    """Prints parameters and residuals."""
    console = Console(stderr=True)
    console = console if console.is_terminal else Console(stderr=True, width=120)
    model = fit.cost_model
    figures = Table(title=f"{model.model} on {model.hardware}, SGLang {model.sglang_version}", title_justify="left")
    for heading in ("figure", "measured ms", "fitted ms", "error"):
        figures.add_column(heading, justify="left" if heading == "figure" else "right")
    for residual in fit.residuals:
        figures.add_row(
            residual.name,
            f"{residual.measured_s * 1e3:.2f}",
            f"{residual.fitted_s * 1e3:.2f}",
            f"{residual.error:+.1%}",
        )
    console.print(figures)
    parameters = Table(title="Parameters", title_justify="left")
    parameters.add_column("name")
    parameters.add_column("seconds", justify="right")
    for name in PARAMETERS:
        parameters.add_row(name, f"{getattr(model, name):.4g}")
    console.print(parameters)
    console.print(f"Relative error: median {fit.median_error:.1%}, largest {fit.largest_error:.1%}", highlight=False)
