"""Many images to one value with its error: noise, gain, zero points; errors by bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.matching.header import plausible
from sim.matching.image import ImageStats
from sim.matching.noise import LAGS, folded, gaussian_width
from sim.matching.transfer import SHARPEST_PIX, photon_transfer
from stages.records import FloatArray

_BOOTSTRAPS = 200
_SEEN = 2.5  # errors of 1 / gain from zero


@dataclass(frozen=True)
class Value:
    """A measured number: its error (68%; NaN if not known), how many images or objects it rests on, and how."""

    value: float
    error: float
    n: int
    how: str

    def __str__(self) -> str:
        error = f" +- {self.error:.2g}" if np.isfinite(self.error) else ""
        return f"{self.value:.4g}{error} ({self.how}, n = {self.n})"

    def plain(self) -> dict[str, Any]:
        """For YAML: what is not finite becomes text-free null."""
        error = float(f"{self.error:.3g}") if np.isfinite(self.error) else None
        return {"value": float(f"{self.value:.5g}"), "error": error, "n": self.n, "how": self.how}


@dataclass
class Findings:
    """What is gathered: values by quantity and band, and notes of what could not be measured."""

    values: dict[str, dict[str, Value]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, quantity: str, band: str, value: Value | None) -> None:
        """Keep a value where there is one."""
        if value is not None and np.isfinite(value.value):
            self.values.setdefault(quantity, {})[band] = value

    def get(self, quantity: str, band: str = "all") -> float:
        """A value's number, NaN where there is none."""
        found = self.values.get(quantity, {}).get(band)
        return found.value if found is not None else float("nan")


def robust_std(values: FloatArray) -> float:
    """1.4826 times the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def over_images(
    values: Sequence[float] | FloatArray, how: str, rng: np.random.Generator,
    statistic: Callable[[FloatArray], float] = lambda v: float(np.median(v)),
) -> Value | None:  # fmt: skip
    """A statistic of one number per image (or object) and its bootstrap error; None where no number is finite."""
    known = np.asarray([v for v in values if np.isfinite(v)], float)
    if not len(known):
        return None
    error = float("nan")
    if len(known) > 2:
        draws = [statistic(known[rng.integers(0, len(known), len(known))]) for _ in range(_BOOTSTRAPS)]
        error = float(np.std(draws))
    return Value(statistic(known), error, len(known), how)


def noise_values(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Sky rms, its scatter, residual sky; returns the autocorrelation (5, 9) and error, (2, 5, 9), by band."""
    tables: dict[str, FloatArray] = {}
    for band in bands:
        seen = [s.noise[band] for s in images if band in s.noise]
        if not seen:
            continue
        found.put("sky_sigma", band, over_images([n.sigma for n in seen], "sky pixels", rng))
        if len(seen) > 2:
            found.put(
                "sky_sigma_scatter", band, over_images(np.log([n.sigma for n in seen]), "sky pixels", rng, robust_std)
            )
        found.put("sky_residual", band, over_images([n.residual for n in seen], "mesh of the sky", rng))
        weights, values = np.array([n.pairs for n in seen]), np.array([n.correlation for n in seen])

        def mean(pick: npt.NDArray[np.intp], w: FloatArray = weights, v: FloatArray = values) -> FloatArray:
            return np.asarray((w[pick] * v[pick]).sum(axis=0) / w[pick].sum(axis=0))

        centre = mean(np.arange(len(seen)))
        draws = np.array([mean(rng.integers(0, len(seen), len(seen))) for _ in range(60)])
        error = draws.std(axis=0) if len(seen) > 2 else 1 / np.sqrt(weights.sum(axis=0))
        tables[band] = np.stack([centre, error])
        spread = float(np.std([gaussian_width(d) for d in draws])) if len(seen) > 2 else float("nan")
        found.put("noise_correlation_pix", band, Value(gaussian_width(centre), spread, len(seen), "sky pixels"))
        x1, y1 = centre[0, LAGS + 1], centre[1, LAGS]
        found.put("correlation_x1", band, Value(float(x1), float(error[0, LAGS + 1]), len(seen), "sky pixels"))
        found.put("correlation_y1", band, Value(float(y1), float(error[1, LAGS]), len(seen), "sky pixels"))
        found.put("map_variance_ratio", band, over_images([n.map_ratio for n in seen], "delivered noise map", rng))
    return tables


def gain_values(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Gain by band from noise maps, headers and photon transfer; returns the transfer curves (bins, 3) by band."""
    curves: dict[str, FloatArray] = {}
    for band in bands:
        seen = [s.noise[band] for s in images if band in s.noise]
        finite = [n.map_gain for n in seen if np.isfinite(n.map_gain)]
        by_map = over_images(finite, "delivered noise maps", rng) if 2 * len(finite) >= len(seen) else None
        if by_map is None and any(np.isinf(n.map_gain) for n in seen):
            found.notes.append(f"gain.{band}: the delivered noise maps hold no photon noise. Nothing to do.")
        header = over_images([s.said.gain[band][0] for s in images if band in s.said.gain], "header", rng)
        transfer = None
        sharp = found.get("psf_fwhm_arcsec", band) < SHARPEST_PIX * found.get("pixel_scale_arcsec")
        measured = None if sharp else photon_transfer([(n.transfer, n.sigma) for n in seen], rng)
        if measured is not None:
            n_pix, gain = sum(len(n.transfer) for n in seen), 1 / measured.inverse_gain
            curves[band] = measured.curve
            if measured.inverse_gain > _SEEN * measured.error:
                transfer = Value(gain, gain**2 * measured.error, n_pix, "photon transfer")
            else:
                floor = 1 / (max(measured.inverse_gain, 0.0) + 2 * measured.error)
                found.put("gain_lower_limit", band, Value(floor, float("nan"), n_pix, "photon transfer, 95%"))
        elif sharp and by_map is None and header is None:
            found.notes.append(
                f"gain.{band}: the PSF is too sharp for the pixels: objects' structure and photon noise look alike. "
                "Put GAIN into the headers."
            )
        for name, value in (("map", by_map), ("header", header), ("transfer", transfer)):
            found.put(f"gain_by_{name}", band, value)
        found.put("gain", band, by_map or header or transfer)
        full = over_images([s.said.saturation[band][0] for s in images if band in s.said.saturation], "header", rng)
        found.put("saturation", band, full)
    return curves


def header_zero_points(
    found: Findings, images: Sequence[ImageStats], bands: Sequence[str], rng: np.random.Generator
) -> None:
    """Zero points that headers state and that put the sky where it can be."""
    for band in bands:
        rows = [(s.said.zero_point[band], s) for s in images if band in s.said.zero_point and band in s.noise]
        good = [(v, k) for (v, k), s in rows if plausible(v, s.noise[band].sigma, s.pixel_scale_arcsec)]
        if rows and not good:
            (value, key), _ = rows[0]
            found.notes.append(
                f"zero_point.{band}: header keyword {key} = {value:g} puts the sky out of all reason and is not used. "
                "Check the flux unit."
            )
        if good:
            found.put("zero_point", band, over_images([v for v, _ in good], f"header, {good[0][1]}", rng))


def table_of(correlation: FloatArray) -> list[list[float]]:
    """(5, 9) autocorrelation as the YAML's [dy][dx]."""
    return [[round(float(v), 4) for v in row] for row in folded(correlation)]
