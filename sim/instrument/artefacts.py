"""What a detector, the sky and its brightest stars add to a cutout or take from it; the same for every object drawn.

Nothing here is told what the cutout shows. Haloes and spikes of stars inside the frame are part of the PSF
(`sim/instrument/psf.py`); this file adds those that come in from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.instrument.psf import HALO_ARCSEC, SPIKE_ARCSEC, SPIKE_FRACTION, spike_lines
from stages.bands import wavelength_nm
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

if TYPE_CHECKING:
    from sim.observe import Optics

_STAR_REACH_ARCSEC = 90.0  # stars beyond this leave less than the sky residual inside
_STAR_SLOPE = 0.22  # d log N / dm of stars at high latitude (Bahcall & Soneira 1980)
_MOST_HITS = {"ground": 0.03, "space": 3.0}  # masked hits per square arcsec of the worst cutouts (space: HST snapshots)
_STAR_LIMITS = (9.0, 17.0)  # i magnitudes: fainter ones leave nothing, brighter ones are masked by every survey


def additive(rng: np.random.Generator, survey: SurveyFacts, optics: Optics) -> FloatArray:
    """Light (B, H, W) in flux units: left-over sky, stars outside the frame, trails, ghosts, unmasked cosmic rays."""
    size = optics.sampling.size_pix
    sky = np.array([survey.sky_sigma[band] for band in survey.bands])
    level = np.array([survey.sky_level.get(band, 0.0) for band in survey.bands])
    out = sky[:, None, None] * (survey.sky_residual * _smooth(rng, len(sky), size) + level[:, None, None])
    out += outer_stars(rng, survey, optics)
    if _happens(rng, survey, "satellite_trail"):
        band = _one_band(rng, survey)
        height = sky[band] * 10 ** rng.uniform(-0.3, 1.0)
        out[band] += height * trail(rng, size, float(optics.fwhm[band]) / survey.pixel_scale_arcsec)
    if _happens(rng, survey, "moving_object"):
        out += moving_object(rng, survey, optics)
    if _happens(rng, survey, "ghost"):
        level = sky * 10 ** rng.uniform(-0.7, 0.3)
        out += level[:, None, None] * ghost(rng, size, survey.pixel_scale_arcsec)
    if _happens(rng, survey, "unmasked_cosmic_rays"):
        hits = tracks(rng, size, int(rng.integers(1, 4)))
        band = _one_band(rng, survey)
        out[band] += sky[band] * 10 ** rng.uniform(0.8, 2.3) * hits
    return np.asarray(out, np.float32)


def defects(rng: np.random.Generator, survey: SurveyFacts, size: int) -> BoolArray:
    """Valid mask (B, size, size) with a survey's usual losses: masked cosmic rays, columns, chip edges."""
    valid = np.ones((len(survey.bands), size, size), bool)
    if _happens(rng, survey, "cosmic_rays"):
        most = _MOST_HITS[survey.kind] * (size * survey.pixel_scale_arcsec) ** 2
        hits = tracks(rng, size, 1 + int(most * rng.random() ** 2))
        valid[_one_band(rng, survey)] &= hits == 0
    if _happens(rng, survey, "masked_column"):
        band = _one_band(rng, survey) if rng.random() < 0.5 else slice(None)
        column, width = int(rng.integers(0, size)), int(rng.integers(1, 4))
        side = valid if rng.random() < 0.8 else valid.transpose(0, 2, 1)
        side[band, :, column : column + width] = False
    if _happens(rng, survey, "chip_edge"):
        band = _one_band(rng, survey) if rng.random() < 0.5 else slice(None)
        valid[band] &= ~_beyond_edge(rng, size)
    return valid


def saturate(flux: FloatArray, survey: SurveyFacts) -> FloatArray:
    """Flux (B, H, W) clipped where pixels are full; in a CCD the surplus spills along the column, up and down alike."""
    out = np.array(flux)
    for plane, band in enumerate(survey.bands):
        full = survey.saturation.get(band, np.inf)
        above = out[plane] > full
        if not above.any():
            continue
        if survey.bleeds:
            for column in np.flatnonzero(above.any(axis=0)):
                _spill(out[plane, :, column], full)
        out[plane] = np.minimum(out[plane], full)
    return out


