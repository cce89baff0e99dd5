"""What a cutout looks like in numbers: noise, profile, shape, colours and neighbours, for comparing simulated and real.

Every feature is free of the flux unit: fluxes are relative to the object's own or to the sky's noise. `form` holds what
depends on how a file was written rather than on the sky; classifiers are not shown it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import sep
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.stats import kurtosis, skew

from sim.likeness.noise_power import MAX_LAG_PIX, MIN_SKY_PIX, autocorrelation, power_bands
from stages.records import BoolArray, Cutout, FloatArray

FAMILIES = ("noise", "profile", "shape", "colour", "neighbours")  # what the names of features begin with
_DETECT_SIGMA = 1.5  # above the local noise in `sep.extract`, for masking objects
_NEIGHBOUR_SIGMA = 4.0
_APERTURE_PIX, _APERTURE_ARCSEC = 4.0, 0.8  # the larger of the two
_N_RINGS = 8
_FIRST_RING_PIX = 1.5
_LAGS = {"1_0": (1, 0), "0_1": (0, 1), "1_1": (1, 1), "2_0": (2, 0), "0_2": (0, 2), "4_0": (4, 0), "0_4": (0, 4)}


@dataclass(frozen=True, eq=False)
class Plane:
    """One band without its sky level: pixels (H, W), where they are valid, which are sky, and the sky's rms."""

    flux: FloatArray
    valid: BoolArray
    sky: BoolArray
    sigma: float


def features(cutout: Cutout) -> dict[str, float]:
    """Features by name, family first and band last; NaN where the cutout does not allow one."""
    planes = {band: plane(cutout.flux[k], cutout.valid[k]) for k, band in enumerate(cutout.bands)}
    out: dict[str, float] = {}
    for band, p in planes.items():
        out |= {f"noise_{name}_{band}": value for name, value in noise_features(p).items()}
        out |= {f"profile_{name}_{band}": value for name, value in profile_features(p, cutout.xy_pix).items()}
        out |= {f"shape_{name}_{band}": value for name, value in shape_features(p, cutout.xy_pix).items()}
    main = planes[main_band(cutout.bands)]
    aperture = aperture_pix(cutout)
    out |= {f"neighbours_{name}": value for name, value in neighbour_features(main, cutout.xy_pix, aperture).items()}
    for blue, red in pairwise(cutout.bands):
        found = colour_features(planes[blue], planes[red], cutout.xy_pix, aperture)
        out |= {f"colour_{name}_{blue}_{red}": value for name, value in found.items()}
    return out


def form(cutout: Cutout) -> dict[str, float]:
    """How a file was written: shares of invalid pixels and of distinct values, shift of the centre (pix)."""
    k = cutout.bands.index(main_band(cutout.bands))
    values = cutout.flux[k][cutout.valid[k]]
    shift = np.hypot(*(centre(cutout) - cutout.xy_pix))
    distinct = len(np.unique(values)) / len(values) if len(values) else float("nan")
    return {"invalid": float(1 - cutout.valid.mean()), "distinct": float(distinct), "off_centre_pix": float(shift)}


