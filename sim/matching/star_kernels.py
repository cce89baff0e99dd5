"""The PSF kernel of each band from the stars of a survey's images, where it draws stars better than a Moffat does.

Whether it does is asked of stars that it has not seen: each half of the stars is drawn by the kernel of the other half
and by the survey file's Moffat, with flux, place and sky fitted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from sim.matching.image import ImageStats
from sim.matching.kernel import Star, drawn, fit_kernel, moffat_kernel, placed, reach_pix, weights
from sim.matching.psf import MoffatFit
from sim.matching.stars import StarSample
from sim.matching.values import Findings, Value, over_images
from stages.records import FloatArray

LEAST_STARS, _MOST_STARS = 10, 60
_SHARPEST_PIX = 2.0  # FWHM below which a spline through whole pixels is no PSF
_MOST_STRETCH = 1.25
_LIKELY_STAR = 0.8
_JUDGED_FWHM = 2.0  # radius of the pixels of a star that chi2 is of
_ODD_STAR = 4.0  # times the median chi2 of either model: a double, a galaxy, a star that is full
_BY_CHANCE = 0.02
_AGAIN = 5  # rounds of a fit to stars whose places are known


@dataclass(frozen=True, eq=False)
class StarKernel:
    """The kernel (side, side) of a band, of unit sum and centred, and how well it draws N stars that it has not seen.

    chi2 : (N, 2) per pixel within two FWHM, by the kernel and by the Moffat.
    error : share of the kernel's light in the wrong place by chance, half the sum of |kernel - truth|; taken : whether
    it draws the stars better than the Moffat (Wilcoxon's signed ranks, p < 0.02).
    """

    kernel: FloatArray
    fwhm_pix: float
    beta: float
    chi2: FloatArray
    error: float
    taken: bool


def star_kernels(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], sample: StarSample, beta: float,
    gain: dict[str, float], space: bool, rng: np.random.Generator,
) -> dict[str, StarKernel]:  # fmt: skip
    """The kernels of the bands that have stars for one, taken or not; what is wanting becomes a note.

    beta : the survey file's Moffat index; gain : electrons per flux unit by band.
    """
    if not sample.locus.found or not any(sample.locus.chance > 0):
        return {}
    if images[0].picture or space:
        why = "the stretch of a picture bends its stars" if not space else "a space PSF reaches beyond its stars"
        found.notes.append(f"psf_files: no kernel is measured: {why}. Give FITS images with their PSF (extension PSF).")
        return {}
    scale, out = found.get("pixel_scale_arcsec"), {}
    for band in bands:
        width = found.values["psf_fwhm_arcsec"][band]
        if not width.how.startswith("stars"):
            continue
        if width.value < _SHARPEST_PIX * scale:
            found.notes.append(
                f"psf_files.{band}: a PSF of FWHM {width.value / scale:.1f} pixels is too sharp for a kernel on them "
                f"({_SHARPEST_PIX:g} are needed). Give a PSF with the images (extension PSF)."
            )
            continue
        stars = _stars(images, band, sample, width.value, gain.get(band, np.inf))
        got = _measured(stars, width.value / scale, beta, rng) if len(stars) >= LEAST_STARS else None
        if got is None:
            found.notes.append(
                f"psf_files.{band}: {len(stars)} well-exposed single stars are too few for a kernel ({LEAST_STARS} are "
                "needed); the Moffat profile is kept. Give more or larger cutouts."
            )
            continue
        out[band] = got
        _record(found, band, got, rng)
    return out


def _record(found: Findings, band: str, got: StarKernel, rng: np.random.Generator) -> None:
    """Both chi2, which of them was taken, and the kernel's error."""
    n = len(got.chi2)
    taken = "the kernel is taken" if got.taken else "the Moffat is kept"
    for k, name in enumerate(("kernel", "moffat")):
        how = f"median chi2 per pixel of held-out stars; {taken}"
        found.put(f"psf_{name}_chi2", band, over_images(got.chi2[:, k], how, rng))
    how = "share of light misplaced by chance, from halves of the stars"
    found.put("psf_kernel_error", band, Value(got.error, float("nan"), n, how))
    if not got.taken:
        kernel, moffat = np.median(got.chi2, axis=0)
        found.notes.append(
            f"psf_files.{band}: a kernel of {n} stars draws other stars no better than the Moffat profile (chi2 per "
            f"pixel {kernel:.2f} and {moffat:.2f}), which is kept. Nothing to do."
        )


def _measured(stars: Sequence[Star], fwhm_pix: float, beta: float, rng: np.random.Generator) -> StarKernel | None:
    """The kernel of stars and its test; None where too few of them are single stars."""
    model = (fwhm_pix, beta)
    start = moffat_kernel(fwhm_pix, beta, 2 * reach_pix(fwhm_pix) + 1)
    for _ in range(2):
        kernel, placed_ = fit_kernel(stars, start)
        seen = [_weights(s, kernel, fwhm_pix) for s in placed_]
        chi2 = np.array([min(_chi2(s, m, w) for m in (kernel, model)) for s, w in zip(placed_, seen, strict=True)])
        plain = chi2 <= _ODD_STAR * max(float(np.median(chi2)), 1.0)
        if plain.sum() < LEAST_STARS:
            return None
        if plain.all():
            break
        stars = [s for s, p in zip(placed_, plain, strict=True) if p]
    if not plain.all():
        kernel, placed_ = fit_kernel(stars, start, _AGAIN)
    seen = [_weights(s, kernel, fwhm_pix) for s in placed_]
    halves = _halves(placed_, rng)
    kernels = [fit_kernel([placed_[k] for k in half], start, _AGAIN)[0] for half in halves]
    table = np.empty((len(placed_), 2))
    for half, other in zip(halves, kernels[::-1], strict=True):
        for k in half:
            table[k] = [_chi2(placed_[k], m, seen[k]) for m in (other, model)]
    error = 0.25 * float(np.abs(kernels[0] - kernels[1]).sum())
    better = bool(wilcoxon(table[:, 1], table[:, 0], alternative="greater").pvalue < _BY_CHANCE)
    return StarKernel(kernel, fwhm_pix, beta, table, error, better)


def _halves(stars: Sequence[Star], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Numbers of the stars in two halves; stars of one image, which share its PSF, stay together but for one image."""
    order = rng.permutation(1 + max(s.image for s in stars))
    ranked = sorted(rng.permutation(len(stars)).tolist(), key=lambda k: int(order[stars[k].image]))
    return ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]


def _weights(star: Star, kernel: FloatArray, fwhm_pix: float) -> FloatArray:
    """What both models are judged with: `weights`, 0 beyond `_JUDGED_FWHM`."""
    y, x = np.indices(star.pixels.shape) - star.pixels.shape[0] // 2
    near = np.hypot(x - star.x, y - star.y) < _JUDGED_FWHM * fwhm_pix * star.stretch
    return np.where(near, weights(star, drawn(star, kernel), clipped=True), 0.0)


def _chi2(star: Star, model: FloatArray | tuple[float, float], weight: FloatArray) -> float:
    """Of a star with flux, place and sky fitted by a model, per pixel."""
    star = placed(star, model, steps=4, weight=weight)
    rest = np.nan_to_num(star.pixels) - star.sky - star.flux * drawn(star, model)
    return float((weight * rest**2).sum() / max((weight > 0).sum() - 4, 1))


def _stars(images: Sequence[ImageStats], band: str, sample: StarSample, fwhm_arcsec: float, gain: float) -> list[Star]:
    """The well-exposed single stars of a band, as their Moffat fits have them; the best of many.

    An image's seeing is the median of its stars' widths; fwhm_arcsec : the survey's, whose kernel is wanted. Images
    whose seeing is too far from it are left out: pixels do not stretch with the seeing.
    """
    rows: list[tuple[int, MoffatFit, FloatArray]] = []
    for k in np.flatnonzero(sample.locus.chance > _LIKELY_STAR):
        image, number = int(sample.image[k]), int(sample.number[k])
        fits, stamps = images[image].profiles.get(band, []), images[image].stamps.get(band, [])
        if number < min(len(fits), len(stamps)):
            fit, pixels = fits[number], stamps[number]
            if fit is not None and pixels is not None:
                rows.append((image, fit, pixels))
    out = []
    for image, fit, pixels in rows:
        seen = float(np.median([f.fwhm for i, f, _ in rows if i == image]))
        stretch = seen * images[image].pixel_scale_arcsec / fwhm_arcsec
        if 1 / _MOST_STRETCH < stretch < _MOST_STRETCH:
            light, sigma = float(np.nansum(pixels - fit.background)), images[image].noise[band].sigma
            data = pixels.astype(float)
            out.append(Star(data, sigma, fit.x, fit.y, light, fit.background, stretch, image, gain))
    return sorted(out, key=lambda s: -s.flux / s.sigma)[:_MOST_STARS]