def outer_stars(rng: np.random.Generator, survey: SurveyFacts, optics: Optics) -> FloatArray:
    """Aureoles and spikes (B, H, W) of bright stars that lie outside the frame."""
    frame = optics.sampling
    out = np.zeros((len(survey.bands), frame.size_pix, frame.size_pix), np.float32)
    low, high = _STAR_LIMITS
    number = survey.star_density_per_arcmin2 * 10 ** (_STAR_SLOPE * (high - 23.0))
    half = frame.size_pix * frame.pixel_arcsec / 2
    area = (2 * (half + _STAR_REACH_ARCSEC)) ** 2 / 3600
    angle = np.radians(rng.uniform(0, 360) if survey.spike_angle_deg is None else survey.spike_angle_deg)
    for _ in range(int(rng.poisson(number * area))):
        x, y = rng.uniform(-half - _STAR_REACH_ARCSEC, half + _STAR_REACH_ARCSEC, 2)
        magnitude = max(high + np.log10(1 - rng.random()) / _STAR_SLOPE, low)
        colour = rng.uniform(0.0, 2.0)  # g - i of field stars (Covey et al. 2007)
        if max(abs(x), abs(y)) > half:
            _add_wings(out, survey, optics, (float(x), float(y)), _star_flux(survey, magnitude, colour), float(angle))
    return out


