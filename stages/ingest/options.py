"""What a reader is told, and the one error that stops a run before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stages.survey import SurveyFacts


class InputError(ValueError):
    """An input that cannot be scanned at all; the message says what to do."""


@dataclass(frozen=True)
class IngestOptions:
    """How to read a survey.

    catalogue : objects to cut from tiles; survey : facts for files that do not carry their own; cutout_arcsec : side of
    a cutout from a tile, or from an image larger than twice that; limit : read at most so many objects;
    survey_psf : give cutouts without a PSF the survey's, which the counter uses; the simulator reads without it.
    """

    catalogue: Path | None = None
    survey: SurveyFacts | None = None
    cutout_arcsec: float = 12.0
    batch_size: int = 256
    workers: int = 2
    limit: int | None = None
    survey_psf: bool = False
