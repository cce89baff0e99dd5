"""What a FITS header says of its image: WCS, pixel scale, seeing, bands."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales

from stages.bands import wavelength_nm
from stages.ingest.field import psf_fwhm_pix
from stages.ingest.fits_plain import Header
from stages.ingest.names import parse
from stages.records import FloatArray
from stages.survey import SurveyFacts

_SEEING_KEYS = ("SEEING", "PSF_FWHM", "FWHM", "PSF_RAD", "IQ")
_SCALE_KEYS = ("PIXSCALE", "PIXSCAL1", "PIXELSCL", "SECPIX", "SECPIX1")


def celestial_wcs(header: Header) -> WCS | None:
    """The celestial WCS of a header, None if there is none that can be used."""
    if not str(header.get("CTYPE1", "")).startswith(("RA", "DEC", "GLON")):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        warnings.simplefilter("ignore", AstropyUserWarning)
        try:
            wcs = WCS(fits.Header(header) if isinstance(header, dict) else header, naxis=2)
            return wcs if wcs.has_celestial else None
        except Exception:  # a broken WCS leaves the pixels usable
            return None


def pixel_scale_arcsec(header: Header, wcs: WCS | None, facts: SurveyFacts | None) -> float:
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


def seeing_arcsec(
    header: Header, index: int, band: str, kernel: FloatArray | None, scale: float, facts: SurveyFacts | None
) -> float:
    """FWHM in arcsec of plane `index`: from its PSF, its own keyword (FWHM1 is plane 0), a common one or the survey."""
    if kernel is not None and np.isfinite(measured := psf_fwhm_pix(kernel)):
        return measured * scale
    for key in (f"FWHM{index + 1}", f"FWHM_{band}".upper(), *_SEEING_KEYS):
        value = _number(header.get(key))
        if 0.01 < value < 10:
            return value
    return facts.psf_fwhm_arcsec.get(band, float("nan")) if facts is not None else float("nan")


def band_names(path: Path, header: Header, n: int, facts: SurveyFacts | None) -> tuple[str, ...]:
    """Filters of a file's n planes from its header, its name or the survey; () where nothing says."""
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
