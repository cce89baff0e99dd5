"""Two halves of a sky of tiles, for networks that never saw what they score.

python benchmarks/halves.py --catalogue CATALOGUE.csv --out OUT

The catalogue has `id, tile, x, y`, with a position in each tile's name (J020320.3-073451) and, for figures, `kind`,
`label` and perhaps `brightness`; tiles lie where it says, seen from its own folder. Tiles within 45 arcsec of each
other go to the same half. Writes OUT/half0 and OUT/half1, each with links to its tiles and a catalogue without
labels, and beside them truths for `benchmarks/accuracy.py`: half0_field.csv (lenses and other objects),
half0_bright.csv (lenses and the others as bright as three quarters of them), half0_candidates.csv (lenses and
candidates that are none).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy.coordinates import SkyCoord
from scipy.cluster.hierarchy import fcluster, linkage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.real_sky.places import APART_ARCSEC

_PUBLIC = ["id", "tile", "x", "y", "ra_deg", "dec_deg"]
_POSITION = re.compile(r"J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)([+-]\d{2})(\d{2})(\d{2}(?:\.\d+)?)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    table = pd.read_csv(options.catalogue, dtype={"id": str})
    tiles = table["tile"].unique()
    if "brightness" in table:
        table["bright"] = table["brightness"] >= table.loc[table["label"] == 1, "brightness"].quantile(0.25)
    half = dict(zip(tiles, halves(positions(tiles), options.seed), strict=True))
    for k in (0, 1):
        own = table[table["tile"].map(half) == k]
        write(own, options.catalogue.resolve().parent, options.out / f"half{k}")
        print(f"half {k}: {own['tile'].nunique()} tiles, {len(own)} objects")
    return 0


def positions(tiles: npt.NDArray[np.object_]) -> SkyCoord:
    """Sky positions of tiles from their names."""
    found = [_POSITION.search(Path(tile).name) for tile in tiles]
    lacking = [tile for tile, match in zip(tiles, found, strict=True) if match is None]
    if lacking:
        sys.exit(f"error: {lacking[0]}: no position such as J020320.3-073451 in the tile's name")
    text = ["{} {} {} {} {} {}".format(*match.groups()) for match in found if match is not None]
    return SkyCoord(text, unit=(u.hourangle, u.deg))


def halves(sky: SkyCoord, seed: int) -> npt.NDArray[np.intp]:
    """0 or 1 for each tile: groups of tiles near each other, in random order, go to the halves in turn."""
    ra, dec = sky.ra.deg, sky.dec.deg
    flat = np.column_stack([(ra - ra.mean()) * np.cos(np.radians(dec.mean())), dec]) * 3600
    group = fcluster(linkage(flat, "single"), APART_ARCSEC, "distance")
    order = np.random.default_rng(seed).permutation(np.unique(group))
    half = np.argsort(order)[group - 1] % 2
    _, apart, _ = sky[half == 0].match_to_catalog_sky(sky[half == 1])
    if apart.arcsec.min() < APART_ARCSEC:  # far from the mean declination the flat distances are too long
        sys.exit("error: tiles of both halves lie near each other: split each field on its own")
    return half


def write(own: pd.DataFrame, source: Path, folder: Path) -> None:
    """One half: links to its tiles, a catalogue without labels, truth tables beside it."""
    for tile in own["tile"].unique():
        link = folder / tile
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(source / tile)
    own[[name for name in _PUBLIC if name in own]].to_csv(folder / "catalogue.csv", index=False)
    lens, candidate = own["label"] == 1, own["kind"] == "candidate"
    own[lens | ~candidate].to_csv(f"{folder}_field.csv", index=False)
    if "bright" in own:
        own[lens | (~candidate & own["bright"])].to_csv(f"{folder}_bright.csv", index=False)
    own[lens | (candidate & (own["label"] == 0))].to_csv(f"{folder}_candidates.csv", index=False)


if __name__ == "__main__":
    sys.exit(main())
