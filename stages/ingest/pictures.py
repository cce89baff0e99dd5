"""Colour composites: 8-bit pictures back to flux through the inverse of their stretch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_opening

from stages import config as configuration
from stages.ingest.field import Field, ReadError, checked
from stages.records import BoolArray
from stages.stretch import from_composite
from stages.survey import SurveyFacts

_BLOCK_PIX = 5  # black or white patches at least this large are no sky
Image.MAX_IMAGE_PIXELS = None  # survey tiles are large and are the user's own


def read(path: Path, facts: SurveyFacts | None) -> Field:
    """A picture as a field; flipping and orientation are left as in the file, rows downwards."""
    try:
        with Image.open(path) as opened:
            opened.load()
            grey = opened.mode in ("L", "I;16", "I", "F", "1")
            picture = np.asarray(opened.convert("RGB") if opened.mode not in ("I;16", "I", "F") else opened)
    except Exception as error:  # Pillow raises errors of many kinds on broken files
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise ReadError(reason, f"{error}. Copy or make the picture anew.") from error
    if picture.ndim == 2:
        top = max(float(picture.max()), 1.0)
        picture = np.repeat((255 * (picture / top)).astype(np.uint8)[..., None], 3, axis=2)
    known = survey_of(path, facts)
    reasons = () if known is not None else ("assumed_stretch", "assumed_pixel_scale")
    used = known if known is not None else _default()
    assert used.stretch is not None  # both kinds have one
    flux, bands = from_composite(picture, used.stretch), used.stretch.bands
    valid = np.repeat(~_blank(picture)[None], 3, axis=0)
    if grey:
        flux, bands, valid = flux.mean(axis=0, keepdims=True), ("",), valid[:1]
    return checked(
        Field(
            flux, np.full(flux.shape, np.nan, np.float32), valid, bands, used.pixel_scale_arcsec,
            np.array([used.psf_fwhm_arcsec.get(b, np.nan) if known is not None else np.nan for b in bands]),
            np.zeros((0, 0, 0), np.float32), survey=used.name if known is not None else "", reasons=reasons,
        ),
        zeros_are_data=True,
    )  # fmt: skip


def survey_of(path: Path, facts: SurveyFacts | None) -> SurveyFacts | None:
    """The survey whose composite a picture is: the one given where its stretch is known, else by the picture's name."""
    return facts if facts is not None and facts.stretch is not None else survey_by_name(path)


def survey_by_name(path: Path) -> SurveyFacts | None:
    """The survey with a known stretch whose name begins the picture's."""
    stem = path.stem.lower()
    return next((facts for prefix, facts in _stretched() if stem.startswith(prefix)), None)


@lru_cache(maxsize=1)
def _stretched() -> tuple[tuple[str, SurveyFacts], ...]:
    known = [
        configuration.load(SurveyFacts, p)
        for p in sorted((configuration.CONFIG_DIR / "surveys").glob("*_composite.yaml"))
    ]
    return tuple((facts.name.split("_")[0].lower(), facts) for facts in known if facts.stretch is not None)


@lru_cache(maxsize=1)
def _default() -> SurveyFacts:
    return configuration.load(SurveyFacts, configuration.CONFIG_DIR / "surveys" / "cfhtls_composite.yaml")


def _blank(picture: npt.NDArray[np.uint8]) -> BoolArray:
    """Patches in which every plane is 0: cut off, masked or filled up."""
    dark = (picture == 0).all(axis=2)
    solid: BoolArray = binary_opening(dark, np.ones((_BLOCK_PIX, _BLOCK_PIX), bool))
    return solid
