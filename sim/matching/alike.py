"""Which images of a folder go together, and where their pixel scale comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.matching.image import ImageStats
from sim.matching.values import Findings
from stages.bands import wavelength_nm
from stages.survey import SurveyFacts


def alike(images: Sequence[ImageStats], found: Findings) -> tuple[list[ImageStats], tuple[str, ...]]:
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


def scale_source(images: Sequence[ImageStats], base: SurveyFacts | None) -> str:
    """Where the images' pixel scale was read."""
    if any("assumed_pixel_scale" in s.reasons for s in images):
        return "assumed"
    if images[0].picture:
        return "the survey's facts"
    same = base is not None and all(s.pixel_scale_arcsec == base.pixel_scale_arcsec for s in images)
    return "WCS or header, else the survey's facts" if same else "WCS or header"
