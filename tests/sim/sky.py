"""Small made skies for the tests of the realism check: a round galaxy, a neighbour, correlated noise, in two bands."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from stages.dataset import Shard, write_shard
from stages.records import Cutout


def sky(n, rng, *, noise=0.6, psf=1.5, colour=0.9, size=35, per_group=1, name="s"):
    """N cutouts (2, size, size): exponential galaxies seen through a Gaussian PSF; `noise` smooths the noise."""
    return [cutout(rng, noise, psf, colour, size, f"{name}{k}", f"{name}{k // per_group}") for k in range(n)]


def cutout(rng, noise, psf, colour, size, ident, source):
    y, x = np.indices((size, size))
    middle = size // 2
    light = 10 ** rng.uniform(1.6, 2.4) * np.exp(-np.hypot(x - middle, y - middle) / rng.uniform(1.0, 2.0))
    light[rng.integers(2, size - 2), rng.integers(2, size - 2)] += 10 ** rng.uniform(2, 3)
    ratio = 10 ** (-0.4 * (colour + 0.1 * rng.normal()))
    flux = np.stack([ratio * light, light])
    white = gaussian_filter(rng.normal(size=flux.shape), (0, noise, noise), mode="wrap")
    flux = gaussian_filter(flux, (0, psf, psf)) + white / white.std()
    return record(flux, ident, source)


def record(flux, ident="a", source="a", bands=("g", "i"), scale=0.2, xy=None, valid=None):
    """A cutout about its middle from pixels alone."""
    flux = np.asarray(flux, np.float32)
    middle = (flux.shape[2] // 2, flux.shape[1] // 2)
    return Cutout(
        id=ident, source=source, flux=flux, variance=np.full_like(flux, np.nan),
        valid=np.ones(flux.shape, bool) if valid is None else valid, bands=bands, pixel_scale_arcsec=scale,
        psf_fwhm_arcsec=np.full(len(bands), np.nan), psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=np.array(middle if xy is None else xy, float), origin_xy_pix=np.zeros(2),
    )  # fmt: skip


def write_real(folder: Path, cutouts):
    """The cutouts as a survey's FITS cubes."""
    folder.mkdir()
    for c in cutouts:
        header = fits.Header({"BANDS": "".join(c.bands), "PIXSCALE": c.pixel_scale_arcsec})
        fits.writeto(folder / f"{c.id}.fits", c.flux, header)


def write_simulated(folder: Path, cutouts):
    """The cutouts as a data set of the simulator with one shard."""
    import json

    import pandas as pd

    folder.mkdir()
    truth = pd.DataFrame({"id": [c.id for c in cutouts], "system": [c.source for c in cutouts], "label": 0})
    truth["kind"] = np.where(np.arange(len(truth)) % 2, "field", "twin")
    for column in ("theta_e_arcsec", "seeing_arcsec", "arc_snr", "arc_contrast", "coverage_deg", "n_images"):
        truth[column] = np.nan
    mask = np.zeros((len(cutouts), *cutouts[0].flux.shape[1:]), bool)
    name = write_shard(folder, 0, Shard(tuple(cutouts), truth, mask))
    manifest = {"status": "complete", "survey": "made", "n": len(cutouts), "seed": 0, "shards": [{"name": name}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
