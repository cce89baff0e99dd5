"""The parts of a survey file that say what was found, with errors, and where each number comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from sim.matching.image import ImageStats
from sim.matching.star_kernels import StarKernel
from sim.matching.values import Findings
from stages import config as configuration
from stages.records import FloatArray
from stages.survey import SurveyFacts

_MAX_KERNELS = 32


def measured(found: Findings, noise: dict[str, FloatArray]) -> dict[str, Any]:
    """Everything found, with errors, as plain data."""
    out: dict[str, Any] = {q: {b: v.plain() for b, v in by.items()} for q, by in found.values.items() if by}
    out["noise_autocorrelation"] = {
        b: {"dx": "-4..4", "dy": "0..4", "value": np.round(t[0], 4).tolist(), "error": np.round(t[1], 4).tolist()}
        for b, t in noise.items()
    }
    out["notes"] = list(found.notes)
    return out


def sources(
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
            parts = [f"{k[8:]} {b} {v}" for k, by in fits.items() for b, v in by.items()]
            if base is not None and "stretch_scale" not in fits:
                parts = [base.sources.get(quantity, f"from {base.name}"), *(f"beside it, {p}" for p in parts)]
            out[quantity] = "; ".join(parts)
        else:
            out[quantity] = (base.sources.get(quantity) or f"from {base.name}") if base is not None else "default"
    if "density_per_arcmin2" in out:
        out["density_per_arcmin2"] += (
            f"; extrapolated by slope 0.38 from S/N 10 ({found.get('density_limit_mag'):.1f} mag) to 5"
        )
    if "star_density_per_arcmin2" in out:
        out["star_density_per_arcmin2"] += "; extrapolated to i = 23 by slope 0.15"
    return out


def write_kernels(
    facts: dict[str, Any], found: Findings, images: Sequence[ImageStats], kernels: dict[str, StarKernel], out: Path
) -> None:
    """PSFs as `psf_files` beside the survey file: those of stars that were taken, else those delivered with the images.

    Delivered ones are written where they and not stars are the PSF: (n, h, w), those of stars (h, w).
    """
    told = {}
    for band in facts["bands"]:
        value, header = found.values.get("psf_fwhm_arcsec", {}).get(band), fits.Header()
        if band in kernels and kernels[band].taken:
            got = kernels[band]
            planes, n = got.kernel, len(got.chi2)
            header["NSTARS"], header["FWHM"] = (n, "stars it was measured from"), (got.fwhm_pix, "pixels")
            header["PSFERR"] = (got.error, "share of light misplaced by chance")
            told[band] = f"{band} measured by sim/match.py from {n} stars, {100 * got.error:.2g}% of light misplaced"
        elif value is not None and value.how == "delivered PSF":
            delivered = [s.kernels[band] for s in images if band in s.kernels]
            side = int(np.median([min(k.shape) for k in delivered]))
            delivered = [k for k in delivered if min(k.shape) == side][:_MAX_KERNELS]
            planes = np.array([k / k.sum() for k in delivered])
            told[band] = f"{band} delivered with the images, {len(delivered)} of them"
        else:
            continue
        path = out.with_name(f"{out.stem}_psf_{band}.fits")
        fits.PrimaryHDU(planes.astype(np.float32), header).writeto(path, overwrite=True)
        facts.setdefault("psf_files", {})[band] = path.name
    if told:
        facts["sources"]["psf_files"] = "; ".join(told.values())


def checked(facts: dict[str, Any]) -> SurveyFacts:
    """The facts as the simulator reads them; raises ConfigError."""
    return replace(configuration.from_mapping(SurveyFacts, facts, "measured facts"))
