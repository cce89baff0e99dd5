"""FITS: one image, a cube of bands, several extensions, or one file per band."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.utils.exceptions import AstropyUserWarning, AstropyWarning
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from skimage.measure import block_reduce

from stages.bands import wavelength_nm
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
from stages.ingest.names import ROLES, parse
from stages.records import BoolArray, FloatArray
from stages.survey import SurveyFacts

MASKED_RMS = 1e8  # an error this large marks a bad pixel
_SEEING_KEYS = ("SEEING", "PSF_FWHM", "FWHM", "PSF_RAD", "IQ")
_SCALE_KEYS = ("PIXSCALE", "PIXSCAL1", "PIXELSCL", "SECPIX", "SECPIX1")
_GROUND_BANDS = frozenset("ugrizy")
_SMALL_IMAGES = 4  # this many unnamed images of one file are objects of their own


@dataclass(frozen=True, eq=False)
class Planes:
    """What one file holds, by role; header of its image."""

    images: list[FloatArray]
    header: fits.Header
    other: dict[str, FloatArray] = field(default_factory=dict)
    integers: bool = False
    objects: bool = False


def read(path: Path, facts: SurveyFacts | None) -> list[Field | ReadError]:
    """One file: usually one field; several where it is a stack of unnamed images of objects."""
    planes = load(path)
    if not planes.objects:
        return [_field(planes, _band_names(path, planes, facts), facts)]
    out: list[Field | ReadError] = []
    for image in planes.images:
        try:
            single = Planes([image], planes.header, integers=planes.integers)
            out.append(_field(single, _band_names(path, single, facts), facts))
        except ReadError as error:
            out.append(error)
    return out


def read_bands(files: Mapping[tuple[str, str], Sequence[Path]], facts: SurveyFacts | None) -> Field:
    """One object from files by (band, role), role "" or "image" for the picture; raises ReadError if none is whole.

    A band that cannot be read or has another shape is left out and said to be missing. Of several epochs the first
    whole one is used.
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
    shape = max((f.flux.shape for f in found), key=lambda s: sum(f.flux.shape == s for f in found))
    whole = [f for f in found if f.flux.shape == shape]
    reasons += ["missing_band"] if len(whole) < len(found) else []
    first = whole[0]
    return replace(
        first,
        flux=np.concatenate([f.flux for f in whole]),
        variance=np.concatenate([f.variance for f in whole]),
        valid=np.concatenate([f.valid for f in whole]),
        bands=tuple(b for f in whole for b in f.bands),
        psf_fwhm_arcsec=np.concatenate([f.psf_fwhm_arcsec for f in whole]),
        psf=stacked([f.psf[0] if f.psf.size else None for f in whole]),
    ).because(*(r for f in whole for r in f.reasons), *reasons)


