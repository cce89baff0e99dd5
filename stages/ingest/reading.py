"""Read entries: each becomes cutouts, or problems that say why not. Runs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.ingest import arrays, fits_files, pictures
from stages.ingest.cutting import centre, cut
from stages.ingest.field import Field, ReadError
from stages.ingest.listing import Entry
from stages.ingest.options import IngestOptions
from stages.ingest.survey_psf import with_survey_psf
from stages.records import Cutout, CutoutBatch, FloatArray, Problem

Answer = Cutout | Problem
_LARGEST_CUTOUT_ARCSEC = 90.0


def read_batch(found: Sequence[Entry], options: IngestOptions) -> CutoutBatch:
    """Cutouts and problems of some entries, in their order."""
    answers = [a for entry in found for a in read_entry(entry, options)]
    return CutoutBatch(
        tuple(a for a in answers if isinstance(a, Cutout)), tuple(a for a in answers if isinstance(a, Problem))
    )


def read_entry(entry: Entry, options: IngestOptions) -> list[Answer]:
    """One answer for each object of an entry; whatever a file does, its objects are accounted for."""
    try:
        if entry.kind == "side":
            return [Problem("", entry.source, "skipped", entry.reason, entry.message)]
        if entry.kind == "bad":
            return [_skipped(entry, k, ReadError(entry.reason, entry.message)) for k in range(len(entry.ids))]
        with np.errstate(all="ignore"):  # wild pixels overflow; they are marked invalid
            answers = _tile(entry, options) if entry.kind == "tile" else _objects(entry, options)
            return _with_psf(answers, entry, options) if options.survey_psf else answers
    except ReadError as error:
        return [_skipped(entry, k, error) for k in range(len(entry.ids))]
    except MemoryError:
        fault = ReadError("too_large", "The file does not fit in memory. Cut it into smaller tiles.")
        return [_skipped(entry, k, fault) for k in range(len(entry.ids))]
    except Exception as error:  # last resort: a file that no reader foresaw must not lose the rest of the survey
        fault = ReadError("unreadable", f"{type(error).__name__}: {error}. Copy or make the file anew.")
        return [_skipped(entry, k, fault) for k in range(len(entry.ids))]


def fields_of(entry: Entry, options: IngestOptions) -> list[Field | ReadError]:
    """The fields of an entry's files."""
    if entry.kind == "array":
        return arrays.read(entry.path, entry.rows, options.survey)
    if _is_picture(entry):
        return [pictures.read(entry.path, options.survey)]
    if len(entry.files) > 1 or entry.files[0][0] != ("", ""):
        field = fits_files.read_bands(dict(entry.files), options.survey)
        lacking = set(entry.expected_bands) - set(field.bands)
        return [field.because("missing_band") if lacking else field]
    return fits_files.read(entry.path, options.survey)


def _with_psf(answers: list[Answer], entry: Entry, options: IngestOptions) -> list[Answer]:
    """Cutouts with the PSF of the survey that they were read with, a picture's own where its name tells it."""
    facts = options.survey
    if _is_picture(entry):
        facts = pictures.survey_of(entry.path, facts)
    if facts is None:
        return answers
    return [with_survey_psf(a, facts) if isinstance(a, Cutout) else a for a in answers]


def _is_picture(entry: Entry) -> bool:
    return entry.kind == "picture" or (entry.kind == "tile" and not entry.path.name.lower().endswith(_FITS))


_FITS = (".fits", ".fit", ".fts", ".gz", ".fz")


def _objects(entry: Entry, options: IngestOptions) -> list[Answer]:
    found = fields_of(entry, options)
    stacked = len(found) != len(entry.ids)  # a FITS file of several objects
    ids = [f"{entry.ids[0]}-{k}" for k in range(len(found))] if stacked else list(entry.ids)
    out: list[Answer] = []
    for name, field in zip(ids, found, strict=True):
        if isinstance(field, ReadError):
            out.append(Problem(name, entry.source, "skipped", field.reason, str(field)))
            continue
        if options.survey is not None:
            field = _expected(field, options.survey.bands)
        if max(field.flux.shape[1:]) * field.pixel_scale_arcsec > _LARGEST_CUTOUT_ARCSEC:
            field = field.because("only_centre_searched")
        out.append(cut(field, name, entry.source, centre(field), options.cutout_arcsec, pad=False))
    return out


def _expected(field: Field, bands: tuple[str, ...]) -> Field:
    """Say so where the survey's bands are not all there."""
    return field.because("missing_band") if set(bands) - set(field.bands) else field


def _tile(entry: Entry, options: IngestOptions) -> list[Answer]:
    assert entry.xy_pix is not None  # a tile has both
    assert entry.radec_deg is not None
    field = fields_of(entry, options)[0]
    if isinstance(field, ReadError):
        raise field
    xy = pixel_positions(field, entry.xy_pix, entry.radec_deg)
    height, width = field.flux.shape[1:]
    out: list[Answer] = []
    for k, name in enumerate(entry.ids):
        if not np.isfinite(xy[k]).all():
            fault = ReadError("bad_position", "Neither x, y nor ra, dec with a WCS give a position. Correct the row.")
            out.append(_skipped(entry, k, fault))
        elif not (-0.5 <= xy[k, 0] < width - 0.5 and -0.5 <= xy[k, 1] < height - 0.5):
            fault = ReadError(
                "outside_tile", f"Position {xy[k].round(1).tolist()} is off the tile ({width} x {height})."
            )
            out.append(_skipped(entry, k, fault))
        else:
            cutout = cut(field, name, entry.source, xy[k], options.cutout_arcsec, pad=True)
            if not cutout.valid.any():
                out.append(
                    _skipped(entry, k, ReadError("no_valid_pixels", "The tile is masked all around the object."))
                )
            else:
                out.append(_with_position(cutout, entry.radec_deg[k]))
    return out


def pixel_positions(field: Field, xy_pix: FloatArray, radec_deg: FloatArray) -> FloatArray:
    """Positions (n, 2) on a tile: x, y where given, else ra, dec through its WCS, else NaN."""
    xy = xy_pix.astype(float).copy()
    missing = ~np.isfinite(xy).all(axis=1) & np.isfinite(radec_deg).all(axis=1)
    if missing.any() and field.wcs is not None:
        xy[missing] = np.column_stack(field.wcs.world_to_pixel_values(*radec_deg[missing].T))
    return xy


def _with_position(cutout: Cutout, radec_deg: FloatArray) -> Cutout:
    """A catalogue's own coordinates go before those of the WCS."""
    if not np.isfinite(radec_deg).all():
        return cutout
    return replace(cutout, ra_deg=float(radec_deg[0]), dec_deg=float(radec_deg[1]))


def _skipped(entry: Entry, k: int, error: ReadError) -> Problem:
    return Problem(entry.ids[k], entry.source, "skipped", error.reason, str(error))
