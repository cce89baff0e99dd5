"""Real cutouts in a survey's own bands and pixels, with their objects found: `backgrounds.py` chooses from these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.real_sky import deflector_light as light
from sim.real_sky.known import Known
from stages.bands import wavelength_nm
from stages.ingest import IngestOptions, Survey
from stages.ingest.names import PICTURE_SUFFIXES, suffix_of
from stages.records import BoolArray, Cutout, FloatArray
from stages.survey import SurveyFacts

_PIXEL_TOLERANCE = 0.03
_RECENTRING_ARCSEC = 3.0
_LARGEST_IMAGE = 4.0  # half a side that is kept of an image, in sides of the survey's cutout
_MIN_STARS, _STAR_SPREAD = 8, 1.15
_R50_PER_FWHM = 0.62  # of stars as measured here: 0.59 for Moffat index 4, 0.63 for 3, 0.66 for 2.5


class BackgroundError(ValueError):
    """A folder that cannot be painted on; the message says what to do."""


@dataclass(frozen=True)
class BackgroundOptions:
    """Where the real sky is.

    folder, catalogue : as for `pipeline.py`; survey : facts of the images; exclude : known candidates to leave out, a
    text file of ids or a table with ids or ra, dec; limit : at most so many backgrounds are kept, evenly by id; parts,
    part : a CSV of place (see `place_of`) and part, and the part whose places alone are used ("": all).
    """

    folder: Path
    survey: SurveyFacts
    catalogue: Path | None = None
    exclude: Path | None = None
    limit: int = 4000
    parts: Path | None = None
    part: str = ""

    def __hash__(self) -> int:
        return hash((self.folder, self.survey.name, self.catalogue, self.exclude, self.limit, self.parts, self.part))

    def request(self) -> dict[str, Any]:
        """What identifies a data set that was painted on it."""
        paths = {name: getattr(self, name) for name in ("folder", "catalogue", "exclude")}
        told = {name: None if path is None else str(path) for name, path in paths.items()} | {"limit": self.limit}
        return told if self.parts is None else told | {"parts": str(self.parts), "part": self.part}

    def chosen(self) -> frozenset[str] | None:
        """Names of the places to use; None for all. Raises BackgroundError for a file that cannot be read."""
        if self.parts is None:
            return None
        try:
            table = pd.read_csv(self.parts, dtype=str, keep_default_na=False)
            return frozenset(table.loc[table["part"] == self.part, "place"])
        except (OSError, ValueError, KeyError) as error:
            raise BackgroundError(f"{self.parts}: cannot be read ({error}). Give a CSV with place and part.") from error


def place_of(cutout: Cutout, of_catalogue: bool) -> str:
    """Name of the piece of sky that a cutout is from: its tile if a catalogue lists it, else itself."""
    return cutout.source if of_catalogue else cutout.id


@dataclass(frozen=True, eq=False)
class Seen:
    """A cutout with its objects found, before the stars of all cutouts have told the PSF."""

    cutout: Cutout
    found: light.Detected
    composite: bool


def read_cutouts(o: BackgroundOptions, rejected: list[tuple[str, str]]) -> Iterator[Seen]:
    """Cutouts with all of the survey's bands on its pixels, objects found; adds (id, reason) of the others."""
    side = o.survey.cutout_arcsec + (_RECENTRING_ARCSEC if o.catalogue is not None else 0.0)
    known = Known() if o.exclude is None else Known.read(o.exclude)
    for one in list(_read(o, o.catalogue, side, known, rejected)):  # a candidate may come after its neighbours
        reason = known.reason(one.cutout, 0.7 * o.survey.cutout_arcsec)
        if reason:
            rejected.append((one.cutout.id, reason))
        else:
            yield one


def read_images(o: BackgroundOptions, rejected: list[tuple[str, str]]) -> Iterator[tuple[Seen, BoolArray]]:
    """Whole images, or the middle of large ones, and where (H, W) a cutout of the survey shows no known candidate.

    A catalogue only tells where known candidates are that `exclude` names.
    """
    known = Known() if o.exclude is None else Known.read(o.exclude)
    if known.ids and o.catalogue is not None:
        listed = Survey(o.folder, IngestOptions(o.catalogue, o.survey, o.survey.cutout_arcsec, workers=0))
        for batch in listed.batches():
            for cutout in batch.cutouts:
                known.note(cutout)
    for one in _read(o, None, _LARGEST_IMAGE * o.survey.cutout_arcsec, known, rejected):
        yield one, known.clear(one.cutout, o.survey.cutout_arcsec)


def _read(
    o: BackgroundOptions, catalogue: Path | None, side_arcsec: float, known: Known, rejected: list[tuple[str, str]]
) -> Iterator[Seen]:
    """What the folder holds, with its objects found; of more than is needed a share that is fixed by the ids."""
    listed = Survey(o.folder, IngestOptions(catalogue, o.survey, side_arcsec, workers=0))
    share, chosen = min(1.0, 4 * o.limit / len(listed)), o.chosen()
    for batch in listed.batches():
        rejected += [(p.id, f"unreadable: {p.reason}") for p in batch.problems if p.reason != "not_an_image"]
        for cutout in batch.cutouts:
            known.note(cutout)
            if chosen is not None and place_of(cutout, o.catalogue is not None) not in chosen:
                rejected.append((cutout.id, "other_part"))
                continue
            if share < 1 and _fraction(cutout.id) > share:
                rejected.append((cutout.id, "not_needed"))
                continue
            made = _seen(cutout, o)
            if isinstance(made, str):
                rejected.append((cutout.id, made))
            else:
                yield made


