"""From the statistics of many images to the facts of their survey, with errors, sources and what is wanting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sim.matching.image import ImageStats
from sim.matching.sky import FieldObjects, colours, densities, field_objects, to_depth, zero_points_by_counts
from sim.matching.stretch import QuietFit, StretchFit, fit_quiet
from sim.matching.values import (
    Findings,
    StarSample,
    Value,
    gain_values,
    header_zero_points,
    noise_values,
    over_images,
    psf_from_kernels,
    psf_from_stars,
    stars_of,
    table_of,
)
from stages import config as configuration
from stages.bands import wavelength_nm
from stages.records import FloatArray
from stages.survey import SurveyFacts

_MAX_KERNELS = 32
_SPACE_FWHM_ARCSEC = 0.35
_FROM_GALAXIES = ("number counts", "galaxy colours")
_ASSUMED_ZERO_POINT, _ASSUMED_ERROR = 30.0, 1.0


class MatchError(ValueError):
    """A survey of which nothing can be measured; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Match:
    """The facts and all that a picture of the fit needs."""

    facts: dict[str, Any]
    found: Findings
    images: tuple[ImageStats, ...]
    bands: tuple[str, ...]
    sample: StarSample
    objects: FieldObjects
    correlations: dict[str, FloatArray]
    curves: dict[str, FloatArray]
    colours: dict[str, FloatArray]
    quiet: QuietFit | None
    pair: StretchFit | None


def combine(
    images: Sequence[ImageStats], base: SurveyFacts | None, name: str, pair: StretchFit | None,
    rng: np.random.Generator,
) -> Match:  # fmt: skip
    """Put images together; raises MatchError where not even PSF or noise can be had."""
    found = Findings()
    images, bands = _alike(images, found)
    noise = noise_values(found, images, bands, rng)
    if not noise:
        raise MatchError(
            "no image has enough sky to measure noise. Give larger cutouts (32 pixels beyond the objects)."
        )
    bands = tuple(b for b in bands if b in noise)
    picture = images[0].picture
    stretch = base.stretch if base is not None else None
    quiet = _quiet(found, images, base, rng) if picture else None
    curves = {} if picture else gain_values(found, images, bands, rng)
    sample = stars_of(images, bands)
    _psf(found, images, bands, sample, base, quiet.shift_pix if quiet is not None else (0.0, 0.0), rng)
    header_zero_points(found, images, bands, rng)
    if picture and stretch is not None:
        for band in set(bands) & set(stretch.bands):
            found.put(
                "zero_point", band, Value(stretch.zero_point, float("nan"), len(images), "the stretch's flux unit")
            )
    objects = field_objects(images, bands, sample)
    zero_points_by_counts(found, objects, bands)
    _zero_points(found, bands, base)
    points = colours(found, objects, bands, rng)
    densities(found, objects, sample)
    scale = over_images([s.pixel_scale_arcsec for s in images], _scale_source(images, base), rng)
    found.put("pixel_scale_arcsec", "all", scale)
    if any("assumed_pixel_scale" in s.reasons for s in images):
        found.notes.append(
            "pixel_scale_arcsec: no WCS or keyword says it; assumed. Give --survey with the right scale."
        )
    facts = _facts(found, images, bands, base, name, quiet, noise)
    if pair is not None:
        facts["stretch"] = _plain_stretch(pair)
    elif stretch is not None and picture:
        facts["stretch"] = configuration.to_mapping(stretch) | {
            "bands": list(stretch.bands),
            "scales": list(stretch.scales),
        }
    _say_stretch(found, picture, stretch is not None, pair)
    facts["measured"] = _measured(found, noise)
    facts["sources"] = _sources(found, facts, base, images)
    return Match(facts, found, tuple(images), bands, sample, objects, noise, curves, points, quiet, pair)


