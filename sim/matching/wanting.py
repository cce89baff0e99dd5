"""What is taken where stars, delivered PSFs or headers say nothing, and the note that says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.matching.image import ImageStats
from sim.matching.stars import StarSample
from sim.matching.values import Findings, Value, over_images
from sim.matching.widths import psf_from_kernels, psf_from_stars
from stages.survey import SurveyFacts

_FROM_GALAXIES = ("number counts", "galaxy colours")
_ASSUMED_ZERO_POINT, _ASSUMED_ERROR = 30.0, 1.0


class MatchError(ValueError):
    """A survey of which nothing can be measured; the message says what to do."""


def psf(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], sample: StarSample,
    base: SurveyFacts | None, shift_pix: tuple[float, float], rng: np.random.Generator,
) -> None:  # fmt: skip
    """PSF from stars, else delivered, else a header's seeing, else the base facts, else the most compact object."""
    psf_from_kernels(found, images, bands, rng, "delivered_psf")
    delivered = found.values.get("delivered_psf_fwhm_arcsec", {})
    centre = 10**sample.locus.centre if sample.locus.found else float("nan")
    believed = sample.locus.found
    if believed and sample.band in delivered and not 0.7 < centre / delivered[sample.band].value < 1.3:
        believed = False
    if believed:
        psf_from_stars(found, images, bands, sample, shift_pix, rng)
    else:
        found.notes.append(
            f"psf: no stars found among {len(sample.log_fwhm)} compact objects. Give more or larger cutouts."
        )
        sample.locus.chance[:] = 0
    have = found.values.setdefault("psf_fwhm_arcsec", {})
    for band in bands:
        if band in have:
            continue
        if band in delivered:
            for what in ("fwhm_arcsec", "fwhm_scatter", "beta", "ellipticity"):
                found.put(f"psf_{what}", band, found.values.get(f"delivered_psf_{what}", {}).get(band))
            continue
        header = over_images([s.header_fwhm_arcsec.get(band, np.nan) for s in images if not s.picture], "header", rng)
        if header is not None:
            have[band] = header
        elif base is not None and band in base.psf_fwhm_arcsec:
            have[band] = Value(base.psf_fwhm_arcsec[band], float("nan"), 0, f"not measured: from {base.name}")
        else:
            have[band] = _most_compact(images, band, sample)
        found.notes.append(f"psf_fwhm_arcsec.{band}: no stars; {have[band].how}. Give --survey or stars to do better.")


def _most_compact(images: Sequence[ImageStats], band: str, sample: StarSample) -> Value:
    """The width of the sharpest objects: an upper limit."""
    widths = [f.fwhm * s.pixel_scale_arcsec for s in images for f in s.profiles.get(band, ())
              if f is not None and f.snr > 8 and f.misfit < 0.1]  # fmt: skip
    if not widths:
        raise MatchError(
            f"band {band!r}: no star, no delivered PSF, no seeing in a header. Give --survey NAME with its PSF."
        )
    value = float(np.percentile(widths, 10))
    return Value(value, 0.3 * value, len(widths), "the most compact objects (an upper limit)")


def zero_points(found: Findings, bands: Sequence[str], base: SurveyFacts | None) -> None:
    """Zero points that headers do not give: the base facts', those of galaxies, or an arbitrary one."""
    have = found.values.setdefault("zero_point", {})
    for band in bands:
        if band in have and have[band].how not in _FROM_GALAXIES:
            continue
        if band in have:
            if base is not None and band in base.zero_point:
                away = have[band].value - base.zero_point[band]
                found.notes.append(
                    f"zero_point.{band}: not in the headers; {have[band].how} give {have[band].value:.2f}, "
                    f"{base.name} has "
                    f"{base.zero_point[band]:.2f} ({away:+.2f}), which is taken. Put MAGZP into the headers to be sure."
                )
                found.put("zero_point_by_counts", band, have[band])
                have[band] = Value(base.zero_point[band], have[band].error, 0, f"not measured: from {base.name}")
            else:
                found.notes.append(
                    f"zero_point.{band}: not in the headers; {have[band].value:.2f} from {have[band].how}, good to "
                    f"{have[band].error:.1f} mag. Put MAGZP into the headers or give --survey."
                )
        elif base is not None and band in base.zero_point:
            have[band] = Value(base.zero_point[band], float("nan"), 0, f"not measured: from {base.name}")
            found.notes.append(
                f"zero_point.{band}: not in the headers; {base.name}'s is taken. Put MAGZP into the headers."
            )
        else:
            have[band] = Value(_ASSUMED_ZERO_POINT, _ASSUMED_ERROR * 5, 0, "assumed: magnitudes are arbitrary")
            found.notes.append(
                f"zero_point.{band}: not in the headers and too few galaxies to count; "
                f"{_ASSUMED_ZERO_POINT:g} is assumed, "
                "magnitudes mean nothing. Put MAGZP into the headers or give --survey."
            )