def load(path: Path) -> Planes:
    """Read every image of a file into memory, sorted by role; raises ReadError with the reason."""
    data = _bytes(path)
    images: list[FloatArray] = []
    other: dict[str, FloatArray] = {}
    header, integers, tables, unnamed = None, False, 0, 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", AstropyWarning)
        warnings.simplefilter("always", VerifyWarning)
        try:
            with fits.open(io.BytesIO(data), lazy_load_hdus=False) as units:
                for unit in units:
                    if isinstance(unit, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(unit, fits.CompImageHDU):
                        tables += 1
                        continue
                    if unit.data is None:
                        header = header if header is not None else unit.header
                        continue
                    role = ROLES.get(unit.name.lower(), "image")
                    plane = np.asarray(unit.data)
                    if role != "image":
                        other[role] = _native(plane)
                        continue
                    if not images:
                        header = unit.header if unit.header.get("NAXIS", 0) else header
                        header = _merged(units[0].header, unit.header)
                        integers = plane.dtype.kind in "iu" and "BSCALE" not in unit.header
                    images.append(_native(plane))
                    unnamed += unit.name == "" or unit.name == "PRIMARY"
        except ReadError:
            raise
        except Exception as error:  # astropy raises nearly anything on mutated headers
            raise ReadError(
                _why(said, data), f"{type(error).__name__}: {error}. Copy or make the file anew."
            ) from error
        if not images and any("truncated" in str(w.message).lower() for w in said):
            raise ReadError("truncated", "The file ends early. Copy it again.")
    if not images or header is None:
        if tables:
            raise ReadError(
                "no_image", "A table without an image. If it lists objects on tiles, give it as --catalogue."
            )
        raise ReadError("no_image", "No image in the file. Check how it was made.")
    return Planes(images, header, other, integers, objects=len(images) >= _SMALL_IMAGES and unnamed == len(images))


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadError("unreadable", f"{error.strerror}. Check the file's permissions and the disk.") from error
    if not data:
        raise ReadError("empty_file", "The file has no bytes. Copy or make it anew.")
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except EOFError as error:
            raise ReadError("truncated", "The compressed file ends early. Copy it again.") from error
        except (OSError, zlib.error) as error:
            raise ReadError("unreadable", f"{error}. Copy the compressed file again.") from error
    if not data.startswith(b"SIMPLE"):
        raise ReadError("wrong_type", "Not a FITS file, whatever its name says. Check how it was made.")
    return data


def _why(said: Sequence[warnings.WarningMessage], data: bytes) -> str:
    cut = any("truncated" in str(w.message).lower() for w in said) or len(data) % 2880
    return "truncated" if cut else "unreadable"


def _native(plane: Any) -> FloatArray:
    if plane.dtype.kind not in "fiub":
        raise ReadError("wrong_type", f"An image of {plane.dtype}. Expected numbers.")
    return np.asarray(plane, dtype=np.float32)


def _merged(primary: fits.Header, own: fits.Header) -> fits.Header:
    """An extension's header with what only the primary says."""
    merged = own.copy()
    for card in primary.cards:
        if (
            card.keyword
            and card.keyword not in merged
            and card.keyword not in ("COMMENT", "HISTORY", "EXTEND", "SIMPLE")
        ):
            merged.append(card)
    return merged


def _field(planes: Planes, bands: tuple[str, ...], facts: SurveyFacts | None, strict_noise: bool = True) -> Field:
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
    variance, masked = _noise(planes.other, flux.shape)
    wcs = _wcs(header)
    scale = _scale(header, wcs, facts)
    if not np.isfinite(scale):
        ground = len(bands) > 1 or bands[0].lower() in _GROUND_BANDS
        scale = ASSUMED_GROUND_SCALE_ARCSEC if ground else ASSUMED_FIELD_ARCSEC / max(flux.shape[1:])
        reasons.append("assumed_pixel_scale")
    kernels = _kernels(planes.other.get("psf"), len(flux))
    finer = _psf_oversampling(kernels, flux, ~masked & np.isfinite(flux))
    if finer > 1:
        reasons.append("assumed_psf_sampling")
        kernels = [None if k is None else block_reduce(k, finer, np.sum) for k in kernels]
    fwhm = np.array([_seeing(header, k, band, kernels[k], scale, facts) for k, band in enumerate(bands)])
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
    for role in ("variance", "rms", "weight", "psf", "mask"):
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
    for role in ("variance", "rms", "weight", "mask"):
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


def _masked(plane: FloatArray) -> np.ndarray[Any, Any]:
    """Bad pixels of a mask: not zero, or, where there are just two values, the rarer one."""
    values, count = np.unique(plane, return_counts=True)
    if len(values) == 2 and values[0] == 0 and count[1] > count[0]:
        return np.asarray(plane == 0)
    return np.asarray(plane != 0)


def _wcs(header: fits.Header) -> WCS | None:
    if not str(header.get("CTYPE1", "")).startswith(("RA", "DEC", "GLON")):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        warnings.simplefilter("ignore", AstropyUserWarning)
        try:
            wcs = WCS(header, naxis=2)
            return wcs if wcs.has_celestial else None
        except Exception:  # a broken WCS leaves the pixels usable
            return None


def _scale(header: fits.Header, wcs: WCS | None, facts: SurveyFacts | None) -> float:
    """Arcsec per pixel from the WCS, a keyword or a CD matrix alone, else the survey's; NaN if nowhere."""
    if wcs is not None:
        try:
            scale = float(np.mean(proj_plane_pixel_scales(wcs))) * 3600
            if 1e-3 < scale < 10:
                return scale
        except Exception:  # singular matrices
            pass
    for key in _SCALE_KEYS:
        value = _number(header.get(key))
        if 1e-3 < value < 10:
            return value
    matrix = [_number(header.get(k, 0.0)) for k in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")]
    scale = float(np.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))) * 3600
    if not 1e-3 < scale < 10:
        scale = abs(_number(header.get("CDELT1"))) * 3600
    if 1e-3 < scale < 10:
        return scale
    return facts.pixel_scale_arcsec if facts is not None else float("nan")


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


def _seeing(
    header: fits.Header, index: int, band: str, kernel: FloatArray | None, scale: float, facts: SurveyFacts | None
) -> float:
    """FWHM in arcsec of one band: from its PSF, its own keyword, a common keyword or the survey."""
    if kernel is not None and np.isfinite(measured := psf_fwhm_pix(kernel)):
        return measured * scale
    for key in (f"FWHM{index}", f"FWHM_{band}".upper(), *_SEEING_KEYS):
        value = _number(header.get(key))
        if 0.01 < value < 10:
            return value
    return facts.psf_fwhm_arcsec.get(band, float("nan")) if facts is not None else float("nan")


def _band_names(path: Path, planes: Planes, facts: SurveyFacts | None) -> tuple[str, ...]:
    """Filters of a file's planes from its header, its name or the survey; () where nothing says."""
    header = planes.header
    n = len(planes.images) if len(planes.images) > 1 else (len(planes.images[0]) if planes.images[0].ndim == 3 else 1)
    listed = str(header.get("BANDS", "")).strip()
    if listed:
        words = tuple(listed.replace(",", " ").split())
        return words if len(words) == n else tuple(listed.replace(",", "").replace(" ", ""))
    numbered = tuple(str(header.get(f"BAND{k + 1}", header.get(f"FILTER{k + 1}", ""))).strip() for k in range(n))
    if all(numbered) and n > 1:
        return numbered
    if n == 1:
        own = next((str(header[k]).strip() for k in ("FILTER", "BAND", "FILTNAM") if k in header), "")
        spellings = [own, *own.replace("-", "_").split("_"), parse(path).band]
        return (next((w for w in spellings if np.isfinite(wavelength_nm(w))), own),)
    return facts.bands if facts is not None and len(facts.bands) == n else ()


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