def _seen(cutout: Cutout, o: BackgroundOptions) -> Seen | str:
    survey = o.survey
    composite = suffix_of(Path(cutout.source)) in PICTURE_SUFFIXES
    if composite and survey.stretch is None:
        raise BackgroundError(
            f"{o.folder}: holds pictures, but survey {survey.name} has no stretch. "
            "Give the facts of the composite, such as --survey cfhtls_composite."
        )
    order = band_order(cutout.bands, survey.bands)
    if order is None or not cutout.valid[order].any(axis=(1, 2)).all():
        return "missing_band"
    if abs(cutout.pixel_scale_arcsec / survey.pixel_scale_arcsec - 1) > _PIXEL_TOLERANCE:
        return "other_pixel_scale"
    cutout = replace(
        cutout, flux=cutout.flux[order], variance=cutout.variance[order], valid=cutout.valid[order],
        bands=survey.bands, psf_fwhm_arcsec=np.asarray(cutout.psf_fwhm_arcsec)[order],
        psf=cutout.psf[order] if cutout.psf.size else cutout.psf,
    )  # fmt: skip
    if composite:  # the noise of a picture is cut off at 0: only the facts know it
        sigma = np.array([survey.sky_sigma.get(band, np.nan) for band in survey.bands])
    else:
        sigma = np.sqrt([_median(plane) for plane in cutout.variance])
    return Seen(cutout, light.detect(cutout.flux, cutout.valid, sigma), composite)


def square(
    cutout: Cutout, centre_xy_pix: FloatArray, size_pix: int
) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray]:
    """Flux, variance and valid (B, n, n) about a position, invalid beyond the image's edge; and the corner's (x, y)."""
    x0, y0 = (int(np.round(v - (size_pix - 1) / 2)) for v in centre_xy_pix)
    height, width = cutout.flux.shape[1:]
    rows, columns = slice(max(y0, 0), min(y0 + size_pix, height)), slice(max(x0, 0), min(x0 + size_pix, width))
    inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
    flux, variance = np.full((2, len(cutout.flux), size_pix, size_pix), np.nan, np.float32)
    valid = np.zeros(flux.shape, bool)
    for target, planes in ((flux, cutout.flux), (variance, cutout.variance), (valid, cutout.valid)):
        target[(slice(None), *inside)] = planes[:, rows, columns]
    return np.where(valid, flux, np.nan).astype(np.float32), variance, valid, np.array([x0, y0])


def psf_width(seen: list[Seen], survey: SurveyFacts) -> tuple[FloatArray, str]:
    """FWHM (B,) in arcsec for images without a PSF of their own, and where it is from."""
    facts = np.array([survey.psf_fwhm_arcsec[band] for band in survey.bands])
    if any(s.composite for s in seen):  # the shift of a composite averages neighbouring pixels
        blur2 = np.mean([d * (1 - d) for d in survey.composite_shift_pix]) * (2.355 * survey.pixel_scale_arcsec) ** 2
        facts = np.sqrt(facts**2 + blur2)
    if seen and all(s.cutout.psf.size for s in seen):
        return np.median([s.cutout.psf_fwhm_arcsec for s in seen], axis=0), "images"
    radii = np.sort(
        np.concatenate([np.empty(0), *(light.star_radii(s.found, survey.pixel_scale_arcsec) for s in seen)])
    )
    typical = float(np.median(facts)) * _R50_PER_FWHM
    radii = radii[(radii > 0.65 * typical) & (radii < 1.3 * typical)]
    ends = np.searchsorted(radii, radii * _STAR_SPREAD)
    within = ends - np.arange(len(radii))
    if not len(radii) or within.max() < _MIN_STARS:
        return facts, "survey facts"
    k = int(np.argmax(within))  # stars crowd at one radius, galaxies do not
    return facts * float(np.median(radii[k : ends[k]])) / typical, "stars"


def band_order(bands: tuple[str, ...], wanted: tuple[str, ...]) -> list[int] | None:
    """Which plane is each wanted band, by name, else by wavelength within 6%; None where one is absent."""
    if bands == ("",) and len(wanted) == 1:
        return [0]
    order: list[int] = []
    for band in wanted:
        if band in bands:
            order.append(bands.index(band))
            continue
        ratio = np.array([wavelength_nm(b) for b in bands]) / wavelength_nm(band)
        if not (np.abs(ratio - 1) < 0.06).any():
            return None
        order.append(int(np.nanargmin(np.abs(ratio - 1))))
    return order


def _median(plane: FloatArray) -> float:
    """Median of what is finite, NaN for nothing."""
    finite = plane[np.isfinite(plane)]
    return float(np.median(finite)) if finite.size else float("nan")


def _fraction(name: str) -> float:
    """A number 0..1 from a name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
