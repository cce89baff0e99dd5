"""The PSF's width, scatter, index and ellipticity of a survey, from its stars or from delivered kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.matching.image import ImageStats, kernel_fit
from sim.matching.stars import StarSample, good
from sim.matching.values import Findings, Value, over_images, robust_std


def psf_from_stars(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], sample: StarSample,
    shift_pix: tuple[float, float], rng: np.random.Generator,
) -> None:  # fmt: skip
    """FWHM, its scatter, Moffat index and ellipticity by band from the stars of a sample.

    The sample's band has the locus's own centre; another band's ratio to it is that of the same stars, so that all
    bands rest on the same seeing.
    """
    locus, chosen = sample.locus, np.flatnonzero(sample.locus.stars)
    index = [(int(sample.image[k]), int(sample.number[k])) for k in chosen]
    smear = 2.77 * float(sum(d * (1 - d) for d in shift_pix))  # FWHM^2 in pixels^2 that interpolation added
    smear *= float(np.median([s.pixel_scale_arcsec for s in images])) ** 2
    how = f"stars, median seeing of a mixture in {sample.band}"
    found.put("psf_fwhm_scatter", sample.band,
              Value(locus.scatter * np.log(10), locus.scatter_error * np.log(10), len(chosen), how))  # fmt: skip
    for band in bands:
        fits = [
            (f, images[i].profiles[sample.band][j])
            for i, j in index
            if j < len(images[i].profiles.get(band, ())) and good(f := images[i].profiles[band][j]) and f is not None
        ]
        ratio = over_images([np.log(f.fwhm / main.fwhm) for f, main in fits if main is not None], how, rng)
        if ratio is None:
            continue
        width = 10**locus.centre * np.exp(ratio.value)
        error = width * float(np.hypot(np.log(10) * locus.centre_error, ratio.error))
        width = float(np.sqrt(max(width**2 - smear, 0.1 * width**2)))
        where = how if band == sample.band else f"{how}, times the ratio of the same stars"
        found.put("psf_fwhm_arcsec", band, Value(width, error, len(fits), where))
        if len(fits) < 3:
            continue
        sharp = [f for f, _ in fits if f.beta_error < 1.5 and 1.35 < f.beta < 9.5]
        found.put("psf_beta", band, over_images([f.beta for f in sharp], "stars", rng))
        e2 = np.array([f.e1**2 + f.e2**2 - 2 * (f.fwhm_error / f.fwhm / 2) ** 2 for f, _ in fits])
        rms = over_images(e2, "stars", rng, lambda v: float(np.sqrt(max(np.median(v) / np.log(2), 0.0))))
        found.put("psf_ellipticity", band, rms)


def psf_from_kernels(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], rng: np.random.Generator, prefix: str = "psf"
) -> None:
    """FWHM, scatter, index and ellipticity by band from PSFs delivered with the images."""
    for band in bands:
        fits = [(s, f) for s in images if band in s.kernels and (f := kernel_fit(s.kernels[band])) is not None]
        width = np.array([np.sqrt(f.fwhm**2) * s.pixel_scale_arcsec for s, f in fits])
        found.put(f"{prefix}_fwhm_arcsec", band, over_images(width, "delivered PSF", rng))
        found.put(
            f"{prefix}_beta", band, over_images([f.beta for _, f in fits if 1.35 < f.beta < 9.5], "delivered PSF", rng)
        )
        if len(fits) > 2:
            spread = over_images(np.log(width), "delivered PSF", rng, robust_std)
            found.put(f"{prefix}_fwhm_scatter", band, spread)
            e = [float(np.hypot(f.e1, f.e2)) for _, f in fits]
            rms = over_images(e, "delivered PSF", rng, lambda v: float(np.sqrt(np.median(v**2) / np.log(2))))
            found.put(f"{prefix}_ellipticity", band, rms)
