"""From the statistics of many images to the facts of their survey, with errors, sources and what is wanting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.matching.alike import alike, scale_source
from sim.matching.composite import plain_stretch, quiet_fit, say_stretch
from sim.matching.image import ImageStats
from sim.matching.sky import FieldObjects, colours, densities, field_objects, to_depth, zero_points_by_counts
from sim.matching.softening import Softening, fit_softening
from sim.matching.star_kernels import StarKernel, star_kernels
from sim.matching.stars import StarSample, stars_of
from sim.matching.stretch import QuietFit, StretchFit
from sim.matching.values import Findings, Value, gain_values, header_zero_points, noise_values, over_images, table_of
from sim.matching.wanting import MatchError, psf, zero_points
from sim.matching.written import measured, sources
from stages import config as configuration
from stages.records import FloatArray
from stages.survey import SurveyFacts

_SPACE_FWHM_ARCSEC = 0.35


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
    softening: Softening | None
    kernels: dict[str, StarKernel] = field(default_factory=dict)


def combine(
    images: Sequence[ImageStats], base: SurveyFacts | None, name: str, pair: StretchFit | None,
    rng: np.random.Generator,
) -> Match:  # fmt: skip
    """Put images together; raises MatchError where not even PSF or noise can be had."""
    found = Findings()
    images, bands = alike(images, found)
    noise = noise_values(found, images, bands, rng)
    if not noise:
        raise MatchError(
            "no image has enough sky to measure noise. Give larger cutouts (32 pixels beyond the objects)."
        )
    bands = tuple(b for b in bands if b in noise)
    picture = images[0].picture
    stretch = base.stretch if base is not None else None
    quiet = quiet_fit(found, images, base, rng) if picture else None
    sample = stars_of(images, bands)
    psf(found, images, bands, sample, base, quiet.shift_pix if quiet is not None else (0.0, 0.0), rng)
    scale = over_images([s.pixel_scale_arcsec for s in images], scale_source(images, base), rng)
    found.put("pixel_scale_arcsec", "all", scale)
    curves = {} if picture else gain_values(found, images, bands, rng)
    header_zero_points(found, images, bands, rng)
    if picture and stretch is not None:
        for band in set(bands) & set(stretch.bands):
            found.put(
                "zero_point", band, Value(stretch.zero_point, float("nan"), len(images), "the stretch's flux unit")
            )
    objects = field_objects(images, bands, sample)
    zero_points_by_counts(found, objects, bands)
    zero_points(found, bands, base)
    points = colours(found, objects, bands, rng)
    densities(found, objects, sample)
    if any("assumed_pixel_scale" in s.reasons for s in images):
        found.notes.append(
            "pixel_scale_arcsec: no WCS or keyword says it; assumed. Give --survey with the right scale."
        )
    facts = _facts(found, images, bands, base, name, quiet, noise)
    if pair is not None:
        facts["stretch"] = plain_stretch(pair)
    elif stretch is not None and picture:
        facts["stretch"] = configuration.to_mapping(stretch) | {
            "bands": list(stretch.bands),
            "scales": list(stretch.scales),
        }
    softening = fit_softening([s.stars for s in images], rng) if picture and pair is None else None
    say_stretch(found, picture, base, pair, softening)
    space = facts["kind"] == "space"
    beta = facts.get("psf_beta", SurveyFacts.psf_beta)
    kernels = star_kernels(found, images, bands, sample, beta, facts["gain"], space, rng)
    facts["measured"] = measured(found, noise)
    facts["sources"] = sources(found, facts, base, images)
    return Match(
        facts, found, tuple(images), bands, sample, objects, noise, curves, points, quiet, pair, softening, kernels
    )


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
