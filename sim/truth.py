"""What is true of a simulated cutout: masks, coverage, signal to noise, images, and the rows of the truth table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from sim.lensing.images import Images
from sim.lensing.lens import PowerLaw
from sim.population import Deflector, Source
from stages.records import BoolArray, FloatArray

_MASK_SIGMA = 1.5  # an arc pixel stands this far above the noise of all bands together
_MASK_CONTRAST = 0.15  # and has at least this share of the deflector's light in some band
_COVERAGE_BINS = 72
_SUBPIXELS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])  # a pixel near the centre spans several directions
_SEEN_SNR = 5.0  # an image at this signal to noise is above the limit
_NO_LIGHT = 1e-30
_RESOLVED_FWHM = 1.0  # an image this far from every brighter one is told apart


@dataclass(frozen=True, eq=False)
class Arc:
    """How much of a ring a mask shows: coverage in degrees, number of arcs, and length over width of the longest."""

    coverage_deg: float
    n_arcs: int
    stretch: float


def arc_mask(lensed: FloatArray, variance: FloatArray, deflector: FloatArray) -> BoolArray:
    """Pixels (H, W) where lensed extended light (B, H, W) can be seen.

    It stands above the noise of all bands together, and in some band above a share of the deflector's light: what lies
    under a deflector's core nobody can see, however bright it is.
    """
    light = np.clip(lensed, 0, None)
    visible = (light > _MASK_CONTRAST * deflector).any(axis=0)
    mask: BoolArray = ((light**2 / variance).sum(axis=0) > _MASK_SIGMA**2) & visible
    return mask


def arc_snr(lensed: FloatArray, variance: FloatArray, mask: BoolArray) -> float:
    """Signal to noise of the lensed extended light within the mask, in its best band (matched filter)."""
    return float(np.sqrt((lensed**2 / variance * mask).sum(axis=(1, 2))).max())


def arc_contrast(lensed: FloatArray, deflector: FloatArray, mask: BoolArray) -> float:
    """Lensed over deflector light within the mask in the band where that is largest; 0 for an empty mask."""
    if not mask.any():
        return 0.0
    below = np.maximum((deflector * mask).sum(axis=(1, 2)), 1e-30)
    return float(((lensed * mask).sum(axis=(1, 2)) / below).max())


def arc_shape(mask: BoolArray, centre_xy_pix: FloatArray) -> Arc:
    """Coverage about the deflector in 5-degree bins, and the stretch of the longest arc.

    An arc is a run of bins in which the mask has a part of a pixel. Its length is its angle times its mean radius, its
    width its area over its length. The inmost 1.5 pixels do not count.
    """
    y, x = (np.add.outer(c, _SUBPIXELS) for c in np.nonzero(mask))
    x, y = (np.repeat(x, len(_SUBPIXELS), axis=1).ravel(), np.tile(y, len(_SUBPIXELS)).ravel())
    radius = np.hypot(x - centre_xy_pix[0], y - centre_xy_pix[1])
    far = radius > 1.5
    if not far.any():
        return Arc(0.0, 0, float("nan"))
    angle = np.mod(np.arctan2(y - centre_xy_pix[1], x - centre_xy_pix[0])[far], 2 * np.pi)
    bins = np.minimum((angle / (2 * np.pi / _COVERAGE_BINS)).astype(int), _COVERAGE_BINS - 1)
    hit = np.bincount(bins, minlength=_COVERAGE_BINS) > 0
    run = _runs(hit)
    run_of = run[bins]
    stretches = []
    for k in range(run.max() + 1):
        inside = run_of == k
        length = float(radius[far][inside].mean() * np.radians(360.0 / _COVERAGE_BINS) * (run == k).sum())
        stretches.append((length, length**2 / inside.sum() * len(_SUBPIXELS) ** 2))
    return Arc(360.0 * float(hit.mean()), len(stretches), max(stretches)[1])


def _runs(hit: BoolArray) -> npt.NDArray[np.intp]:
    """Number each run of True on a circle from 0; -1 where False."""
    if hit.all():
        return np.zeros(len(hit), np.intp)
    start = int(np.argmin(hit))
    turned = np.roll(hit, -start)
    rises = np.diff(turned.astype(int), prepend=0) == 1
    return np.asarray(np.roll(np.where(turned, np.cumsum(rises) - 1, -1), start))


def point_snr(xy_pix: FloatArray, flux: FloatArray, fwhm_pix: FloatArray, variance: FloatArray) -> FloatArray:
    """Signal to noise (n,) of point sources (n, B) in their best band, from the local variance and the PSF's area."""
    if not len(xy_pix):
        return np.empty(0)
    rows, columns = variance.shape[-2:]
    column = np.clip(np.round(xy_pix[:, 0]).astype(int), 0, columns - 1)
    row = np.clip(np.round(xy_pix[:, 1]).astype(int), 0, rows - 1)
    n_effective = 2.266 * np.maximum(fwhm_pix, 1.2) ** 2
    return np.asarray((flux / np.sqrt(variance[:, row, column].T * n_effective)).max(axis=1))


