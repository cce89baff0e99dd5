"""Objects of the field: zero points from number counts, colours, densities of galaxies and stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from sim.matching.image import ImageStats
from sim.matching.stars import StarSample
from sim.matching.values import Findings, Value, over_images, robust_std
from stages.bands import wavelength_nm
from stages.records import FloatArray

# Galaxies per arcmin2 brighter than i (AB): 6.2 at 22.5 (zCOSMOS, Lilly et al. 2007), slope 0.38 from 20.5 to 24.5
# (Leauthaud et al. 2007; Capak et al. 2007), where the line is good to 15%.
_COUNT_22_5, _COUNT_SLOPE = 6.2, 0.38
_COUNT_RANGE = (19.5, 24.8)
# Median colour to i of galaxies of i = 22 (COSMOS; Ilbert et al. 2009), by wavelength in nm.
_COLOUR_TO_I = ((355.0, 2.1), (475.0, 1.25), (622.0, 0.5), (763.0, 0.0), (905.0, -0.3), (1000.0, -0.4))
_COLOUR_ERROR = 0.15  # mag: galaxies differ from field to field
_COUNTS_ERROR = 0.5  # mag: field to field variance, neighbours of chosen galaxies
_STAR_SLOPE = 0.15  # of log10 star counts per magnitude at high latitude (Bahcall & Soneira 1980)
_STAR_LIMIT_I = 23.0
_MIN_FIELD_OBJECTS, _MIN_COLOUR_OBJECTS = 25, 8
_COLOUR_SNR, _LIMIT_SNR = 5.0, 10.0


@dataclass(frozen=True, eq=False)
class FieldObjects:
    """All objects but the cutouts' own: a table with `image` and `star` (chance), the area, the band of magnitudes."""

    table: pd.DataFrame
    area_arcmin2: float
    main: str


def field_objects(images: Sequence[ImageStats], bands: Sequence[str], sample: StarSample) -> FieldObjects:
    """Join the images' tables; the band in which magnitudes are counted is i or the nearest there is."""
    chance = {
        (int(i), int(j)): float(p) for i, j, p in zip(sample.image, sample.number, sample.locus.chance, strict=True)
    }
    tables = []
    for i, s in enumerate(images):
        if len(s.objects):
            star = [chance.get((i, int(j)), np.nan) if sample.locus.found else np.nan for j in s.objects["profile"]]
            tables.append(s.objects.assign(image=i, star=star))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"chosen": [], "star": [], "image": []})
    main = min(bands, key=lambda b: _to_i(b))
    return FieldObjects(table[~table["chosen"].astype(bool)], float(sum(s.area_arcmin2 for s in images)), main)


def _to_i(band: str) -> float:
    value = wavelength_nm(band)
    return abs(value - 763.0) if np.isfinite(value) else 1e9


def zero_points_by_counts(found: Findings, objects: FieldObjects, bands: Sequence[str]) -> None:
    """Zero points that no header gave: the main band's so that galaxies are as many as elsewhere on the sky.

    The other bands' so that the galaxies have their usual colours to it.
    """
    main = objects.main
    if f"error_{main}" not in objects.table or not 450 < wavelength_nm(main) < 1100:
        return
    table = objects.table[objects.table["star"].fillna(0) < 0.5]
    if main not in found.values.get("zero_point", {}):
        # An aperture holds about half of a faint galaxy's light.
        limit = 2.0 * _LIMIT_SNR * float(np.median(table[f"error_{main}"])) if len(table) else np.nan
        number = int((table[f"flux_{main}"] > limit).sum())
        i_mag = 22.5 + np.log10(max(number, 1) / objects.area_arcmin2 / _COUNT_22_5) / _COUNT_SLOPE
        if number < _MIN_FIELD_OBJECTS or not _COUNT_RANGE[0] < i_mag < _COUNT_RANGE[1]:
            return
        zero = i_mag + _usual_colour(main) + 2.5 * np.log10(limit)
        poisson = 1 / np.sqrt(number) / np.log(10) / _COUNT_SLOPE
        error = float(np.hypot(poisson, _COUNTS_ERROR))
        found.put("zero_point", main, Value(float(zero), error, number, "number counts"))
    zero_main = found.values["zero_point"][main]
    magnitude = zero_main.value - 2.5 * np.log10(np.maximum(table[f"flux_{main}"], 1e-30))
    for band in bands:
        if band in found.values["zero_point"] or f"colour_{band}" not in table or not 350 < wavelength_nm(band) < 1100:
            continue
        a, b = table[f"colour_{main}"], table[f"colour_{band}"]
        seen = (
            (magnitude < 23)
            & (a > 2 * _COLOUR_SNR * table[f"error_{main}"])
            & (b > _COLOUR_SNR * table[f"error_{band}"])
        )
        if seen.sum() >= _MIN_COLOUR_OBJECTS:
            ratio = float(np.median(2.5 * np.log10(b[seen] / a[seen])))
            relative = _usual_colour(band) - _usual_colour(main)
            error = float(np.hypot(np.nan_to_num(zero_main.error), _COLOUR_ERROR))
            value = Value(zero_main.value + relative + ratio, error, int(seen.sum()), "galaxy colours")
            found.put("zero_point", band, value)


