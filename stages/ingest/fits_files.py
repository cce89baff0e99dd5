"""FITS: one image, a cube of bands, several extensions, or one file per band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import block_reduce

from stages.bands import wavelength_nm
from stages.ingest.aligning import aligned
from stages.ingest.field import (
    ASSUMED_BANDS,
    ASSUMED_FIELD_ARCSEC,
    ASSUMED_GROUND_SCALE_ARCSEC,
    Field,
    ReadError,
    checked,
    psf_fwhm_pix,
    sharpest_fwhm_pix,
    stacked,
)
from stages.ingest.fits_header import band_names, celestial_wcs, pixel_scale_arcsec, seeing_arcsec
from stages.ingest.fits_planes import Planes, load
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

MASKED_RMS = 1e8  # an error this large marks a bad pixel
_NOISE_ROLES = ("variance", "rms", "weight")
_NEGATIVE_SHARE = 0.1  # more negative pixels than this: not a map of noise
_GROUND_BANDS = frozenset("ugrizy")


def read(path: Path, facts: SurveyFacts | None) -> list[Field | ReadError]:
    """One file: usually one field; several where it is a stack of unnamed images of objects."""
    planes = load(path)
    if not planes.objects:
        return [_field(planes, band_names(path, planes.header, planes.n_bands, facts), facts)]
    out: list[Field | ReadError] = []
    for image in planes.images:
        try:
            single = Planes([image], planes.header, integers=planes.integers)
            out.append(_field(single, band_names(path, single.header, single.n_bands, facts), facts))
        except ReadError as error:
            out.append(error)
    return out


def read_bands(files: Mapping[tuple[str, str], Sequence[Path]], facts: SurveyFacts | None) -> Field:
    """One object from files by (band, role), role "" or "image" for the picture; raises ReadError if none is whole.

    A band that cannot be read is left out and said to be missing; bands on other pixels are put on one grid
    (`stages.ingest.aligning`). Of several epochs the first whole one is used.
    """
    bands = sorted({band for band, role in files if role in ("", "image")}, key=lambda b: (wavelength_nm(b), b))
    shared_mask = files.get(("", "mask"), ())
    found: list[Field] = []
    reasons: list[str] = []
    faults: list[ReadError] = []
    for band in bands:
        epochs = [*files.get((band, "image"), ()), *files.get((band, ""), ())]
        reasons += ["several_epochs"] if len(epochs) > 1 else []
        for k, path in enumerate(epochs):
            try:
                found.append(_one_band(path, band, k, files, shared_mask, facts))
                break
            except ReadError as error:
                faults.append(error)
        else:
            reasons.append("missing_band")
    if not found:
        raise (
            faults[0]
            if faults
            else ReadError("no_image", "Noise, PSF or mask without an image. Add OBJECT_BAND_sci.fits.")
        )
    whole, why = aligned(found)
    reasons += why
    return replace(
        whole[0],
        flux=np.concatenate([f.flux for f in whole]),
        variance=np.concatenate([f.variance for f in whole]),
        valid=np.concatenate([f.valid for f in whole]),
        bands=tuple(b for f in whole for b in f.bands),
        psf_fwhm_arcsec=np.concatenate([f.psf_fwhm_arcsec for f in whole]),
        psf=stacked([f.psf[0] if f.psf.size else None for f in whole]),
    ).because(*(r for f in whole for r in f.reasons), *reasons)


def _field(planes: Planes, bands: tuple[str, ...], facts: SurveyFacts | None) -> Field:
    header = planes.header
    flux = planes.images[0] if len(planes.images) == 1 else _stack(planes.images)
    flux = np.squeeze(flux, axis=tuple(k for k, n in enumerate(flux.shape[:-2]) if n == 1)) if flux.ndim > 3 else flux
    if flux.size == 0:
        raise ReadError("zero_size", "The image has no pixels. Make the file anew.")
    if flux.ndim not in (2, 3):
        raise ReadError(
            "wrong_shape", f"An image of {flux.ndim} axes. Expected rows and columns, or bands, rows, columns."
        )
    flux = flux.reshape(-1, *flux.shape[-2:])
    reasons: list[str] = []
    if len(bands) != len(flux):
        bands = ASSUMED_BANDS.get(len(flux), tuple(f"band{k}" for k in range(len(flux))))
        reasons += ["assumed_bands"] if len(flux) > 1 else []
    companions = {role: p for role, p in planes.other.items() if role not in _NOISE_ROLES or not _has_negatives(p)}
    reasons += ["noise_map_ignored"] if len(companions) < len(planes.other) else []
    variance, masked = _noise(companions, flux.shape)
    wcs = celestial_wcs(header)
    scale = pixel_scale_arcsec(header, wcs, facts)
    if not np.isfinite(scale):
        ground = len(bands) > 1 or bands[0].lower() in _GROUND_BANDS
        scale = ASSUMED_GROUND_SCALE_ARCSEC if ground else ASSUMED_FIELD_ARCSEC / max(flux.shape[1:])
        reasons.append("assumed_pixel_scale")
    kernels = _kernels(planes.other.get("psf"), len(flux))
    finer = _psf_oversampling(kernels, flux, ~masked & np.isfinite(flux))
    if finer > 1:
        reasons.append("assumed_psf_sampling")
        kernels = [None if k is None else block_reduce(k, finer, np.sum) for k in kernels]
    fwhm = np.array([seeing_arcsec(header, k, band, kernels[k], scale, facts) for k, band in enumerate(bands)])
    survey = facts.name if facts is not None else str(header.get("SURVEY", "")).strip()
    return checked(
        Field(flux, variance, ~masked, bands, scale, fwhm, stacked(kernels), wcs, survey,
              str(header.get("BUNIT", "")).strip(), tuple(reasons)),
        zeros_are_data=planes.integers,
    )  # fmt: skip


def _one_band(
    path: Path,
    band: str,
    epoch: int,
    files: Mapping[tuple[str, str], Sequence[Path]],
    shared_mask: Sequence[Path],
    facts: SurveyFacts | None,
) -> Field:
    planes = load(path)
    if planes.objects or (planes.images[0].ndim == 3 and len(planes.images[0]) > 1):
        raise ReadError("wrong_shape", "A file named as one band holds several planes. Rename it without the band.")
    other, lacking = dict(planes.other), False
    for role in (*_NOISE_ROLES, "psf", "mask"):
        beside = list(files.get((band, role), ())) or (list(shared_mask) if role == "mask" else [])
        if beside:
            try:
                other[role] = load(beside[min(epoch, len(beside) - 1)]).images[0]
            except ReadError:
                lacking = True
    named = replace(planes, other=other)
    got = _field(named, (band,), facts)
    return got.because("companion_unreadable") if lacking else got


def _stack(images: Sequence[FloatArray]) -> FloatArray:
    if len({i.shape for i in images}) > 1:
        raise ReadError(
            "wrong_shape", f"Images of shapes {[i.shape for i in images]} in one file. Put bands on one grid."
        )
    return np.stack(images)


def _noise(other: Mapping[str, FloatArray], shape: tuple[int, ...]) -> tuple[FloatArray, np.ndarray[Any, Any]]:
    """Variance and bad pixels (B, H, W) from whatever noise maps and masks there are, of the image's shape."""
    variance: FloatArray = np.full(shape, np.nan, np.float32)
    bad = np.zeros(shape, bool)
    for role in (*_NOISE_ROLES, "mask"):
        plane = other.get(role)
        if plane is None or plane.shape[-2:] != shape[-2:] or plane.size not in (np.prod(shape), np.prod(shape[-2:])):
            continue
        plane = np.broadcast_to(np.asarray(plane, np.float32).reshape(-1, *shape[-2:]), shape)
        with np.errstate(all="ignore"):
            if role == "variance":
                variance, bad = plane.copy(), bad | (plane >= MASKED_RMS**2) | (plane <= 0) | ~np.isfinite(plane)
            elif role == "rms":
                variance, bad = plane**2, bad | (plane >= MASKED_RMS) | (plane <= 0) | ~np.isfinite(plane)
            elif role == "weight":
                variance, bad = 1 / plane, bad | (plane <= 0) | ~np.isfinite(plane)
            else:
                bad = bad | _masked(plane)
    return np.where(bad, np.nan, variance).astype(np.float32), bad