def point_share(xy_pix: FloatArray, flux: FloatArray, kernels: FloatArray, pixels: FloatArray) -> FloatArray:
    """Part (n,) that points of flux (n, B) have of the light a PSF (B, k, k) takes in there, in their best band.

    1 for a point on dark sky, small for one on a galaxy's or another point's light. pixels : (B, H, W) without noise.
    """
    if not len(xy_pix):
        return np.empty(0)
    rows, columns = pixels.shape[-2:]
    column = np.clip(np.round(xy_pix[:, 0]).astype(int), 0, columns - 1)
    row = np.clip(np.round(xy_pix[:, 1]).astype(int), 0, rows - 1)
    half = kernels.shape[-1] // 2
    stamps = sliding_window_view(np.pad(pixels, ((0, 0), (half, half), (half, half))), kernels.shape[-2:], (1, 2))
    light = np.einsum("bnij,bij->nb", stamps[:, row, column], kernels) / (kernels**2).sum(axis=(1, 2))
    return np.asarray((flux / np.maximum(light, np.maximum(flux, _NO_LIGHT))).max(axis=1))


def resolved(xy_pix: FloatArray, brightness: FloatArray, fwhm_pix: float) -> BoolArray:
    """Which points (n, 2) lie further than one FWHM from every brighter one."""
    gap = np.hypot(*(xy_pix[:, None] - xy_pix[None]).transpose(2, 0, 1))
    brighter = brightness[None, :] > brightness[:, None]
    return np.asarray(~((gap < _RESOLVED_FWHM * fwhm_pix) & brighter).any(axis=1))


def blank_row() -> dict[str, Any]:
    """A truth row of an object that is no lens; every list is empty and every number that lensing gives is NaN."""
    nan = float("nan")
    return {
        "id": "", "system": "", "label": 0, "kind": "", "boost": 1.0,
        "theta_e_arcsec": nan, "slope": nan, "q": nan, "pa_deg": nan, "core_arcsec": nan, "gamma1": nan, "gamma2": nan,
        "z_deflector": nan, "z_source": nan, "velocity_dispersion_km_s": nan, "deflector_kind": "",
        "n_satellites": 0, "n_subhaloes": 0, "source_magnitude": nan, "n_sources": 0,
        "source_x_arcsec": nan, "source_y_arcsec": nan, "deflector_x_pix": nan, "deflector_y_pix": nan,
        "image_x_pix": [], "image_y_pix": [], "image_magnification": [], "image_parity": [], "image_kind": [],
        "image_delay_arcsec2": [], "image_magnitude": [], "image_seen": [], "image_resolved": [],
        "n_images": 0, "n_images_with_centre": 0, "n_images_seen": 0, "parity_sum": 0,
        "point_x_pix": [], "point_y_pix": [], "point_snr": [], "point_share": [],
        "arc_snr": 0.0, "arc_contrast": 0.0, "coverage_deg": 0.0, "n_arcs": 0, "stretch": nan, "magnification": nan,
        "seeing_arcsec": nan, "drawn": "{}",
    }  # fmt: skip


