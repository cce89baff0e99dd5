"""Write a data set as a survey of FITS cutouts with a truth table: python sim/export.py --data data/des --out DIR."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages import config as configuration
from stages.dataset import DatasetError, data_sets, read_manifest, read_shard
from stages.records import Cutout
from stages.stretch import to_composite
from stages.survey import Stretch, SurveyFacts

TRUTH = (
    "id",
    "label",
    "kind",
    "system",
    "theta_e_arcsec",
    "n_images",
    "n_images_with_centre",
    "coverage_deg",
    "arc_snr",
    "arc_contrast",
    "seeing_arcsec",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data set, or a folder of data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=None, help="cutouts of each data set")
    parser.add_argument("--skip-shards", type=int, default=0, help="leave out the first shards, which trained a stage")
    options = parser.parse_args(argv)
    try:
        export(options.data, options.out, options.limit, options.skip_shards)
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def export(data: Path, out: Path, limit: int | None = None, skip_shards: int = 0) -> None:
    """Write each cutout as `SURVEY/ID.fits` (image cube, ERR, PSF) or composite `.png`, and `truth.csv`."""
    rows = []
    for folder in data_sets(data):
        left = limit
        for entry in tqdm(read_manifest(folder)["shards"][skip_shards:], desc=folder.name, unit="shard"):
            shard = read_shard(folder, entry["name"])
            n = len(shard.cutouts) if left is None else min(left, len(shard.cutouts))
            left = None if left is None else left - n
            stretch = survey_stretch(shard.cutouts[0].survey)
            for cutout in shard.cutouts[:n]:
                if stretch is None:
                    write_cutout(out / cutout.survey / f"{cutout.id}.fits", cutout)
                else:
                    write_picture(out / cutout.survey / f"{cutout.id}.png", cutout, stretch)
            rows.append(shard.truth.iloc[:n][list(TRUTH)])
            if left == 0:
                break
    pd.concat(rows).to_csv(out / "truth.csv", index=False)


def survey_stretch(name: str) -> Stretch | None:
    """The stretch of a survey that is handed over as colour composites."""
    path = configuration.CONFIG_DIR / "surveys" / f"{name}.yaml"
    return configuration.load(SurveyFacts, path).stretch if path.is_file() else None


def write_picture(path: Path, cutout: Cutout, stretch: Stretch) -> None:
    """Write one cutout as the colour composite it was drawn as; invalid pixels are black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [cutout.bands.index(band) for band in stretch.bands]
    flux = np.where(cutout.valid, cutout.flux, 0)[order]
    Image.fromarray(to_composite(flux, stretch)).save(path)


def write_cutout(path: Path, cutout: Cutout) -> None:
    """Write one cutout as the finder reads it; the same cutout gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flux = np.where(cutout.valid, cutout.flux, np.nan).astype(np.float32)
    header = fits.Header()
    header["OBJECT"] = cutout.id
    header["SURVEY"] = cutout.survey
    header["BANDS"] = ",".join(cutout.bands)
    header["PIXSCALE"] = (cutout.pixel_scale_arcsec, "arcsec per pixel")
    for k, fwhm in enumerate(cutout.psf_fwhm_arcsec):
        header[f"FWHM{k + 1}"] = (round(float(fwhm), 4), f"arcsec, {cutout.bands[k]}")
    header["SEEING"] = (round(float(np.median(cutout.psf_fwhm_arcsec)), 4), "arcsec, median of the bands")
    parts = [fits.PrimaryHDU(flux if len(flux) > 1 else flux[0], header)]
    if np.isfinite(cutout.variance).any():
        error = np.sqrt(cutout.variance).astype(np.float32)
        parts.append(fits.ImageHDU(error if len(error) > 1 else error[0], name="ERR"))
    if cutout.psf.size:
        parts.append(fits.ImageHDU(cutout.psf if len(cutout.psf) > 1 else cutout.psf[0], name="PSF"))
    fits.HDUList(parts).writeto(path, overwrite=True)


if __name__ == "__main__":
    sys.exit(main())
