"""The page of `sim/realism.py`: pairs side by side, each feature's two distributions, and what the data set holds."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy.visualization import make_lupton_rgb
from matplotlib.figure import Figure

from sim.likeness.features import plane
from stages.records import Cutout, FloatArray

if TYPE_CHECKING:
    from sim.likeness.sample import Sample
    from sim.likeness.score import Separation
    from sim.realism import Comparison

matplotlib.use("agg")

_N_PAIRS = 32
_N_FEATURES = 24
_REAL, _SIM = "#3b6ea5", "#d1603d"
_STRATA = {
    "Einstein radius / seeing": ("theta_over_seeing", [0, 1, 1.5, 2, 3, 5, np.inf]),
    "S/N of the lensed light": ("arc_snr", [0, 10, 25, 50, 100, np.inf]),
    "contrast to the deflector": ("arc_contrast", [0, 0.1, 0.3, 1, 3, np.inf]),
    "coverage (deg)": ("coverage_deg", [0, 30, 60, 90, 180, 270, 360.1]),
    "images of the source": ("n_images", [0, 1.5, 2.5, 3.5, 4.5, np.inf]),
}
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto;
padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 2px 10px; border-bottom: 1px solid #ddd;
text-align: right } th:first-child, td:first-child { text-align: left }"""


def picture(cutout: Cutout) -> npt.NDArray[np.uint8]:
    """Asinh picture (H, W, 3) in units of each band's noise, row 0 at the top (Lupton et al. 2004)."""
    planes = [plane(f, v) for f, v in zip(cutout.flux, cutout.valid, strict=True)]
    scaled = [np.where(p.valid, p.flux / p.sigma, 0.0) for p in planes]
    red, green, blue = scaled[-1], scaled[len(scaled) // 2], scaled[0]
    out: npt.NDArray[np.uint8] = make_lupton_rgb(red, green, blue, minimum=-1.0, stretch=12.0, Q=6)
    return out


def write_page(
    path: Path, c: Comparison, nulls: dict[str, dict[str, Separation]], ranking: pd.DataFrame, families: pd.DataFrame,
    kinds: pd.DataFrame, form: pd.DataFrame, held: pd.DataFrame,
) -> None:  # fmt: skip
    """Write everything into one HTML file."""
    rows = [("real against simulated", c.found), *nulls.items()]
    figures = "".join(
        f"<li>{escape(what)}, {escape(name)}: AUC <b>{s.auc:.3f}</b> [{s.low:.3f}, {s.high:.3f}]</li>"
        for what, found in rows for name, s in found.items()
    )  # fmt: skip
    n, last = len(c.real.cutouts), list(c.scores)[-1]
    body = [
        "<h1>Simulated against real</h1>",
        f"<p>{n} real cutouts with {len(c.sim.cutouts) // n} simulated ones of equal brightness over noise each "
        f"({c.n_real - n} real ones found none). AUC with its 95% interval; 0.5 means nothing tells them apart.</p>",
        f"<ul>{figures}</ul>",
        "<h2>Pairs: real on the left, simulated on the right</h2>", _image(_pairs(c.real, c.sim)),
        f"<h2>By the score of the {last}: real taken for simulated and known as real, simulated taken for real and "
        "known as simulated</h2>", _image(_extremes(c.real, c.sim, c.scores[last].rank)),
        "<h2>Where it shows: AUC of each family of features</h2>", families.round(3).to_html(border=0),
        "<h2>Features, the most telling first (blue real, orange simulated)</h2>",
        _image(_distributions(c.table, c.label, ranking)), ranking.head(40).round(3).to_html(border=0),
        "<h2>How alike each simulated kind is</h2>", kinds.round(3).to_html(border=0),
        "<h2>Form of the files (medians; not shown to the classifiers)</h2>", form.round(3).to_html(border=0),
        "<h2>What the simulated data set holds</h2>", *(t.to_html(border=0) for t in holdings(held)),
    ]  # fmt: skip
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>realism</title><style>{_STYLE}</style>\n" + "\n".join(body)
    )


def holdings(truth: pd.DataFrame) -> list[pd.DataFrame]:
    """Class balance by kind, and the lenses by stratum."""
    balance = truth.groupby("kind").agg(cutouts=("label", "size"), lenses=("label", "sum"))
    balance["share"] = (balance["cutouts"] / len(truth)).round(3)
    lenses = truth[truth["label"] == 1]
    lenses = lenses.assign(theta_over_seeing=lenses["theta_e_arcsec"] / lenses["seeing_arcsec"])
    tables = [balance]
    for name, (column, edges) in _STRATA.items():
        part = pd.cut(lenses[column], edges, right=False).value_counts(sort=False)
        tables.append(pd.DataFrame({"lenses": part, "share": (part / max(len(lenses), 1)).round(3)}).rename_axis(name))
    return tables


def _pairs(real: Sample, sim: Sample) -> Figure:
    chosen = np.linspace(0, len(real.cutouts) - 1, min(_N_PAIRS, len(real.cutouts))).astype(int)
    tiles = [(s.cutouts[k], s.kinds[k], c) for k in chosen for s, c in ((real, _REAL), (sim, _SIM))]
    return _sheet(tiles, 8)


def _extremes(real: Sample, sim: Sample, rank: FloatArray) -> Figure:
    """First row: real taken for simulated; second: real that is known; third and fourth: likewise simulated."""
    n, tiles = len(real.cutouts), []
    for sample, part, colour, wrong in ((real, rank[:n], _REAL, -1), (sim, rank[n:], _SIM, 1)):
        order = np.argsort(part, kind="stable")[::wrong]
        for k in (*order[:8], *order[::-1][:8]):
            tiles.append((sample.cutouts[k], f"{sample.kinds[k]} {part[k]:.2f}", colour))
    return _sheet(tiles, 8)


def _sheet(tiles: list[tuple[Cutout, str, str]], columns: int) -> Figure:
    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.5 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (cutout, text, colour) in zip(axes, tiles, strict=False):
        axis.imshow(picture(cutout), interpolation="nearest")
        axis.set_title(text, fontsize=7, color=colour, pad=2)
    return figure


def _distributions(table: pd.DataFrame, label: npt.NDArray[np.intp], ranking: pd.DataFrame) -> Figure:
    names = list(ranking.index[:_N_FEATURES])
    figure = Figure(figsize=(11, 1.6 * -(-len(names) // 4)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(-(-len(names) // 4), 4)).ravel()
    for axis in axes[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes, names, strict=False):
        values = table[name].to_numpy(float)
        known = values[np.isfinite(values)]
        low, high = np.percentile(known, (0.5, 99.5)) if len(known) else (0.0, 1.0)
        bins = np.linspace(low, high if high > low else low + 1, 25)
        for part, colour in ((0, _REAL), (1, _SIM)):
            axis.hist(np.clip(values[label == part], low, high), bins, histtype="step", color=colour, linewidth=1.4)
        axis.set_title(f"{name}  {ranking.loc[name, 'auc']:.2f}", fontsize=8)
        axis.tick_params(labelsize=6, left=False, labelleft=False)
    return figure


def _image(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">'
