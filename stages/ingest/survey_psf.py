"""The PSF that a survey file tells, for cutouts that bring none: measured kernels, else a Moffat's index.

Kernels are read once in each process. Cutouts on pixels of one size share one array, which cannot be written to.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import isfinite, log, nan
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import map_coordinates, spline_filter

from stages.ingest.field import stacked
from stages.ingest.options import InputError
from stages.records import Cutout, FloatArray
from stages.survey import SurveyFacts

_STEP = 1.01  # kernels are kept at sizes that are this factor apart
_MOST = 8.0  # by which pixels or seeing may differ from the survey's; beyond that a kernel tells nothing
_MOST_PIX = 513  # side of a kernel


def check(facts: SurveyFacts) -> None:
    """Read every kernel of a survey file; raises InputError naming the first that cannot be used."""
    for file in facts.psf_files.values():
        _measured(file)


def with_survey_psf(cutout: Cutout, facts: SurveyFacts) -> Cutout:
    """The same with the survey's kernels where the cutout has none, and its Moffat index; the seeing stays as it is.

    A kernel is put on the cutout's pixels, and widened by the seeing of the cutout over the survey's, as the simulator
    does. An index not measured belongs to the ground: of a space survey it is the default.
    """
    told = facts.kind == "ground" or "psf_beta" in facts.measured
    beta = facts.psf_beta if told else nan
    if cutout.psf.size or not facts.psf_files:
        return replace(cutout, psf_beta=beta)
    files = tuple(facts.psf_files.get(band, "") for band in cutout.bands)
    median = (facts.psf_fwhm_arcsec.get(band, nan) for band in cutout.bands)
    wider = tuple(_stepped(own / usual) for own, usual in zip(cutout.psf_fwhm_arcsec.tolist(), median, strict=True))
    finer = _stepped(facts.pixel_scale_arcsec / cutout.pixel_scale_arcsec)
    return replace(cutout, psf=_kernels(files, finer, wider), psf_beta=beta)


def _stepped(ratio: float) -> float:
    """A ratio to the nearest step, 1 where it is not known."""
    return _STEP ** round(log(ratio) / log(_STEP)) if isfinite(ratio) and ratio > 0 else 1.0


@lru_cache(maxsize=64)
def _kernels(files: tuple[str, ...], finer: float, wider: tuple[float, ...]) -> FloatArray:
    """(B, h, w), zero in bands without a file ("") or with one of far other pixels; (0, 0, 0) where all are."""
    usable = [bool(file) and _near(finer) and _near(w) for file, w in zip(files, wider, strict=True)]
    found = [_resampled(files[k], finer, wider[k]) if usable[k] else None for k in range(len(files))]
    known = [k for k, kernel in enumerate(found) if kernel is not None]
    planes = stacked([found[k] for k in known])
    out = np.zeros((len(files) if known else 0, *planes.shape[1:]), np.float32)
    out[known] = planes
    out.setflags(write=False)
    return out


def _near(ratio: float) -> bool:
    return 1 / _MOST < ratio < _MOST


@lru_cache(maxsize=256)
def _resampled(file: str, finer: float, wider: float) -> FloatArray:
    """A kernel on pixels `finer` times smaller, its shape `wider`; larger pixels average what falls into them."""
    kernel = _measured(file)
    if finer == wider == 1:
        return kernel
    factor = finer * wider
    side = min(2 * int(np.ceil(factor * max(kernel.shape) / 2)) + 1, _MOST_PIX)
    # A kernel holds its own pixel's share already: the box that makes it that of a larger one is narrower than both.
    box = float(np.sqrt(max(finer**-2.0 - 1, 0.0))) / wider
    parts = int(np.ceil(2 * box)) if box else 1
    inner = box * ((np.arange(parts) + 0.5) / parts - 0.5)
    at = ((np.arange(side) - side // 2)[:, None] / factor + inner).ravel()
    y, x = np.meshgrid(*(at + (n - 1) / 2 for n in kernel.shape), indexing="ij")
    fine = map_coordinates(spline_filter(kernel, order=3), [y, x], order=3, mode="constant", prefilter=False)
    return np.asarray(fine.reshape(side, parts, side, parts).mean(axis=(1, 3)))


@lru_cache(maxsize=64)
def _measured(file: str) -> FloatArray:
    """The kernel (h, w) of a FITS file, of unit sum; the mean of several (n, h, w)."""
    advice = "Correct psf_files in the survey file (paths are relative to it), or leave it out."
    try:
        with fits.open(Path(file), memmap=False) as units:
            data = next((unit.data for unit in units if unit.is_image and unit.data is not None), np.empty(0))
            data = np.nan_to_num(np.asarray(data, float))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such PSF file. {advice}") from error
    except Exception as error:  # astropy raises errors of many kinds on broken files
        raise InputError(f"{file}: the PSF cannot be read ({error}). {advice}") from error
    if data.ndim not in (2, 3) or min(data.shape) < 1 or max(data.shape[-2:]) > _MOST_PIX:
        raise InputError(
            f"{file}: a PSF of shape {data.shape}. Expected (rows, columns) or several of them, at most {_MOST_PIX} on "
            f"a side. {advice}"
        )
    planes = data.reshape(-1, *data.shape[-2:])
    total = planes.sum(axis=(1, 2), keepdims=True)
    if not (total > 0).all():
        raise InputError(f"{file}: a PSF whose sum is not above 0. {advice}")
    return np.asarray((planes / total).mean(axis=0))
