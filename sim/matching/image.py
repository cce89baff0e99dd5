"""What one image of a survey says: noise, objects, profiles of compact ones, headers. Runs in worker processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import sep
from PIL import Image

from sim.matching.header import Said, said
from sim.matching.noise import BandNoise, band_noise, sky_mask
from sim.matching.psf import MoffatFit, fit_moffat, profile
from sim.matching.softening import compact_stamps
from sim.matching.stamp import stamp
from stages.ingest.field import Field, ReadError
from stages.ingest.listing import Entry
from stages.ingest.options import IngestOptions
from stages.ingest.reading import fields_of
from stages.records import BoolArray, FloatArray
from stages.stretch import to_composite
from stages.survey import SurveyFacts

WINDOW_PIX = 1024  # of a larger image, so much about its middle is measured
_MAX_OBJECTS, _PROFILES, _MOST_PROFILES = 400, 8, 40  # profiles in a small cutout and in a large one
_SMALL_ARCMIN2, _LONGEST = 0.16, 1.8
sep.set_sub_object_limit(20000)  # a picture's quantised sky falls into many pieces
_DETECT_SIGMA, _MIN_PIX = 2.5, 5
_PROFILE_SNR = 40.0
_CORE_ARCSEC = 1.2  # an object this near the middle of a small cutout was chosen, not found in the field
_SMALL_ARCSEC = 60.0
_PICTURE = ("png", "jpg", "jpeg", "tif", "tiff")
_Fits = dict[str, list[MoffatFit | None]]
_Arrays = dict[str, list[FloatArray | None]]


@dataclass(frozen=True, eq=False)
class ImageStats:
    """One image without its pixels.

    objects : a row for each detection: x, y, total flux `flux_BAND`, aperture flux `colour_BAND` and its `error_BAND`,
    chosen (the cutout's own object), near_edge. profiles : by band, fits to compact isolated objects, None where a fit
    failed; rings : mean star-like profile by object. stars : stamps of a picture's
    compact objects. kernels : delivered PSFs by band. stamps : by band, as profiles, the pixels of those that may be
    stars, without the image's sky and NaN where they are not theirs (`matching.stamp`); None of others.
    """

    name: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    reasons: tuple[str, ...]
    area_arcmin2: float
    noise: dict[str, BandNoise]
    header_fwhm_arcsec: dict[str, float]
    said: Said
    objects: pd.DataFrame
    profiles: dict[str, list[MoffatFit | None]]
    rings: dict[str, list[FloatArray | None]]
    kernels: dict[str, FloatArray]
    quiet: FloatArray | None = None
    picture: bool = False
    stars: FloatArray = field(default_factory=lambda: np.zeros((0, 1, 1)))
    stamps: dict[str, list[FloatArray | None]] = field(default_factory=dict)


def measure_entry(
    entry: Entry, options: IngestOptions, facts: SurveyFacts | None, seed: int
) -> list[ImageStats | tuple[str, str, str]]:
    """Statistics of each image of an entry, or (name, reason, message) where there is none."""
    out: list[ImageStats | tuple[str, str, str]] = []
    name = entry.ids[0] if len(entry.ids) == 1 else entry.source
    if entry.kind in ("side", "bad"):
        return [] if entry.kind == "side" else [(name, entry.reason, entry.message)]
    try:
        with np.errstate(all="ignore"):
            found = fields_of(entry, options)
    except ReadError as error:
        return [(name, error.reason, str(error))]
    except Exception as error:  # a file that no reader foresaw must not end the measurement of the others
        return [(name, "unreadable", f"{type(error).__name__}: {error}. Copy or make the file anew.")]
    for k, piece in enumerate(found):
        if isinstance(piece, ReadError):
            out.append((name, piece.reason, str(piece)))
            continue
        try:
            with np.errstate(all="ignore"):
                out.append(measure(piece, entry, facts, np.random.default_rng([seed, k])))
        except Exception as error:  # sep raises bare ones
            out.append((name, "not_measured", f"{type(error).__name__}: {error}. Look at the image."))
    return out


def measure(piece: Field, entry: Entry, facts: SurveyFacts | None, rng: np.random.Generator) -> ImageStats:
    """Measure one field."""
    piece = _window(piece)
    picture = entry.path.name.lower().endswith(_PICTURE)
    full = _saturated(piece, facts) if picture else np.zeros(piece.flux.shape, bool)
    order = sorted(range(len(piece.bands)), key=lambda k: _wavelength(piece.bands[k]))
    bands = tuple(piece.bands[k] or f"band{k}" for k in order)
    flux, valid = np.nan_to_num(piece.flux[order]).astype(float), piece.valid[order]
    variance, full = piece.variance[order], full[order]
    sky = sky_mask(flux, valid, clipped=picture)
    noise = {}
    for k, band in enumerate(bands):
        got = band_noise(flux[k], variance[k], valid[k], sky, rng)
        if got is not None:
            noise[band] = got
    words = said(entry, bands, piece.pixel_scale_arcsec)
    for k, band in enumerate(bands):
        if band in words.saturation:
            full[k] |= flux[k] > 0.8 * words.saturation[band][0]
    objects, profiles, rings, stamps = _objects(flux, valid, full, bands, noise, piece)
    kernels = {band: piece.psf[order[k]] for k, band in enumerate(bands)} if piece.psf.size else {}
    fwhm = {b: float(piece.psf_fwhm_arcsec[order[k]]) for k, b in enumerate(bands)}
    if facts is not None:  # what the reader filled in is not measured
        fwhm = {b: v if v != facts.psf_fwhm_arcsec.get(b) else float("nan") for b, v in fwhm.items()}
    area = valid.any(axis=0).sum() * (piece.pixel_scale_arcsec / 60) ** 2
    quiet = _quiet(piece, facts, sky) if picture else None
    return ImageStats(
        entry.ids[0], bands, piece.pixel_scale_arcsec, piece.reasons, float(area), noise, fwhm, words, objects,
        profiles, rings, kernels, quiet, picture,
        _stamps(entry) if picture else np.zeros((0, 1, 1)), {} if picture else stamps,
    )  # fmt: skip


def _window(piece: Field) -> Field:
    rows, columns = piece.flux.shape[1:]
    if max(rows, columns) <= WINDOW_PIX:
        return piece
    y, x = max(0, (rows - WINDOW_PIX) // 2), max(0, (columns - WINDOW_PIX) // 2)
    part = (slice(None), slice(y, y + WINDOW_PIX), slice(x, x + WINDOW_PIX))
    return replace(piece, flux=piece.flux[part], variance=piece.variance[part], valid=piece.valid[part])


def _objects(
    flux: FloatArray,
    valid: BoolArray,
    full: BoolArray,
    bands: tuple[str, ...],
    noise: dict[str, BandNoise],
    piece: Field,
) -> tuple[pd.DataFrame, _Fits, _Arrays, _Arrays]:
    known = [k for k, b in enumerate(bands) if b in noise]
    profiles: _Fits = {b: [] for b in bands}
    rings: _Arrays = {b: [] for b in bands}
    stamps: _Arrays = {b: [] for b in bands}
    if not known:
        return pd.DataFrame(), profiles, rings, stamps
    planes = {k: np.where(valid[k], flux[k] - noise[bands[k]].level, 0.0) for k in known}
    total = np.ascontiguousarray(sum(planes[k] / noise[bands[k]].sigma for k in known) / np.sqrt(len(known)))
    bad = ~valid[known].any(axis=0)
    found, owner = sep.extract(
        total, _DETECT_SIGMA, err=1.0, mask=bad, minarea=_MIN_PIX, deblend_cont=0.005, segmentation_map=True
    )
    order = np.argsort(-found["flux"])[:_MAX_OBJECTS]
    found = found[order]
    table = pd.DataFrame({"x": found["x"], "y": found["y"], "snr": np.nan, "profile": -1})
    if not len(found):
        return table, profiles, rings, stamps
    radius = max(0.8 / piece.pixel_scale_arcsec, 2.5)
    a, b = np.maximum(found["a"], 1.0), np.maximum(found["b"], 1.0)
    for k in known:
        band, sigma = bands[k], noise[bands[k]].sigma
        data = np.ascontiguousarray(planes[k])
        small, error, _ = sep.sum_circle(data, found["x"], found["y"], radius, err=sigma, mask=~valid[k])
        whole, _, _ = sep.sum_ellipse(
            data, found["x"], found["y"], a, b, np.clip(found["theta"], -1.57, 1.57), 3.0, mask=~valid[k]
        )
        table[f"colour_{band}"], table[f"error_{band}"], table[f"flux_{band}"] = small, error, whole
    table["snr"] = np.max([table[f"colour_{bands[k]}"] / table[f"error_{bands[k]}"] for k in known], axis=0)
    rows, columns = flux.shape[1:]
    middle = np.hypot(table["x"] - (columns - 1) / 2, table["y"] - (rows - 1) / 2) * piece.pixel_scale_arcsec
    small_image = max(rows, columns) * piece.pixel_scale_arcsec < _SMALL_ARCSEC
    table["chosen"] = small_image & (middle < _CORE_ARCSEC)
    tried = _profiles(table, found, planes, valid, full, bands, noise, piece, profiles, rings)
    for k, band in enumerate(bands):
        for fit, n in zip(profiles[band], tried, strict=True):
            middle = round(float(found["x"][n])), round(float(found["y"][n]))
            own = valid[k] & ((owner == 0) | (owner == order[n] + 1))
            stamps[band].append(stamp(planes[k], own, middle, fit) if k in planes and fit is not None else None)
    return table, profiles, rings, stamps


def _profiles(
    table: pd.DataFrame, found: np.ndarray, planes: dict[int, FloatArray], valid: BoolArray, full: BoolArray,
    bands: tuple[str, ...], noise: dict[str, BandNoise], piece: Field,
    profiles: _Fits, rings: _Arrays,
) -> list[int]:  # fmt: skip
    """Fit the most compact bright objects that stand alone; fills the lists and the table's column `profile`.

    Returns their rows.
    """
    half = int(np.clip(np.ceil(1.6 / piece.pixel_scale_arcsec), 6, 16))
    rows, columns = next(iter(planes.values())).shape
    x, y = np.round(found["x"]).astype(int), np.round(found["y"]).astype(int)
    inside = (x >= half) & (y >= half) & (x < columns - half) & (y < rows - half)
    apart = np.hypot(found["x"][:, None] - found["x"], found["y"][:, None] - found["y"]) + 1e9 * np.eye(len(found))
    rival = (apart < 1.3 * half) & (found["flux"][None, :] > 0.05 * found["flux"][:, None])
    round_ = found["a"] < _LONGEST * found["b"]
    snr = table["snr"].to_numpy()
    chosen = np.flatnonzero(inside & round_ & ~rival.any(axis=1) & (snr > _PROFILE_SNR))
    area = rows * columns * (piece.pixel_scale_arcsec / 60) ** 2
    most = int(np.clip(_PROFILES * area / _SMALL_ARCMIN2, _PROFILES, _MOST_PROFILES))
    tried = [int(k) for k in chosen[np.argsort(-snr[chosen])][:most]]
    for number, k in enumerate(tried):
        part = (slice(y[k] - half, y[k] + half + 1), slice(x[k] - half, x[k] + half + 1))
        table.loc[k, "profile"] = number
        for plane, band in enumerate(bands):
            fit = None
            if plane in planes and not full[plane][part].any():
                fit = fit_moffat(planes[plane][part], valid[plane][part], noise[band].sigma)
            profiles[band].append(fit)
            seen = fit is not None and fit.snr > 15
            rings[band].append(profile(planes[plane][part], fit) if fit is not None and seen else None)
    return tried


def kernel_fit(kernel: FloatArray) -> MoffatFit | None:
    """A delivered PSF as a Moffat profile; its noise is taken as a thousandth of the peak."""
    side = min(kernel.shape) // 2 * 2 - 1
    y, x = ((n - side) // 2 for n in kernel.shape)
    data = kernel[y : y + side, x : x + side].astype(float)
    if not np.isfinite(data).all() or data.max() <= 0:
        return None
    return fit_moffat(data, np.ones(data.shape, bool), float(data.max()) / 1000)


def _saturated(piece: Field, facts: SurveyFacts | None) -> BoolArray:
    """Pixels of a composite at its white end, in the field's band order."""
    shown = _shown(piece, facts)
    return np.asarray(shown.transpose(2, 0, 1) >= 250) if shown is not None else np.zeros(piece.flux.shape, bool)


def _quiet(piece: Field, facts: SurveyFacts | None, sky: BoolArray) -> FloatArray | None:
    """Statistics (3, 9) of a composite's quiet 8-bit pixels, red first; see `match_stretch.quiet_statistics`."""
    from sim.matching.stretch import quiet_statistics

    shown = _shown(piece, facts)
    return None if shown is None or sky.sum() < 500 else quiet_statistics(shown, sky)


def _stamps(entry: Entry) -> FloatArray:
    """Stamps of a picture's compact objects, whatever its stretch."""
    with Image.open(entry.path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    return compact_stamps(picture[:WINDOW_PIX, :WINDOW_PIX])


def _shown(piece: Field, facts: SurveyFacts | None) -> np.ndarray | None:
    if len(piece.bands) != 3 or facts is None or facts.stretch is None:
        return None
    return to_composite(piece.flux, facts.stretch)


def _wavelength(band: str) -> float:
    from stages.bands import wavelength_nm

    value = wavelength_nm(band)
    return value if np.isfinite(value) else np.inf
