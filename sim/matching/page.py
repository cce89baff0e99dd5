"""The picture of what `sim/match.py` fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sim.matching.facts import Match
from sim.matching.kernel_page import add_profile, held_out_stars, kernels, kernels_less_moffat
from sim.matching.noise import HISTOGRAM, LAGS
from sim.matching.psf import PROFILE_RADII
from sim.matching.stretch import QUIET_NAMES
from stages.records import FloatArray

_COLOURS = ("#5b4ba8", "#2a7fb8", "#2c9c69", "#c9a227", "#d1603d", "#8c2d3f", "#555555", "#999999")


def draw(match: Match, path: Path) -> None:
    """Write a PNG: profiles, star locus, kernels, noise, correlation, photon transfer, colours, counts, stretch."""
    figure = Figure(figsize=(20, 11), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 4).ravel()
    panels = (
        _profiles, _locus, kernels, kernels_less_moffat,
        held_out_stars, _histogram, _correlation, _correlation_map,
        _transfer, _colours, _counts, _stretch,
    )  # fmt: skip
    for axis, panel in zip(axes, panels, strict=True):
        axis.tick_params(labelsize=8)
        if not panel(axis, match):
            axis.axis("off")
            axis.text(
                0.5, 0.5, f"{panel.__name__.strip('_').replace('_', ' ')}: not measured", ha="center", fontsize=10
            )
    figure.suptitle(f"{match.facts['name']}: {len(match.images)} images, {match.objects.area_arcmin2:.3g} arcmin²")
    figure.savefig(path, dpi=90)


def _hue(k: int) -> str:
    return _COLOURS[k % len(_COLOURS)]


def _profiles(axis: Any, match: Match) -> bool:
    """Mean profiles of the stars (or delivered kernels' widths) with the Moffat profile of the file."""
    sample, middle = match.sample, (PROFILE_RADII[1:] + PROFILE_RADII[:-1]) / 2
    stars = np.flatnonzero(sample.locus.stars)
    drawn = False
    beta = match.facts.get("psf_beta", 3.0)
    for n, band in enumerate(match.bands):
        rings: list[FloatArray] = []
        for k in stars:
            seen = match.images[int(sample.image[k])].rings.get(band, [])
            ring = seen[int(sample.number[k])] if int(sample.number[k]) < len(seen) else None
            if ring is not None:
                rings.append(ring)
        if len(rings) < 2:
            continue
        known = np.isfinite(rings).sum(axis=0) > 1
        table = np.array(rings)[:, known]
        axis.errorbar(middle[known], np.nanmedian(table, axis=0) * 3.0**-n,
                      np.nanstd(table, axis=0) / np.sqrt(len(rings)) * 3.0**-n, fmt="o", ms=3, color=_hue(n),
                      label=f"{band} {match.found.get('psf_fwhm_arcsec', band):.3f}\" ({len(rings)})")  # fmt: skip
        model = (1 + (2 * middle) ** 2 * (2 ** (1 / beta) - 1)) ** -beta
        axis.plot(middle, model * 3.0**-n, color=_hue(n), lw=0.8)
        if band in match.kernels:
            add_profile(axis, match.kernels[band], _hue(n), 3.0**-n)
        drawn = True
    if not drawn:
        return False
    axis.set(
        yscale="log",
        ylim=(1e-5, 2),
        xlabel="radius / FWHM",
        title=f"stars (bands a factor 3 apart); line: Moffat, beta {beta:.2f}; strip: kernel",
    )
    axis.legend(fontsize=7)
    return True


def _locus(axis: Any, match: Match) -> bool:
    sample = match.sample
    if not len(sample.log_fwhm):
        return False
    star = sample.locus.stars
    for part, colour, label in ((~star, "#999999", "galaxies"), (star, "#d1603d", "stars")):
        axis.errorbar(sample.snr[part], 10 ** sample.log_fwhm[part],
                      10 ** sample.log_fwhm[part] * np.log(10) * sample.error[part], fmt=".", color=colour, lw=0.5,
                      label=f"{label} ({part.sum()})")  # fmt: skip
    if sample.locus.found:
        axis.axhline(10**sample.locus.centre, color="k", lw=0.7)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="peak / noise",
        ylabel="FWHM (arcsec)",
        title=f"compact objects in {sample.band}",
    )
    axis.legend(fontsize=7)
    return True


def _histogram(axis: Any, match: Match) -> bool:
    middle = (HISTOGRAM[1:] + HISTOGRAM[:-1]) / 2
    for n, band in enumerate(match.bands):
        total = np.sum([s.noise[band].histogram for s in match.images if band in s.noise], axis=0)
        share = total / max(total.sum(), 1) / (HISTOGRAM[1] - HISTOGRAM[0])
        axis.step(middle, share, where="mid", color=_hue(n), lw=1,
                  label=f"{band} {match.found.get('sky_sigma', band):.4g}")  # fmt: skip
    axis.plot(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), "k:", lw=1, label="Gaussian")
    axis.set(yscale="log", ylim=(1e-5, 1), xlabel="sky pixel / rms", title="noise")
    axis.legend(fontsize=7)
    return True


def _correlation(axis: Any, match: Match) -> bool:
    for n, band in enumerate(match.bands):
        value, error = match.correlations[band]
        lags = np.arange(1, LAGS + 1)
        axis.errorbar(
            lags - 0.05,
            value[0, LAGS + 1 :],
            error[0, LAGS + 1 :],
            fmt="o-",
            ms=3,
            color=_hue(n),
            lw=0.7,
            label=f"{band} x",
        )
        axis.errorbar(lags + 0.05, value[1:, LAGS], error[1:, LAGS], fmt="s:", ms=3, color=_hue(n), lw=0.7)
    axis.axhline(0, color="k", lw=0.5)
    axis.set(xlabel="lag (pixels; dotted: along y)", title="autocorrelation of the sky")
    axis.legend(fontsize=7)
    return True