def main_band(bands: tuple[str, ...]) -> str:
    """The band in which shapes are measured: the middle one."""
    return bands[len(bands) // 2]


def aperture_pix(cutout: Cutout) -> float:
    """Radius in pixels within which an object's brightness and colour are measured."""
    return max(_APERTURE_PIX, _APERTURE_ARCSEC / cutout.pixel_scale_arcsec)


def plane(flux: FloatArray, valid: BoolArray) -> Plane:
    """Find the objects of a plane (H, W), mask them, and measure sky level and noise from what is left."""
    usable = valid & np.isfinite(flux)
    data = np.ascontiguousarray(np.where(usable, flux, np.nan), dtype=np.float64)
    level = float(np.nanmedian(data)) if usable.any() else 0.0
    sigma, sky = 1e-12, usable
    for _ in range(2):
        sample = data[sky] if sky.sum() >= MIN_SKY_PIX else data[usable]
        level = float(np.median(sample)) if sample.size else level
        sigma = 1.4826 * float(np.median(np.abs(sample - level))) if sample.size else 0.0
        sigma = sigma if sigma > 0 else float(sample.std()) + 1e-12 if sample.size else 1e-12
        _, found = sep.extract(
            np.where(usable, data - level, 0.0), _DETECT_SIGMA, err=sigma, mask=~usable, segmentation_map=True
        )
        sky = usable & ~binary_dilation(found > 0, iterations=2)
    return Plane(np.where(usable, data - level, 0.0), usable, sky, sigma)


def brightness(cutout: Cutout) -> float:
    """log10 of the flux in the aperture over the sky's rms in the middle band; NaN if not positive."""
    k = cutout.bands.index(main_band(cutout.bands))
    p = plane(cutout.flux[k], cutout.valid[k])
    total = _aperture(p, cutout.xy_pix, 0.0, aperture_pix(cutout)) / p.sigma
    return float(np.log10(total)) if total > 0 else float("nan")


def centre(cutout: Cutout) -> FloatArray:
    """Where the object's light is centred (x, y), in pixels: windowed centroid of the middle band near `xy_pix`."""
    k = cutout.bands.index(main_band(cutout.bands))
    p = plane(cutout.flux[k], cutout.valid[k])
    smooth = gaussian_filter(p.flux, 1.0)
    near = (_radius(p, cutout.xy_pix) <= aperture_pix(cutout)) & p.valid
    if not near.any() or smooth[near].max() < 3 * p.sigma / (2 * np.sqrt(np.pi)):
        return cutout.xy_pix
    y, x = np.unravel_index(int(np.argmax(np.where(near, smooth, -np.inf))), smooth.shape)
    xw, yw, flag = sep.winpos(p.flux, [float(x)], [float(y)], 1.5, mask=~p.valid)
    refined = np.array([xw[0], yw[0]])
    peak = np.array([float(x), float(y)])
    return refined if flag[0] == 0 and np.hypot(*(refined - peak)) < 1.5 else peak


def noise_features(p: Plane) -> dict[str, float]:
    """Correlation of sky pixels at lags x_y, their power spectrum in octaves, unevenness, and the values' distribution.

    `power_k` is the log10 share of the sky's variance per unit of spatial frequency in band k, from slow to fast, 0 for
    white noise; `power_xy` compares the fast waves along x with those along y.
    """
    names = [*(f"lag_{lag}" for lag in _LAGS), "power_0", "power_1", "power_2", "power_3", "power_xy"]
    names += ["skew", "kurtosis", "floor", "uneven"]
    if p.sky.sum() < MIN_SKY_PIX or not np.ptp(p.flux[p.sky]) > 0:
        return dict.fromkeys(names, float("nan"))
    values = p.flux[p.sky] / p.sigma
    known = autocorrelation(p.flux / p.sigma, p.sky)
    lags = [float(known[MAX_LAG_PIX + dy, MAX_LAG_PIX + dx]) for dx, dy in _LAGS.values()]
    clipped = np.clip(values, -6, 6)
    floor = float((values <= values.min() + 1e-6).mean())  # above 1 / n where a format cuts the negative pixels off
    out = [*lags, *power_bands(known), float(skew(clipped)), float(kurtosis(clipped)), floor, _unevenness(p)]
    return dict(zip(names, out, strict=True))


def _unevenness(p: Plane) -> float:
    """Scatter of the sky's level between the four quarters of a cutout, in units of the noise."""
    rows, columns = (n // 2 for n in p.flux.shape)
    parts = [(slice(None, rows), slice(None, columns)), (slice(None, rows), slice(columns, None)),
             (slice(rows, None), slice(None, columns)), (slice(rows, None), slice(columns, None))]  # fmt: skip
    levels = [p.flux[part][p.sky[part]].mean() for part in parts if p.sky[part].sum() >= MIN_SKY_PIX // 2]
    return float(np.std(levels) / p.sigma) if len(levels) > 1 else float("nan")


def profile_features(p: Plane, xy_pix: FloatArray) -> dict[str, float]:
    """Mean light in rings (edges grow by a constant factor to the cutout's edge) over that of the centre."""
    radius = _radius(p, xy_pix)
    means = []
    for low, high in pairwise((0.0, *np.geomspace(_FIRST_RING_PIX, max(_reach(p, xy_pix), 8.0), _N_RINGS))):
        ring = (radius >= low) & (radius < high) & p.valid
        means.append(float(p.flux[ring].mean()) if ring.any() else float("nan"))
    centre_light = means[0] if means[0] > 0 else float("nan")
    out = {f"ring_{k}": float(np.arcsinh(10 * m / centre_light)) for k, m in enumerate(means[1:], start=1)}
    return out | {"centre_over_noise": float(np.log10(centre_light / p.sigma))}


def shape_features(p: Plane, xy_pix: FloatArray) -> dict[str, float]:
    """Half-light radius, concentration (r80 over r20), asymmetry under half a turn, clumpiness, Gini.

    Concentration, asymmetry and clumpiness follow Conselice (2003), Gini Lotz et al. (2004), in 70% of the cutout.
    """
    names = ("log_r50_pix", "concentration", "asymmetry", "clumpiness", "gini")
    radius, reach = _radius(p, xy_pix), 0.7 * _reach(p, xy_pix)
    inside = (radius < reach) & p.valid
    order = np.argsort(radius[inside], kind="stable")
    growth = np.cumsum(p.flux[inside][order])
    if reach < 3 or not len(growth) or growth.max() <= 0:
        return dict.fromkeys(names, float("nan"))
    share = np.maximum.accumulate(growth) / growth.max()
    r20, r50, r80 = (max(float(radius[inside][order][np.searchsorted(share, s)]), 0.5) for s in (0.2, 0.5, 0.8))
    light = np.sort(np.abs(p.flux[inside]))
    n = len(light)
    gini = float(((2 * np.arange(1, n + 1) - n - 1) * light).sum() / (light.mean() * n * max(n - 1, 1)))
    near = (radius < max(1.5 * r50, 4.0)) & p.valid
    fine = (p.flux - gaussian_filter(p.flux, max(0.3 * r50, 1.0)))[near & (radius > max(0.3 * r50, 1.5))]
    clumps = float(np.clip(fine, 0, None).sum() / np.abs(p.flux[near]).sum())
    values = (np.log10(r50), 5 * np.log10(r80 / r20), _asymmetry(p, xy_pix), clumps, gini)
    return dict(zip(names, map(float, values), strict=True))


def _asymmetry(p: Plane, xy_pix: FloatArray) -> float:
    reach = int(0.5 * _reach(p, xy_pix))
    if reach < 3:
        return float("nan")
    x, y = np.round(xy_pix).astype(int)
    box = p.flux[y - reach : y + reach + 1, x - reach : x + reach + 1]
    total = np.abs(box).sum()
    noise = 1.128 * p.sigma * box.size  # mean |difference| of two Gaussian pixels
    return float((np.abs(box - box[::-1, ::-1]).sum() - noise) / total) if total > 0 else float("nan")


def neighbour_features(p: Plane, xy_pix: FloatArray, aperture: float) -> dict[str, float]:
    """Number of neighbours, distance of the nearest, their share of the light, their shape, and overlong objects."""
    found = sep.extract(p.flux, _NEIGHBOUR_SIGMA, err=p.sigma, mask=~p.valid, minarea=5)
    distance = np.hypot(found["x"] - xy_pix[0], found["y"] - xy_pix[1])
    others = distance > aperture
    flux, own = found["flux"], max(_aperture(p, xy_pix, 0.0, aperture), p.sigma)
    diagonal = float(np.hypot(*p.flux.shape))
    long = found["a"] / np.maximum(found["b"], 0.3)
    some = bool(others.any())
    return {
        "number_per_1e4_pix": float(others.sum() * 1e4 / max(int(p.valid.sum()), 1)),
        "nearest_pix": float(distance[others].min(initial=diagonal)),
        "light_over_own": float(np.log10(1e-2 + np.clip(flux[others], 0, None).sum() / own)),
        "brightest_over_own": float(np.log10(1e-2 + flux[others].max(initial=0.0) / own)),
        "elongation": float(np.median(long[others])) if some else float("nan"),
        "size_pix": float(np.median(np.sqrt(found["npix"][others]))) if some else float("nan"),
        "own_elongation": float(long[~others].max(initial=1.0)),
    }


def neighbours_mask(cutout: Cutout, beyond_pix: float) -> BoolArray:
    """Pixels (H, W) of the middle band's objects whose centres lie further than that from the object's, grown by 3."""
    k = cutout.bands.index(main_band(cutout.bands))
    p = plane(cutout.flux[k], cutout.valid[k])
    found, where = sep.extract(
        p.flux, _NEIGHBOUR_SIGMA, err=p.sigma, mask=~p.valid, minarea=5, deblend_cont=1e-3, segmentation_map=True
    )
    distance = np.hypot(found["x"] - cutout.xy_pix[0], found["y"] - cutout.xy_pix[1])
    chosen = np.isin(where, 1 + np.flatnonzero(distance > beyond_pix))
    return np.asarray(binary_dilation(chosen, iterations=3))


def colour_features(blue: Plane, red: Plane, xy_pix: FloatArray, aperture: float) -> dict[str, float]:
    """Magnitude difference in the aperture, its gradient outwards, the sky's, and what the two skies have in common."""
    out = {}
    for part, (low, high) in {"core": (0.0, aperture), "rim": (aperture, 2.25 * aperture)}.items():
        a, b = _aperture(blue, xy_pix, low, high), _aperture(red, xy_pix, low, high)
        out[part] = float(-2.5 * np.log10(a / b)) if a > 0 and b > 0 else float("nan")
    sky = blue.sky & red.sky
    noisy = sky.sum() >= MIN_SKY_PIX and min(np.ptp(blue.flux[sky]), np.ptp(red.flux[sky])) > 0
    common = float(np.corrcoef(blue.flux[sky], red.flux[sky])[0, 1]) if noisy else float("nan")
    others = blue.valid & red.valid & ~sky & (_radius(red, xy_pix) > 2 * aperture)
    a, b = float(blue.flux[others].sum()), float(red.flux[others].sum())
    return {
        "core": out["core"],
        "gradient": out["rim"] - out["core"],
        "neighbours": float(-2.5 * np.log10(a / b)) if a > 0 and b > 0 else float("nan"),
        "noise_ratio": float(np.log10(blue.sigma / red.sigma)),
        "sky_correlation": common,
    }


def _radius(p: Plane, xy_pix: FloatArray) -> FloatArray:
    y, x = np.indices(p.flux.shape)
    return np.asarray(np.hypot(x - xy_pix[0], y - xy_pix[1]))


def _reach(p: Plane, xy_pix: FloatArray) -> float:
    """Distance in pixels from the object to the nearest edge."""
    return float(min(*xy_pix, p.flux.shape[1] - 1 - xy_pix[0], p.flux.shape[0] - 1 - xy_pix[1]))


def _aperture(p: Plane, xy_pix: FloatArray, low: float, high: float) -> float:
    radius = _radius(p, xy_pix)
    return float(p.flux[(radius >= low) & (radius < high) & p.valid].sum())
