"""What a survey of colour composites alone says: noise and shift of its quiet pixels, and its stretch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.matching.image import ImageStats
from sim.matching.softening import LEAST, Softening
from sim.matching.stretch import QuietFit, StretchFit, fit_quiet
from sim.matching.values import Findings, Value
from stages.survey import SurveyFacts


def quiet_fit(
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


def plain_stretch(pair: StretchFit) -> dict[str, Any]:
    """A fitted stretch for YAML."""
    s = pair.stretch
    return {
        "bands": list(s.bands), "scales": [round(v, 5) for v in s.scales], "zero_point": s.zero_point,
        "alpha": round(s.alpha, 6), "q": round(s.q, 4), "kind": s.kind,
    }  # fmt: skip


def say_stretch(
    found: Findings, picture: bool, base: SurveyFacts | None, pair: StretchFit | None, softening: Softening | None
) -> None:
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
        stretch = base.stretch if base is not None else None
        taken = "the survey's" if stretch is not None else "CFHTLS's (assumed)"
        found.notes.append(
            f"stretch: scales and alpha cannot be known from pictures alone; {_say_softening(found, softening)} "
            f"{taken} is taken, and all fluxes rest on it. Give --pair FITS_R FITS_G FITS_B PICTURE to fit it."
        )
        q = stretch.q if stretch is not None else float("nan")
        if softening is not None and softening.known and abs(softening.q - q) > 3 * softening.error:
            found.notes.append(
                f"stretch_q: the stars do not agree with {q:g} of {taken}. Give --pair or another --survey."
            )


def _say_softening(found: Findings, fit: Softening | None) -> str:
    """Put Q among the values where it can be had; what a note says of it."""
    if fit is None:
        return f"q is not measured (fewer than {LEAST} round objects that stand alone);"
    if fit.known:
        found.put("stretch_q", "all", Value(fit.q, fit.error, fit.n, "width of stars against brightness"))
        return f"q is {fit.q:.2g} +- {fit.error:.2g} by the stars;"
    return f"q is not measured (stars give {fit.q:.2g} +- {fit.error:.2g});"