def _alike(images: Sequence[ImageStats], found: Findings) -> tuple[list[ImageStats], tuple[str, ...]]:
    """FITS before pictures of the same sky, one pixel scale, and the bands that half of the images have, blue first."""
    pictures = [s for s in images if s.picture]
    flux = [s for s in images if not s.picture]
    if flux and pictures:
        found.notes.append(
            f"{len(pictures)} pictures beside FITS images are left out. Give --pair to fit their stretch."
        )
    kept = flux or pictures
    stated = [s for s in kept if "assumed_pixel_scale" not in s.reasons]
    if stated and len(stated) < len(kept):
        found.notes.append(
            f"{len(kept) - len(stated)} images without pixel scale are left out. Put PIXSCALE into their headers."
        )
        kept = stated
    scale = float(np.median([s.pixel_scale_arcsec for s in kept]))
    alike = [s for s in kept if abs(s.pixel_scale_arcsec / scale - 1) < 0.05]
    if len(alike) < len(kept):
        if not alike:
            alike = [s for s in kept if s.pixel_scale_arcsec == kept[0].pixel_scale_arcsec]
        found.notes.append(
            f"{len(kept) - len(alike)} images have other pixels than {alike[0].pixel_scale_arcsec:.4g} arcsec and "
            "are left out. Match each survey by itself."
        )
    count: dict[str, int] = {}
    for s in alike:
        for band in s.bands:
            count[band] = count.get(band, 0) + 1
    bands = [b for b in count if 2 * count[b] >= len(alike)] or [max(count, key=lambda b: count[b])]
    rare = sorted(set(count) - set(bands))
    if rare:
        found.notes.append(
            f"bands {rare} are in less than half of the images and are left out. Match them by themselves."
        )
    if len(alike) < 3:
        found.notes.append(f"only {len(alike)} image(s): no error or scatter from image to image. Give ten or more.")
    return alike, tuple(sorted(bands, key=lambda b: (np.nan_to_num(wavelength_nm(b), nan=1e9), b)))


def _quiet(
    found: Findings, images: Sequence[ImageStats], base: SurveyFacts | None, rng: np.random.Generator
) -> QuietFit | None:
    """Noise and shift of composites from their quiet pixels; replaces what the clipped sky gave."""
    rows = np.array([s.quiet for s in images if s.quiet is not None])
    stretch = base.stretch if base is not None else None
    if not len(rows) or stretch is None:
        return None
    fit = fit_quiet(np.median(rows, axis=0), stretch, 1)
    halves = [np.median(rows[k::3], axis=0) for k in range(3)] if len(rows) >= 6 else []
    parts = [fit_quiet(h, stretch, 2 + k, fit) for k, h in enumerate(halves)]
    how = "mean, rms, zeros, skewness and correlations of the quiet 8-bit pixels"

    def put(quantity: str, band: str, value: float, others: Sequence[float]) -> None:
        error = float(np.std(others, ddof=1) / np.sqrt(3)) if len(others) > 1 else float("nan")
        found.put(quantity, band, Value(value, error, len(rows), how))

    for k, band in enumerate(stretch.bands):
        put("sky_sigma", band, float(fit.sky_sigma[k]), [float(p.sky_sigma[k]) for p in parts])
        put("noise_correlation_pix", band, fit.correlation_pix, [p.correlation_pix for p in parts])
    for k, axis in enumerate("xy"):
        put("composite_shift_pix", axis, fit.shift_pix[k], [p.shift_pix[k] for p in parts])
    return fit


