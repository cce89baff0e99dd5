"""Real objects as they are, assumed to be no lenses: one in 1,000 to 100,000 is, and known ones are left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import truth
from sim.observe import sampling
from sim.real_sky.cutouts import BackgroundError, BackgroundOptions, Seen, place_of, psf_width, read_cutouts, square
from stages.records import Cutout, FloatArray

_MAX_MASKED = 0.4
Labelled = tuple[Cutout, dict[str, Any], npt.NDArray[np.uint8]]


class Unpainted:
    """The objects of a folder or catalogue, in the order in which they are listed."""

    def __init__(self, options: BackgroundOptions) -> None:
        """Read all; raises BackgroundError where nothing is left, InputError for unreadable folders."""
        self.options, self.rejected = options, list[tuple[str, str]]()
        seen = list(read_cutouts(options, self.rejected))
        fwhm, _ = psf_width(seen, options.survey)
        self._made: list[Labelled] = []
        for one in seen:
            made = self._labelled(one, fwhm)
            if made is None:
                self.rejected.append((one.cutout.id, "masked"))
            else:
                self._made.append(made)
        if not self._made:
            raise BackgroundError(f"{options.folder}: no object is left ({self.report()}). Give more images.")

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: int) -> Labelled:
        return self._made[index]

    def report(self) -> str:
        """What became of the objects, in words."""
        counts = {"kept": len(self._made)} | dict(Counter(reason for _, reason in self.rejected).most_common())
        return ", ".join(f"{name} {n}" for name, n in counts.items())

    def _labelled(self, one: Seen, fwhm: FloatArray) -> Labelled | None:
        cutout, survey, n = one.cutout, self.options.survey, sampling(self.options.survey).size_pix
        flux, variance, valid, origin = square(cutout, cutout.xy_pix, n)
        if (~valid).mean() > _MAX_MASKED:
            return None
        width = np.asarray(cutout.psf_fwhm_arcsec if cutout.psf.size else fwhm, float)
        cut = Cutout(
            cutout.id, "", flux, variance, valid, survey.bands, survey.pixel_scale_arcsec, width,
            np.zeros((0, 0, 0), np.float32), cutout.xy_pix - origin, np.zeros(2), survey=survey.name,
        )  # fmt: skip
        system = f"{survey.name}:{place_of(cutout, self.options.catalogue is not None)}"
        row = truth.blank_row() | {
            "id": cutout.id, "system": system, "kind": "sky", "seeing_arcsec": float(np.median(width)),
        }  # fmt: skip
        return cut, row, np.zeros((n, n), np.uint8)
