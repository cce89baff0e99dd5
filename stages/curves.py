"""The curves of a training as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_TIMES = ("step", "seconds")


def draw(table: Path) -> Path:
    """Draw each column of a training's CSV against its steps, as `table` with the suffix .png; returns its path."""
    rows = pd.read_csv(table)
    columns = [name for name in rows if name not in _TIMES]
    figure = Figure(figsize=(3.2 * len(columns), 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        axes.plot(rows["step"], rows[name], marker=".")
        axes.set(xlabel="step", title=name)
    path = table.with_suffix(".png")
    figure.savefig(path, dpi=80)
    return path