def lens_row(deflector: Deflector, source: Source, found: Images, n_sources: int) -> dict[str, Any]:
    """The part of a truth row that the lens model gives; positions in arcsec become pixels in `image_rows`."""
    main = deflector.mass.parts[0]
    assert isinstance(main, PowerLaw)  # the main deflector goes first
    others = deflector.mass.parts[1:]
    centre = found.kind == 2
    return {
        "label": 1,
        "theta_e_arcsec": deflector.mass.theta_e,
        "slope": main.slope,
        "q": main.q,
        "pa_deg": float(np.degrees(main.pa) % 180.0),
        "core_arcsec": main.core,
        "gamma1": deflector.mass.gamma1,
        "gamma2": deflector.mass.gamma2,
        "z_deflector": deflector.z,
        "z_source": deflector.z_source,
        "velocity_dispersion_km_s": deflector.velocity_dispersion_km_s,
        "deflector_kind": deflector.kind,
        "n_satellites": sum(isinstance(p, PowerLaw) for p in others),
        "n_subhaloes": sum(not isinstance(p, PowerLaw) for p in others),
        "source_magnitude": source.i_magnitude,
        "n_sources": n_sources,
        "source_x_arcsec": source.x,
        "source_y_arcsec": source.y,
        "image_magnification": found.magnification.tolist(),
        "image_parity": np.sign(found.magnification).astype(int).tolist(),
        "image_kind": [("minimum", "saddle", "maximum")[k] for k in found.kind],
        "image_delay_arcsec2": (found.fermat - found.fermat.min(initial=np.inf)).tolist(),
        "n_images": int((~centre).sum()),
        "n_images_with_centre": len(found.x),
        "parity_sum": int(np.sign(found.magnification).sum()),
    }


def image_rows(
    found: Images, unlensed_flux: FloatArray, to_pixel: Callable[[FloatArray], FloatArray],
    magnitude: Callable[[FloatArray], FloatArray], fwhm_pix: FloatArray, variance: FloatArray,
) -> dict[str, Any]:  # fmt: skip
    """Where the images are and what can be seen of them, as if each were a point of the source's flux (B,).

    image_magnitude is AB in the band where the image stands highest above the noise.
    """
    xy = to_pixel(np.column_stack([found.x, found.y])).reshape(-1, 2)
    flux = np.abs(found.magnification)[:, None] * unlensed_flux[None, :]
    snr = point_snr(xy, flux, fwhm_pix, variance)
    apart = resolved(xy, flux.sum(axis=1), float(np.median(fwhm_pix)))
    n_effective = 2.266 * np.maximum(fwhm_pix, 1.2) ** 2
    best = int(np.argmax(unlensed_flux / np.sqrt(np.nanmedian(variance, axis=(1, 2)) * n_effective)))
    with np.errstate(divide="ignore"):
        magnitudes = magnitude(flux)[:, best]
    return {
        "image_x_pix": xy[:, 0].tolist(),
        "image_y_pix": xy[:, 1].tolist(),
        "image_magnitude": magnitudes.tolist(),
        "image_seen": (snr >= _SEEN_SNR).tolist(),
        "image_resolved": apart.tolist(),
        "n_images_seen": int(((snr >= _SEEN_SNR) & apart).sum()),
    }


def as_json(drawn: dict[str, Any]) -> str:
    """Everything that was drawn, as JSON: dataclasses become mappings, arrays become lists of 6 digits."""
    return json.dumps(_plain(drawn), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _plain(v) for k, v in asdict(value).items()}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.size <= 64 else f"array {list(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else float(f"{value:.6g}")
    if isinstance(value, np.integer):
        return int(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
