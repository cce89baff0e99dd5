"""Three ways to a PSF kernel from stars, on stars of a known PSF: python benchmarks/star_kernels.py.

The PSF is the sum of two Gaussians of other axis ratio, direction and width (no Moffat, elongated), integrated over
pixels. Compared are `sim.matching.kernel.fit_kernel`, a clipped mean of stars shifted by cubic splines, and photutils'
`EPSFBuilder` with one and two samples per pixel. Printed by FWHM (pixels) and peak over noise, in per cent: the share
of light in the wrong place, half the sum of |kernel - truth|, and the rms error of the flux of noiseless stars that
each kernel fits; and seconds. The last column is the round Moffat that the fit begins with.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.stats import sigma_clip
from photutils.psf import EPSFBuilder, EPSFStar, EPSFStars
from scipy.ndimage import shift

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.matching.kernel import Star, finished, fit_kernel, moffat_kernel, placed, reach_pix
from stages.records import FloatArray

_PARTS = 7  # of a pixel, along each side, that its light is the mean of
_BETA = 3.0


def point(fwhm: float, x: float, y: float, half: int, stretch: float = 1.0) -> FloatArray:
    """A point of unit light (2 half + 1, 2 half + 1) at (x, y) from the middle; fwhm : about, of the core, pixels."""
    n = 2 * half + 1
    axis = (np.arange(n * _PARTS) + 0.5) / _PARTS - n / 2
    dx, dy = (axis[None, :] - x) / stretch, (axis[:, None] - y) / stretch
    out = np.zeros((n * _PARTS, n * _PARTS))
    for share, width, ratio, degrees in ((0.75, 0.95, 0.8, 30.0), (0.25, 2.0, 0.7, 60.0)):
        angle, sigma = np.radians(degrees), width * fwhm / 2.355
        a, b = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        s, t = sigma / np.sqrt(ratio), sigma * np.sqrt(ratio)
        out += share * np.exp(-0.5 * ((a / s) ** 2 + (b / t) ** 2)) / (2 * np.pi * s * t)
    return np.asarray(out.reshape(n, _PARTS, n, _PARTS).mean(axis=(1, 3)) / stretch**2)


def drawn_stars(fwhm: float, n: int, snr: float, scatter: float, rng: np.random.Generator) -> list[Star]:
    """Stars with sky noise of rms 1 and the photon noise of a gain of 1."""
    half, stars = reach_pix(fwhm) + 1, []
    for _ in range(n):
        x, y = rng.uniform(-0.5, 0.5, 2)
        stretch = float(np.exp(scatter * rng.normal()))
        shape = point(fwhm, x, y, half, stretch)
        flux = snr * rng.uniform(0.7, 1.5) / shape.max()
        pixels = flux * shape + rng.normal(size=shape.shape) * np.sqrt(1 + flux * shape)
        stars.append(Star(pixels, 1.0, x + 0.05 * rng.normal(), y + 0.05 * rng.normal(), flux, 0.0, stretch))
    return stars


def stacked(stars: list[Star], start: FloatArray) -> FloatArray:
    """The clipped mean of stars without their sky, shifted to their centroid by splines and divided by their flux."""
    planes, half = [], start.shape[0] // 2
    for star in stars:
        star = placed(star, start, steps=5)
        edge = np.hypot(*(np.indices(star.pixels.shape) - star.pixels.shape[0] // 2)) > 0.9 * half
        moved = shift(star.pixels - np.median(star.pixels[edge]), (-star.y, -star.x), order=3)
        planes.append(moved[1:-1, 1:-1] / moved[1:-1, 1:-1].sum())
    return finished(np.asarray(sigma_clip(np.array(planes), sigma=3, axis=0).mean(axis=0)))


def photutils_kernel(samples: int) -> Callable[[list[Star], FloatArray], FloatArray]:
    """`EPSFBuilder` with so many samples per pixel, read at whole pixels."""

    def build(stars: list[Star], start: FloatArray) -> FloatArray:
        rows = []
        for star in stars:
            star = placed(star, start, steps=5)
            middle = star.pixels.shape[0] // 2
            rows.append(EPSFStar(star.pixels - star.sky, cutout_center=(middle + star.x, middle + star.y)))
        builder = EPSFBuilder(oversampling=samples, maxiters=10, progress_bar=False,
                              smoothing_kernel=None if samples == 1 else "quadratic")  # fmt: skip
        model = builder(EPSFStars(rows))[0]
        half = start.shape[0] // 2
        y, x = (np.indices(start.shape) - half).astype(float)
        return finished(model.evaluate(x, y, 1.0, 0.0, 0.0))

    return build


METHODS: dict[str, Callable[[list[Star], FloatArray], FloatArray]] = {
    "fit": lambda stars, start: fit_kernel(stars, start)[0],
    "stack": stacked,
    "photutils x1": photutils_kernel(1),
    "photutils x2": photutils_kernel(2),
    "moffat": lambda stars, start: start,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stars", type=int, nargs="+", default=[12, 40])
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.2, 3.0, 4.0, 5.0])
    parser.add_argument("--snr", type=float, nargs="+", default=[30.0, 100.0, 300.0])
    parser.add_argument("--scatter", type=float, default=0.0, help="rms of ln(seeing) from star to star")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    print("stars FWHM  S/N  " + "".join(f"{name:>22}" for name in METHODS) + "   (misplaced light %, flux error %)")
    for n in options.stars:
        for fwhm in options.fwhm:
            for snr in options.snr:
                rows = [_once(n, fwhm, snr, options.scatter, rng) for _ in range(options.repeats)]
                cells = [np.median([row[name] for row in rows], axis=0) for name in METHODS]
                text = "".join(f"{100 * a:8.2f} {100 * b:6.2f} {s:5.1f}s" for a, b, s in cells)
                print(f"{n:5d} {fwhm:4.1f} {snr:4.0f}  {text}", flush=True)


def _once(n: int, fwhm: float, snr: float, scatter: float, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Misplaced light, flux error and seconds of each method on one set of stars."""
    half = reach_pix(fwhm)
    truth, wide = point(fwhm, 0, 0, half), 2 * half + 1
    start = finished(moffat_kernel(_seen(truth), _BETA, wide))
    stars = drawn_stars(fwhm, n, snr, scatter, rng)
    tests = []
    for _ in range(20):
        x, y = rng.uniform(-0.5, 0.5, 2)
        tests.append(Star(100 * point(fwhm, x, y, half), 1e-3, x, y, 100.0, 0.0, 1.0))
    out = {}
    for name, method in METHODS.items():
        before = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kernel = method(stars, start)
        spent = time.perf_counter() - before
        even = np.ones(tests[0].pixels.shape)
        flux = [placed(replace(t, x=0.0, y=0.0), kernel, steps=6, weight=even).flux / 100 - 1 for t in tests]
        misplaced = 0.5 * np.abs(kernel - truth / truth.sum()).sum()
        out[name] = np.array([misplaced, np.sqrt(np.mean(np.square(flux))), spent])
    return out


def _seen(truth: FloatArray) -> float:
    """FWHM in pixels from the area above half the peak."""
    from scipy.ndimage import zoom

    fine = zoom(truth, 5, order=3)
    return float(2 * np.sqrt((fine > fine.max() / 2).sum() / np.pi) / 5)


if __name__ == "__main__":
    main()
