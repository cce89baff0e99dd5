"""What a cutout looks like in numbers: noise, profile, shape, colours and neighbours, for comparing simulated and real.

Every feature is free of the flux unit: fluxes are relative to the object's own or to the sky's noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import sep
from scipy.ndimage import binary_dilation
from scipy.stats import kurtosis, skew

from stages.records import BoolArray, Cutout, FloatArray

_DETECT_SIGMA = 1.5  # above the local noise in `sep.extract`, for masking objects
_NEIGHBOUR_SIGMA = 4.0
_MIN_SKY_PIX = 60
_APERTURE_PIX = 4.0
_RINGS_PIX = (0.0, 1.5, 3.0, 4.5, 6.5, 9.0, 12.5, 17.0, 24.0)
_LAGS = {"1_0": (1, 0), "0_1": (0, 1), "1_1": (1, 1), "2_0": (2, 0), "0_2": (0, 2), "3_0": (3, 0)}


@dataclass(frozen=True, eq=False)
class Plane:
    """One band without its sky level: pixels (H, W), where they are valid, which are sky, and the sky's rms."""

    flux: FloatArray
    valid: BoolArray
    sky: BoolArray
    sigma: float


def features(cutout: Cutout) -> dict[str, float]:
    """Features by name; NaN where the cutout does not allow one. Band names are part of the names."""
    planes = {band: plane(cutout.flux[k], cutout.valid[k]) for k, band in enumerate(cutout.bands)}
    out: dict[str, float] = {"invalid_share": float(1 - cutout.valid.mean())}
    for band, p in planes.items():
        out |= {f"noise_{name}_{band}": value for name, value in noise_features(p).items()}
        out |= {f"profile_{name}_{band}": value for name, value in profile_features(p, cutout.xy_pix).items()}
    main = planes[main_band(cutout.bands)]
    out |= {f"neighbours_{name}": value for name, value in neighbour_features(main, cutout.xy_pix).items()}
    for blue, red in pairwise(cutout.bands):
        out |= colour_features(planes[blue], planes[red], cutout.xy_pix, f"colour_{blue}_{red}")
    return out