def _psf(
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
        found.notes.append(f"psf_fwhm_arcsec.{band}: taken from {have[band].how}. Give --survey or stars to do better.")


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


def _zero_points(found: Findings, bands: Sequence[str], base: SurveyFacts | None) -> None:
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


def _scale_source(images: Sequence[ImageStats], base: SurveyFacts | None) -> str:
    if any("assumed_pixel_scale" in s.reasons for s in images):
        return "assumed"
    if images[0].picture:
        return "the survey's facts"
    same = base is not None and all(s.pixel_scale_arcsec == base.pixel_scale_arcsec for s in images)
    return "WCS or header, else the survey's facts" if same else "WCS or header"


def _facts(
    found: Findings, images: Sequence[ImageStats], bands: tuple[str, ...], base: SurveyFacts | None, name: str,
    quiet: QuietFit | None, noise: dict[str, FloatArray],
) -> dict[str, Any]:  # fmt: skip
    """The survey file's mapping but for stretch, measured and sources."""
    width = {b: found.get("psf_fwhm_arcsec", b) for b in bands}
    telescope = next((s.said.telescope for s in images if s.said.telescope), "").lower()
    space = telescope in ("hst", "jwst", "euclid", "roman") or min(width.values()) < _SPACE_FWHM_ARCSEC
    if space and telescope in ("hst", "jwst", "euclid", "roman") and telescope not in name.lower():
        name = f"{name}_{telescope}"  # the simulator takes a space survey's pupil from its name
    facts: dict[str, Any] = {
        "name": name, "kind": "space" if space else "ground", "bands": list(bands),
        "pixel_scale_arcsec": round(found.get("pixel_scale_arcsec"), 5),
        "psf_fwhm_arcsec": {b: round(v, 4) for b, v in width.items()},
    }  # fmt: skip
    for quantity in ("zero_point", "sky_sigma", "gain", "saturation"):
        facts[quantity] = {b: _digits(found.get(quantity, b)) for b in bands if np.isfinite(found.get(quantity, b))}
        old = {} if base is None or quantity == "sky_sigma" else getattr(base, quantity)
        for band in set(bands) & set(old) - set(facts[quantity]):
            facts[quantity][band] = old[band]
    for band in bands:
        if band not in facts["gain"]:
            limit = found.get("gain_lower_limit", band)
            facts["gain"][band] = _digits(limit if np.isfinite(limit) else 1e6)
            taken = "its lower limit from photon transfer" if np.isfinite(limit) else "1e6 (no photon noise of objects)"
            found.notes.append(
                f"gain.{band}: not measured; {taken} is taken. Put GAIN into the headers or give --survey."
            )
    middle = {q: [found.get(q, b) for b in bands if np.isfinite(found.get(q, b))] for q in (
        "psf_fwhm_scatter", "psf_beta", "psf_ellipticity", "noise_correlation_pix", "sky_residual")}  # fmt: skip
    limits = {"psf_fwhm_scatter": (0, 1), "psf_beta": (1.5, 9), "psf_ellipticity": (0, 0.3), "sky_residual": (0, 5)}
    for quantity, values in middle.items():
        if values:
            facts[quantity] = round(float(np.clip(np.median(values), *limits.get(quantity, (0, 5)))), 4)
        elif base is not None:
            facts[quantity] = getattr(base, quantity)
            found.notes.append(f"{quantity}: not measured; {base.name}'s is taken. Give more images with stars.")
        else:
            found.notes.append(
                f"{quantity}: not measured; the default is taken. Give more images with stars, or --survey."
            )
    if quiet is None:
        facts["noise_correlation"] = {b: table_of(noise[b][0]) for b in bands}
    else:
        facts["composite_shift_pix"] = [round(v, 3) for v in quiet.shift_pix]
    galaxies, stars = to_depth(found)
    for quantity, value in (("density_per_arcmin2", galaxies), ("star_density_per_arcmin2", stars)):
        if np.isfinite(value) and 0 < value < 2000:
            facts[quantity] = round(value, 2)
        else:
            taken = f"{base.name}'s" if base is not None else "the default"
            found.notes.append(
                f"{quantity}: not measured; {taken} is taken. Give cutouts with more field around the objects."
            )
            facts |= {quantity: getattr(base, quantity)} if base is not None else {}
    if base is not None:
        facts |= {q: getattr(base, q) for q in ("cutout_arcsec", "spikes", "halo_fraction", "bleeds", "artefact_rates",
                  "spike_angle_deg", "band_offset_arcsec")}  # fmt: skip
        facts["filters"] = {b: f for b, f in base.filters.items() if b in bands}
    return facts


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def _plain_stretch(pair: StretchFit) -> dict[str, Any]:
    s = pair.stretch
    return {
        "bands": list(s.bands), "scales": [round(v, 5) for v in s.scales], "zero_point": s.zero_point,
        "alpha": round(s.alpha, 6), "q": round(s.q, 4), "kind": s.kind,
    }  # fmt: skip


def _say_stretch(found: Findings, picture: bool, known: bool, pair: StretchFit | None) -> None:
    """Notes on what is and is not known of a composite's stretch."""
    if pair is not None:
        how = "FITS and picture pair"
        n = len(pair.samples)
        for band, scale, error in zip(pair.stretch.bands, pair.stretch.scales, pair.errors, strict=False):
            found.put("stretch_scale", band, Value(scale, float(error), n, how))
        found.put("stretch_alpha", "all", Value(pair.stretch.alpha, float(pair.errors[3]), n, how))
        found.put("stretch_q", "all", Value(pair.stretch.q, float(pair.errors[4]), n, how))
        found.put("stretch_misfit_levels", "all",
                  Value(pair.misfit, float("nan"), n, f"{how}; picture lies {pair.flip}, "
                  f"levels {'cut off' if pair.truncated else 'rounded'}"))  # fmt: skip
        if pair.misfit > 2:
            found.notes.append(
                f"stretch: fits only to {pair.misfit:.1f} of 255 levels: not a Lupton stretch. Check --pair."
            )
    elif picture:
        taken = "the survey's" if known else "CFHTLS's (assumed)"
        found.notes.append(
            f"stretch: cannot be known from pictures alone; {taken} is taken, and all fluxes rest on it. "
            "Give --pair FITS_R FITS_G FITS_B PICTURE of one field to fit it."
        )


def _measured(found: Findings, noise: dict[str, FloatArray]) -> dict[str, Any]:
    """Everything found, with errors, as plain data."""
    out: dict[str, Any] = {q: {b: v.plain() for b, v in by.items()} for q, by in found.values.items() if by}
    out["noise_autocorrelation"] = {
        b: {"dx": "-4..4", "dy": "0..4", "value": np.round(t[0], 4).tolist(), "error": np.round(t[1], 4).tolist()}
        for b, t in noise.items()
    }
    out["notes"] = list(found.notes)
    return out


def _sources(
    found: Findings, facts: dict[str, Any], base: SurveyFacts | None, images: Sequence[ImageStats]
) -> dict[str, str]:
    """Where each number comes from, with its error."""
    out = {}
    for quantity in facts:
        if quantity in ("name", "kind", "bands", "measured", "sources"):
            continue
        by = found.values.get(quantity, {})
        if by:
            out[quantity] = "measured by sim/match.py: " + "; ".join(f"{b} {v}" for b, v in by.items())
        elif quantity == "noise_correlation":
            out[quantity] = f"measured by sim/match.py: sky pixels of {len(images)} images, errors under measured"
        elif quantity == "stretch":
            fits = {k: v for k, v in found.values.items() if k.startswith("stretch_")}
            out[quantity] = "; ".join(f"{k[8:]} {b} {v}" for k, by in fits.items() for b, v in by.items()) or (
                base.sources.get(quantity, f"from {base.name}") if base is not None else "")  # fmt: skip
        else:
            out[quantity] = (base.sources.get(quantity) or f"from {base.name}") if base is not None else "default"
    if "density_per_arcmin2" in out:
        out["density_per_arcmin2"] += (
            f"; extrapolated by slope 0.38 from S/N 10 ({found.get('density_limit_mag'):.1f} mag) to 5"
        )
    if "star_density_per_arcmin2" in out:
        out["star_density_per_arcmin2"] += "; extrapolated to i = 23 by slope 0.15"
    return out


def write_kernels(match: Match, out: Path) -> None:
    """Delivered PSFs as `psf_files` beside the survey file, where these and not stars are the PSF."""
    for band in match.bands:
        value = match.found.values.get("psf_fwhm_arcsec", {}).get(band)
        if value is None or value.how != "delivered PSF":
            continue
        kernels = [s.kernels[band] for s in match.images if band in s.kernels]
        side = int(np.median([min(k.shape) for k in kernels]))
        kernels = [k for k in kernels if min(k.shape) == side][:_MAX_KERNELS]
        path = out.with_name(f"{out.stem}_psf_{band}.fits")
        fits.PrimaryHDU(np.array([k / k.sum() for k in kernels], np.float32)).writeto(path, overwrite=True)
        inside = path.resolve().parent == (configuration.CONFIG_DIR / "surveys").resolve()
        match.facts.setdefault("psf_files", {})[band] = path.name if inside else str(path.resolve())
        match.facts["sources"]["psf_files"] = f"delivered with the images, {len(kernels)} of them"


def checked(facts: dict[str, Any]) -> SurveyFacts:
    """The facts as the simulator reads them; raises ConfigError."""
    return replace(configuration.from_mapping(SurveyFacts, facts, "measured facts"))