def _correlation_map(axis: Any, match: Match) -> bool:
    band = match.bands[len(match.bands) // 2]
    value = match.correlations[band][0].copy()
    value[0, LAGS] = np.nan
    shown = axis.imshow(value, origin="lower", extent=(-LAGS - 0.5, LAGS + 0.5, -0.5, LAGS + 0.5), cmap="RdBu_r",
                        vmin=-np.nanmax(np.abs(value)), vmax=np.nanmax(np.abs(value)))  # fmt: skip
    axis.figure.colorbar(shown, ax=axis, shrink=0.6)
    axis.set(xlabel="dx (pixels)", ylabel="dy", title=f"autocorrelation in {band}")
    return True


def _softening(axis: Any, match: Match) -> bool:
    """Slope of the stars' widths with brightness by Q: it must be nought."""
    fit = match.softening
    if fit is None:
        return False
    seen = fit.slopes[:, 2] < 1e3
    axis.errorbar(fit.slopes[seen, 0], fit.slopes[seen, 1], fit.slopes[seen, 2], fmt="o-", color=_hue(0))
    axis.axhline(0, color="k", lw=0.7)
    axis.axvspan(fit.q - fit.error, fit.q + fit.error, color=_hue(1), alpha=0.2)
    axis.set(xlabel="Q", ylabel="slope of ln FWHM with level", title=f"softening {fit.q:.2g} +- {fit.error:.2g}")
    return True


def _transfer(axis: Any, match: Match) -> bool:
    if match.images[0].picture:
        return _softening(axis, match)
    drawn = False
    for n, (band, curve) in enumerate(match.curves.items()):
        sigma = match.found.get("sky_sigma", band)
        if not len(curve):
            continue
        axis.errorbar(
            curve[:, 0] / sigma, curve[:, 1] / sigma**2, curve[:, 2] / sigma**2, fmt=".", color=_hue(n), label=band
        )
        gain = match.facts["gain"].get(band, np.inf)
        x = np.geomspace(max(curve[:, 0].min(), 1e-9 * sigma), curve[:, 0].max(), 50)
        axis.plot(x / sigma, 1 + x / gain / sigma**2, color=_hue(n), lw=0.8)
        drawn = True
    if drawn:
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="flux / noise",
            ylabel="variance / sky",
            title="photon transfer; lines: gain of the file",
        )
        axis.legend(fontsize=7)
    return drawn


def _colours(axis: Any, match: Match) -> bool:
    for n, (name, points) in enumerate(match.colours.items()):
        low, high = np.percentile(points[:, 1], (1, 99))
        axis.hist(
            points[:, 1],
            np.linspace(low - 0.1, high + 0.1, 25),
            histtype="step",
            color=_hue(n),
            label=f"{name} ({len(points)})",
        )
    if match.colours:
        axis.set(xlabel="colour (AB)", title="field galaxies")
        axis.legend(fontsize=7)
    return bool(match.colours)


def _counts(axis: Any, match: Match) -> bool:
    band, objects = match.objects.main, match.objects
    if f"flux_{band}" not in objects.table:
        return False
    flux = objects.table[f"flux_{band}"].to_numpy(float)
    magnitude = np.sort(match.found.get("zero_point", band) - 2.5 * np.log10(flux[flux > 0]))
    if not len(magnitude):
        return False
    axis.step(magnitude, np.arange(1, len(magnitude) + 1) / objects.area_arcmin2, where="post", color="#2a7fb8")
    line = np.linspace(magnitude[0], magnitude[-1], 10)
    axis.plot(line, 6.2 * 10 ** (0.38 * (line - 22.5)), "k:", lw=1, label="COSMOS galaxies in i")
    axis.axvline(match.found.get("density_limit_mag"), color="#d1603d", lw=0.8, label="limit")
    axis.set(yscale="log", xlabel=f"{band} (AB)", ylabel="brighter, per arcmin²", title="number counts")
    axis.legend(fontsize=7)
    return True


def _stretch(axis: Any, match: Match) -> bool:
    if match.pair is not None:
        for k, (band, colour) in enumerate(
            zip(match.pair.stretch.bands, ("#c0392b", "#2c9c69", "#2a7fb8"), strict=True)
        ):
            axis.plot(
                match.pair.samples[:, k, 1],
                match.pair.samples[:, k, 0] - match.pair.samples[:, k, 1],
                ",",
                color=colour,
                label=band,
            )
        axis.set(
            xlabel="level shown", ylabel="fit - shown", title=f"stretch: mean difference {match.pair.misfit:.2f} of 255"
        )
        return True
    rows = [s.quiet for s in match.images if s.quiet is not None]
    if match.quiet is None or not rows:
        return False
    seen = np.median(rows, axis=0)
    for k, colour in enumerate(("#c0392b", "#2c9c69", "#2a7fb8")):
        axis.plot(np.arange(9) - 0.1 + 0.1 * k, seen[k], "o", ms=4, color=colour)
        axis.plot(np.arange(9) - 0.1 + 0.1 * k, match.quiet.predicted[k], "_", ms=12, color=colour)
    axis.set_xticks(range(9), QUIET_NAMES)
    axis.set(yscale="symlog", title="quiet pixels of the composite: o seen, - fit")
    return True