def trail(rng: np.random.Generator, size: int, width_pix: float) -> FloatArray:
    """A straight satellite trail of unit height across a frame (size, size), as wide as the seeing."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6) * size
    axis = np.arange(size) - (size - 1) / 2
    across = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle) - offset
    sigma = width_pix / 2.355 * rng.uniform(1.0, 1.6)
    return np.asarray(np.exp(-0.5 * (across / sigma) ** 2))


def moving_object(rng: np.random.Generator, survey: SurveyFacts, optics: Optics) -> FloatArray:
    """An asteroid or a flashing satellite (B, H, W): a dash in each exposure that caught it, so in one band or in some.

    Bands were taken one after the other: the dashes of a slow object lie on one line, each at another place and colour.
    """
    frame = optics.sampling
    axis = (np.arange(frame.size_pix) - (frame.size_pix - 1) / 2) * frame.pixel_arcsec
    angle, half = rng.uniform(0, 2 * np.pi), frame.size_pix * frame.pixel_arcsec / 2
    length, step = rng.exponential(1.0), rng.exponential(1.5)
    x0, y0 = rng.uniform(-half, half, 2)
    number = int(rng.integers(2, len(survey.bands) + 1)) if len(survey.bands) > 1 and rng.random() < 0.5 else 1
    out = np.zeros((len(survey.bands), frame.size_pix, frame.size_pix))
    brightness = 10 ** rng.uniform(0.7, 2.3)
    for turn, band in enumerate(rng.permutation(len(survey.bands))[:number]):
        sigma = float(optics.fwhm[band]) / 2.355
        place = turn * (length + step) + np.linspace(0, length, int(length / sigma) + 2)
        x = np.exp(-0.5 * ((axis[None, :] - x0 - place[:, None] * np.cos(angle)) / sigma) ** 2)
        y = np.exp(-0.5 * ((axis[None, :] - y0 - place[:, None] * np.sin(angle)) / sigma) ** 2)
        dash = y.T @ x
        peak = brightness * rng.uniform(0.5, 1.5) * survey.sky_sigma[survey.bands[band]]
        out[band] = peak * dash / max(float(dash.max()), 1.0)
    return out


def ghost(rng: np.random.Generator, size: int, pixel_arcsec: float) -> FloatArray:
    """Part of an out-of-focus reflection (size, size) of unit height: a soft-edged disc with a hole."""
    radius = rng.uniform(10, 60) / pixel_arcsec
    angle, axis = rng.uniform(0, 2 * np.pi), np.arange(size) - (size - 1) / 2
    distance = radius * rng.uniform(0.4, 1.1)
    r = np.hypot(axis[None, :] - distance * np.cos(angle), axis[:, None] - distance * np.sin(angle)) / radius
    soft = 2.0 / radius
    return np.asarray(1 / (1 + np.exp((r - 1) / soft)) / (1 + np.exp((0.35 - r) / soft)))


def tracks(rng: np.random.Generator, size: int, number: int) -> FloatArray:
    """Cosmic rays (size, size), 0 where none went: short straight tracks one or two pixels wide, of varied charge."""
    out = np.zeros((size, size))
    for _ in range(number):
        length, angle = min(rng.exponential(3.0) + 1, size / 2), rng.uniform(0, 2 * np.pi)
        x0, y0 = rng.uniform(0, size, 2)
        t = np.arange(0, length, 0.5)
        x, y = np.rint(x0 + t * np.cos(angle)).astype(int), np.rint(y0 + t * np.sin(angle)).astype(int)
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        out[y[inside], x[inside]] = rng.uniform(0.3, 1.0, int(inside.sum()))
    return out


def _smooth(rng: np.random.Generator, bands: int, size: int) -> FloatArray:
    """Low-order surfaces (B, size, size) of rms 1 on average; half of what is left is common to all bands."""
    axis = np.linspace(-1, 1, size)
    parts = [np.full_like(axis, 1.0), np.sqrt(3.0) * axis, np.sqrt(5.0) / 2 * (3 * axis**2 - 1)]
    terms = [(i, j) for i in range(3) for j in range(3) if i + j <= 2]
    weight = np.array([1.0 / (1 + i + j) for i, j in terms])
    weight /= np.sqrt((weight**2).sum())
    common, own = rng.normal(size=len(terms)), rng.normal(size=(bands, len(terms)))
    amplitude = weight * np.sqrt(0.5) * (common + own)
    basis = np.stack([parts[i][:, None] * parts[j][None, :] for i, j in terms])
    return np.asarray(np.tensordot(amplitude, basis, axes=1))


def _add_wings(
    out: FloatArray, survey: SurveyFacts, optics: Optics, xy: tuple[float, float], flux: FloatArray, angle: float
) -> None:
    """Add the aureole and spikes of a star outside to light (B, H, W); profiles as in `psf.py`, core left out."""
    frame = optics.sampling
    axis = ((np.arange(frame.size_pix) - (frame.size_pix - 1) / 2) * frame.pixel_arcsec).astype(np.float32)
    dx, dy = axis[None, :] - np.float32(xy[0]), axis[:, None] - np.float32(xy[1])
    pixel = (flux * frame.pixel_arcsec**2).astype(np.float32)[:, None, None]
    if survey.halo_fraction > 0:
        r2 = dx**2 + dy**2
        norm = survey.halo_fraction / (2 * np.pi * HALO_ARCSEC**2)
        out += pixel * (np.float32(norm) * (1 + r2 / np.float32(HALO_ARCSEC**2)) ** np.float32(-1.5))
    lines = spike_lines(survey.spikes, angle)
    reach = axis[-1] * np.sqrt(2)
    sigma = np.hypot(optics.fwhm / 2.355, 0.1 * frame.pixel_arcsec).astype(np.float32)[:, None, None]
    for cos, sin in lines:
        if abs(xy[1] * cos - xy[0] * sin) > reach + 4 * float(sigma.max()):
            continue  # passes the frame by
        along, across = dx * np.float32(cos) + dy * np.float32(sin), dy * np.float32(cos) - dx * np.float32(sin)
        line = SPIKE_FRACTION / len(lines) / (np.pi * SPIKE_ARCSEC * (1 + (along / SPIKE_ARCSEC) ** 2))
        out += pixel * line * np.exp(-0.5 * (across / sigma) ** 2) / (np.float32(np.sqrt(2 * np.pi)) * sigma)


def _star_flux(survey: SurveyFacts, magnitude_i: float, colour_gi: float) -> FloatArray:
    """Flux (B,) of a star whose magnitudes are straight in 1 / wavelength."""
    wavelength = np.array([wavelength_nm(band) for band in survey.bands])
    wavelength = np.where(np.isfinite(wavelength), wavelength, 763.0)
    bluer = (1 / wavelength - 1 / 763.0) / (1 / 475.0 - 1 / 763.0)
    zero = np.array([survey.zero_point[band] for band in survey.bands])
    return np.asarray(10 ** (0.4 * (zero - magnitude_i - colour_gi * np.clip(bluer, -1, 1))))


def _spill(column: FloatArray, full: float) -> None:
    """Move what a column's full pixels hold too much to the nearest free ones on both sides, in place."""
    for start, stop in _runs(column > full):
        surplus = float((column[start:stop] - full).sum())
        column[start:stop] = full
        for way in (range(start - 1, -1, -1), range(stop, len(column))):
            left = surplus / 2
            for pixel in way:
                taken = min(max(full - column[pixel], 0.0), left)
                column[pixel] += taken
                left -= taken
                if left <= 0:
                    break


def _runs(flags: BoolArray) -> list[tuple[int, int]]:
    """First and past-last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _beyond_edge(rng: np.random.Generator, size: int) -> BoolArray:
    """Pixels beyond a chip's edge: a straight cut through the outer third, level or a little turned."""
    tilt = 0.0 if rng.random() < 0.7 else rng.uniform(-0.3, 0.3)
    cut = rng.integers(1, max(2, size // 3))
    axis = np.arange(size)
    beyond = axis[None, :] + tilt * (axis[:, None] - size / 2) < cut
    return np.asarray(np.rot90(beyond, int(rng.integers(0, 4))))


def _happens(rng: np.random.Generator, survey: SurveyFacts, name: str) -> bool:
    return bool(rng.random() < survey.artefact_rates.get(name, 0.0))


def _one_band(rng: np.random.Generator, survey: SurveyFacts) -> int:
    return int(rng.integers(0, len(survey.bands)))
