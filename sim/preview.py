"""Contact sheets of a data set by kind and stratum: python sim/preview.py --data data/des [--out DIR] [--overlay]."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.picture import Picture, picture, sheet
from stages.dataset import DatasetError, data_sets, read_manifest, read_shard
from stages.records import BoolArray, Cutout

STRATA: dict[str, tuple[str, tuple[float, ...]]] = {
    "Einstein radius over seeing": ("theta_over_seeing", (0, 0.7, 1, 1.5, 2, 3, 5, np.inf)),
    "S/N of the lensed light": ("arc_snr", (0, 10, 20, 40, 80, np.inf)),
    "contrast to the deflector": ("arc_contrast", (0, 0.1, 0.3, 1, 3, np.inf)),
    "coverage in degrees": ("coverage_deg", (0, 30, 60, 120, 180, 270, 361)),
    "images of the source": ("n_images", (0, 2, 3, 4, 5, np.inf)),
}
_PER_SHEET = 48
_PER_STRATUM = 24
_SIDE = 128
_COLUMNS = 8
_DRAWN = 3  # enlargement of a picture before contours are drawn on it
_PARITY_COLOUR = {1: (120, 200, 255), -1: (255, 170, 80)}
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2em auto; padding: 0 1em }
img { max-width: 100%; border: 1px solid #ddd } table { border-collapse: collapse } td, th { padding: 1px 12px;
text-align: right }"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (2: the data set cannot be read)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data set, or a folder of them")
    parser.add_argument("--out", type=Path, help="folder of the sheets (default: DATA/preview)")
    parser.add_argument("--overlay", action="store_true", help="draw the arc mask's outline and the images' parities")
    options = parser.parse_args(argv)
    try:
        print(write_sheets(options.data, options.out, options.overlay))
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_sheets(folder: Path, out: Path | None = None, overlay: bool = False) -> Path:
    """Write PNG sheets and `index.html`; lenses stand beside their twins. Returns the path of the index.

    overlay : lenses a third time, with the outline of the arc mask and the images (+ minimum or maximum, x saddle).
    """
    out = folder / "preview" if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    sheets: dict[str, list[tuple[Picture, str]]] = defaultdict(list)
    held: list[pd.DataFrame] = []
    for truth, cutouts, masks in _shards(folder):
        held.append(truth[["kind", "label", *(column for column, _ in STRATA.values())]])
        twins = {system: k for k, system in enumerate(truth["system"]) if truth["kind"].iloc[k] == "twin"}
        for k in range(len(truth)):
            row = truth.iloc[k]
            tiles = [(cutouts[k], _caption(row))]
            if row["label"] == 1 and row["system"] in twins:
                tiles.append((cutouts[twins[row["system"]]], "its twin"))
            for name, limit in _sheets_of(row):
                if len(sheets[name]) < limit:
                    sheets[name] += [(picture(c), text) for c, text in tiles]
                    if overlay and row["label"] == 1:
                        sheets[name].append((_annotated(cutouts[k], row, masks[k]), "its images and arcs"))
    for name, drawn in sheets.items():
        columns = 9 if any(text == "its images and arcs" for _, text in drawn) else _COLUMNS  # groups of three or two
        sheet(drawn, columns, _SIDE).save(out / f"{_slug(name)}.png")
    index = out / "index.html"
    index.write_text(_page(folder.name, list(sheets), pd.concat(held)))
    return index


def _shards(folder: Path) -> Iterator[tuple[pd.DataFrame, tuple[Cutout, ...], BoolArray]]:
    for path in data_sets(folder):
        for entry in read_manifest(path)["shards"]:
            shard = read_shard(path, entry["name"])
            truth = shard.truth.assign(theta_over_seeing=shard.truth["theta_e_arcsec"] / shard.truth["seeing_arcsec"])
            yield truth, shard.cutouts, shard.arc_mask


def _sheets_of(row: pd.Series[Any]) -> list[tuple[str, int]]:
    """The sheets that a cutout belongs on, with how many tiles each holds."""
    names = [(str(row["kind"]), _PER_SHEET)]
    if row["label"] != 1:
        return names
    for title, (column, edges) in STRATA.items():
        k = int(np.searchsorted(edges, row[column], side="right")) - 1
        if 0 <= k < len(edges) - 1:
            names.append((f"{title}: {_bin(edges, k)}", _PER_STRATUM))
    return names


def _bin(edges: tuple[float, ...], k: int) -> str:
    return f"{edges[k]:g} or more" if np.isinf(edges[k + 1]) else f"{edges[k]:g} to {edges[k + 1]:g}"


def _caption(row: pd.Series[Any]) -> str:
    if row["label"] != 1:
        return str(row["kind"])
    return f'{row["theta_e_arcsec"]:.2f}" S/N {row["arc_snr"]:.0f}\n{row["coverage_deg"]:.0f} deg, {row["n_images"]} im'


def _annotated(cutout: Cutout, row: pd.Series[Any], mask: BoolArray) -> Picture:
    """The picture with the mask's outline and the images: plus for parity +1, cross for -1."""
    high, wide = mask.shape
    image = Image.fromarray(picture(cutout)).resize((wide * _DRAWN, high * _DRAWN), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    padded = np.pad(mask, 1)
    for y, x in np.argwhere(padded[1:-1, 1:-1]):
        left, top = x * _DRAWN, (high - 1 - y) * _DRAWN
        right, bottom = left + _DRAWN - 1, top + _DRAWN - 1
        sides = {(0, -1): (left, top, left, bottom), (0, 1): (right, top, right, bottom),
                 (1, 0): (left, top, right, top), (-1, 0): (left, bottom, right, bottom)}  # fmt: skip
        for (dy, dx), line in sides.items():
            if not padded[y + 1 + dy, x + 1 + dx]:
                draw.line(line, fill=(255, 255, 120))
    for x, y, parity in zip(row["image_x_pix"], row["image_y_pix"], row["image_parity"], strict=True):
        u, v, r = (x + 0.5) * _DRAWN, (high - 0.5 - y) * _DRAWN, 1.5 * _DRAWN
        arms = ((r, 0), (0, r)) if parity > 0 else ((r, r), (r, -r))
        for du, dv in arms:
            draw.line((u - du, v - dv, u + du, v + dv), fill=_PARITY_COLOUR[int(parity)])
    return np.asarray(image)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def _page(title: str, names: list[str], held: pd.DataFrame) -> str:
    balance = held.groupby("kind").agg(cutouts=("label", "size"), lenses=("label", "sum"))
    counts = []
    for name, (column, edges) in STRATA.items():
        part = pd.cut(held.loc[held["label"] == 1, column], list(edges), right=False).value_counts(sort=False)
        part.index = pd.Index([_bin(edges, k) for k in range(len(edges) - 1)], name=name)
        counts.append(part.to_frame("lenses").to_html(border=0))
    kinds = sorted(n for n in names if ":" not in n)
    strata = [n for title in STRATA for n in sorted(names) if n.startswith(f"{title}:")]
    figures = "".join(
        f'<h2 id="{_slug(n)}">{escape(n.replace("_", " "))}</h2><img src="{_slug(n)}.png" alt="{escape(n)}">'
        for n in [*kinds, *strata]
    )
    links = " · ".join(f'<a href="#{_slug(n)}">{escape(n.replace("_", " "))}</a>' for n in [*kinds, *strata])
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{links}</p>{balance.to_html(border=0)}{''.join(counts)}{figures}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