def main_band(bands: tuple[str, ...]) -> str:
    """The band in which shapes are measured: the middle one."""
    return bands[len(bands) // 2]


def plane(flux: FloatArray, valid: BoolArray) -> Plane:
    """Find the objects of a plane (H, W), mask them, and measure sky level and noise from what is left."""
    usable = valid & np.isfinite(flux)
    data = np.ascontiguousarray(np.where(usable, flux, np.nan), dtype=np.float64)
    level = float(np.nanmedian(data)) if usable.any() else 0.0
    sky = usable
    for _ in range(2):
        sample = data[sky] if sky.sum() >= _MIN_SKY_PIX else data[usable]
        level = float(np.median(sample)) if sample.size else level
        sigma = 1.4826 * float(np.median(np.abs(sample - level))) if sample.size else 0.0
        sigma = sigma if sigma > 0 else float(sample.std()) + 1e-12 if sample.size else 1e-12
        _, found = sep.extract(
            np.where(usable, data - level, 0.0), _DETECT_SIGMA, err=sigma, mask=~usable, segmentation_map=True
        )
        sky = usable & ~binary_dilation(found > 0, iterations=2)
    return Plane(np.where(usable, data - level, 0.0), usable, sky, sigma)


def brightness(cutout: Cutout) -> float:
    """log10 of the flux within 4 pixels of the object over the sky's rms in the middle band; NaN if not positive."""
    k = cutout.bands.index(main_band(cutout.bands))
    p = plane(cutout.flux[k], cutout.valid[k])
    total = _aperture(p, cutout.xy_pix, 0.0, _APERTURE_PIX) / p.sigma
    return float(np.log10(total)) if total > 0 else float("nan")


def noise_features(p: Plane) -> dict[str, float]:
    """Correlation of the sky's pixels at several lags (x_y), its skewness and kurtosis; NaN where there is no sky."""
    names = [*(f"lag_{name}" for name in _LAGS), "skew", "kurtosis"]
    if p.sky.sum() < _MIN_SKY_PIX:
        return dict.fromkeys(names, float("nan"))
    values = p.flux[p.sky]
    deviation = np.where(p.sky, p.flux - values.mean(), 0.0)
    out = [_correlation(deviation, p.sky, dx, dy) for dx, dy in _LAGS.values()]
    clipped = np.clip(values / p.sigma, -6, 6)
    return dict(zip(names, [*out, float(skew(clipped)), float(kurtosis(clipped))], strict=True))


def _correlation(deviation: FloatArray, sky: BoolArray, dx: int, dy: int) -> float:
    rows, columns = deviation.shape
    here, there = (slice(0, rows - dy), slice(0, columns - dx)), (slice(dy, rows), slice(dx, columns))
    both = sky[here] & sky[there]
    if both.sum() < _MIN_SKY_PIX:
        return float("nan")
    a, b = deviation[here][both], deviation[there][both]
    return float((a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean() + 1e-30))


def profile_features(p: Plane, xy_pix: FloatArray) -> dict[str, float]:
    """Mean light in rings over that of the centre, concentration (r80 over r20), asymmetry under half a turn, Gini.

    Concentration and asymmetry follow Conselice (2003), Gini Lotz et al. (2004), within 17 pixels of the object.
    """
    radius = _radius(p, xy_pix)
    out: dict[str, float] = {}
    means = []
    for low, high in pairwise(_RINGS_PIX):
        ring = (radius >= low) & (radius < high) & p.valid
        means.append(float(p.flux[ring].mean()) if ring.any() else float("nan"))
    centre = means[0] if means[0] > 0 else float("nan")
    out |= {f"ring_{k}": float(np.arcsinh(10 * m / centre)) for k, m in enumerate(means[1:], start=1)}
    out["centre_over_noise"] = float(np.log10(centre / p.sigma))
    inside = (radius < _RINGS_PIX[-2]) & p.valid
    order = np.argsort(radius[inside])
    growth = np.cumsum(p.flux[inside][order])
    if not len(growth) or growth[-1] <= 0:
        return out | dict.fromkeys(("concentration", "asymmetry", "gini"), float("nan"))
    r20, r80 = (radius[inside][order][np.searchsorted(np.maximum.accumulate(growth) / growth.max(), s)]
                for s in (0.2, 0.8))  # fmt: skip
    light = np.sort(np.abs(p.flux[inside]))
    n = len(light)
    gini = float(((2 * np.arange(1, n + 1) - n - 1) * light).sum() / (light.mean() * n * max(n - 1, 1)))
    return out | {
        "concentration": float(5 * np.log10(max(r80, 0.5) / max(r20, 0.5))),
        "asymmetry": _asymmetry(p, xy_pix),
        "gini": gini,
    }


def _asymmetry(p: Plane, xy_pix: FloatArray) -> float:
    reach = int(min(_RINGS_PIX[-3], *xy_pix, p.flux.shape[1] - 1 - xy_pix[0], p.flux.shape[0] - 1 - xy_pix[1]))
    if reach < 3:
        return float("nan")
    x, y = np.round(xy_pix).astype(int)
    box = p.flux[y - reach : y + reach + 1, x - reach : x + reach + 1]
    total = np.abs(box).sum()
    noise = 1.128 * p.sigma * box.size  # mean |difference| of two Gaussian pixels
    return float((np.abs(box - box[::-1, ::-1]).sum() - noise) / total) if total > 0 else float("nan")


def neighbour_features(p: Plane, xy_pix: FloatArray) -> dict[str, float]:
    """Number of neighbours, distance of the nearest, their share of the light, their shape, and overlong objects."""
    found = sep.extract(p.flux, _NEIGHBOUR_SIGMA, err=p.sigma, mask=~p.valid, minarea=5)
    distance = np.hypot(found["x"] - xy_pix[0], found["y"] - xy_pix[1])
    others = distance > _APERTURE_PIX
    flux, own = found["flux"], max(_aperture(p, xy_pix, 0.0, _APERTURE_PIX), p.sigma)
    diagonal = float(np.hypot(*p.flux.shape))
    per_area = 1e4 / max(int(p.valid.sum()), 1)
    return {
        "number_per_1e4_pix": float(others.sum() * per_area),
        "nearest_pix": float(distance[others].min(initial=diagonal)),
        "light_over_own": float(np.log10(1e-2 + np.clip(flux[others], 0, None).sum() / own)),
        "elongation": float(np.median(found["a"][others] / np.maximum(found["b"][others], 0.3)))
        if others.any()
        else float("nan"),
        "size_pix": float(np.median(np.sqrt(found["npix"][others]))) if others.any() else float("nan"),
        "own_elongation": float((found["a"] / np.maximum(found["b"], 0.3))[~others].max(initial=1.0)),
    }


def colour_features(blue: Plane, red: Plane, xy_pix: FloatArray, name: str) -> dict[str, float]:
    """Magnitude difference within 4 pixels, its gradient outwards, and what the two skies have in common."""
    out = {}
    for part, (low, high) in {"core": (0.0, _APERTURE_PIX), "rim": (_APERTURE_PIX, 9.0)}.items():
        a, b = _aperture(blue, xy_pix, low, high), _aperture(red, xy_pix, low, high)
        out[part] = float(-2.5 * np.log10(a / b)) if a > 0 and b > 0 else float("nan")
    sky = blue.sky & red.sky
    common = float(np.corrcoef(blue.flux[sky], red.flux[sky])[0, 1]) if sky.sum() >= _MIN_SKY_PIX else float("nan")
    return {
        f"{name}_core": out["core"],
        f"{name}_gradient": out["rim"] - out["core"],
        f"{name}_noise_ratio": float(np.log10(blue.sigma / red.sigma)),
        f"{name}_sky_correlation": common,
    }


def _radius(p: Plane, xy_pix: FloatArray) -> FloatArray:
    y, x = np.indices(p.flux.shape)
    return np.hypot(x - xy_pix[0], y - xy_pix[1])


def _aperture(p: Plane, xy_pix: FloatArray, low: float, high: float) -> float:
    radius = _radius(p, xy_pix)
    return float(p.flux[(radius >= low) & (radius < high) & p.valid].sum())