def _has_negatives(plane: FloatArray) -> bool:
    """Whether what should be a noise map is none: noise, or the image itself under another name."""
    return bool((plane < 0).sum() > _NEGATIVE_SHARE * plane.size)


def _masked(plane: FloatArray) -> np.ndarray[Any, Any]:
    """Bad pixels of a mask: not zero, or, where there are just two values, the rarer one."""
    values, count = np.unique(plane, return_counts=True)
    if len(values) == 2 and values[0] == 0 and count[1] > count[0]:
        return np.asarray(plane == 0)
    return np.asarray(plane != 0)


def _kernels(psf: FloatArray | None, n: int) -> list[FloatArray | None]:
    if psf is None or not psf.size or psf.ndim not in (2, 3):
        return [None] * n
    planes = psf.reshape(-1, *psf.shape[-2:])
    return list(planes) if len(planes) == n else [planes[0]] * n


def _psf_oversampling(kernels: Sequence[FloatArray | None], flux: FloatArray, valid: BoolArray) -> int:
    """How many PSF pixels go to one of the image's where no header says: no PSF is wider than the image's peaks."""
    for kernel, plane, good in zip(kernels, flux, valid, strict=True):
        if kernel is not None:
            ratio = psf_fwhm_pix(kernel) / sharpest_fwhm_pix(plane, good)
            return round(ratio) if 1.6 < ratio < 8 else 1
    return 1