def _usual_colour(band: str) -> float:
    return float(np.interp(wavelength_nm(band), *np.array(_COLOUR_TO_I).T))


def colours(
    found: Findings, objects: FieldObjects, bands: Sequence[str], rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Median and scatter of neighbouring bands' colours by magnitude; returns (n, 2) magnitude and colour by pair."""
    points: dict[str, FloatArray] = {}
    zero = found.values.get("zero_point", {})
    table = objects.table[objects.table["star"].fillna(0) < 0.5] if len(objects.table) else objects.table
    for blue, red in pairwise(bands):
        columns = [f"colour_{blue}", f"colour_{red}", f"flux_{objects.main}"]
        if not {blue, red, objects.main} <= set(zero) or not set(columns) <= set(table):
            continue
        b, r, m = (table[c].to_numpy(float) for c in columns)
        seen = (b > _COLOUR_SNR * table[f"error_{blue}"]) & (r > _COLOUR_SNR * table[f"error_{red}"]) & (m > 0)
        if seen.sum() < _MIN_COLOUR_OBJECTS:
            continue
        colour = -2.5 * np.log10(b[seen] / r[seen]) + zero[blue].value - zero[red].value
        magnitude = zero[objects.main].value - 2.5 * np.log10(m[seen])
        points[f"{blue}-{red}"] = np.column_stack([magnitude, colour])
        low = int(np.floor(magnitude.min()))
        for at in range(low, int(np.ceil(magnitude.max()))):
            part = colour[(magnitude >= at) & (magnitude < at + 1)]
            if len(part) >= _MIN_COLOUR_OBJECTS:
                name = f"{blue}-{red} at {objects.main} {at}-{at + 1}"
                found.put("colour", name, over_images(part, "field galaxies", rng))
                found.put("colour_scatter", name, over_images(part, "field galaxies", rng, robust_std))
    return points


def densities(found: Findings, objects: FieldObjects, sample: StarSample) -> None:
    """Galaxies and stars per arcmin2 in the main band, with the magnitude to which they are complete."""
    band, zero = objects.main, found.get("zero_point", objects.main)
    if f"error_{band}" not in objects.table or objects.area_arcmin2 <= 0:
        return
    table = objects.table
    limit = 2.0 * _LIMIT_SNR * float(np.median(table[f"error_{band}"]))
    magnitude = zero - 2.5 * np.log10(limit)
    bright = table[f"flux_{band}"] > limit
    stars = bright & (table["star"].fillna(0) > 0.5)
    galaxies = int((bright & ~stars).sum())
    to = f"to {band} = {magnitude:.1f}" if np.isfinite(magnitude) else f"to {limit:.3g} flux units in {band}"
    area, per_image = objects.area_arcmin2, table["image"].to_numpy()
    found.put(
        "density_per_arcmin2", "all", _count(galaxies, area, per_image[(bright & ~stars).to_numpy()], f"objects {to}")
    )
    found.put("density_limit_mag", "all", Value(magnitude, float("nan"), galaxies, f"S/N {_LIMIT_SNR:g} in {band}"))
    if not sample.locus.found:
        return
    chosen = table[table["profile"] >= 0]
    flux = float(chosen[f"flux_{band}"].min()) if len(chosen) else np.nan
    n_stars = int((chosen["star"].fillna(0) > 0.5).sum())
    faintest = float(np.percentile(chosen[f"flux_{band}"], 10)) if len(chosen) else flux
    star_limit = zero - 2.5 * np.log10(max(faintest, 1e-30))
    to = f"to {band} = {star_limit:.1f}" if np.isfinite(star_limit) else f"to {faintest:.3g} flux units"
    which = per_image[((table["profile"] >= 0) & (table["star"].fillna(0) > 0.5)).to_numpy()]
    found.put("star_density_per_arcmin2", "all", _count(n_stars, area, which, f"stars that stand alone, {to}"))
    found.put("star_limit_mag", "all", Value(star_limit, float("nan"), n_stars, "faintest profiles"))


def to_depth(found: Findings) -> tuple[float, float]:
    """Densities as the simulator wants them: galaxies to 5 sigma, stars to i = 23, NaN where not measured."""
    galaxies = found.get("density_per_arcmin2") * 10 ** (_COUNT_SLOPE * 0.75)
    stars = found.get("star_density_per_arcmin2") * 10 ** (_STAR_SLOPE * (_STAR_LIMIT_I - found.get("star_limit_mag")))
    return galaxies, stars


def _count(number: int, area: float, image: FloatArray, how: str) -> Value:
    """A density; its error is Poisson's, or what the counts differ from image to image where that is more."""
    counts = np.unique(image, return_counts=True)[1]
    clumped = np.sqrt((counts.astype(float) ** 2).sum()) if len(counts) > 2 else 0.0
    return Value(number / area, max(np.sqrt(number + 1.0), min(clumped, number)) / area, number, how)
