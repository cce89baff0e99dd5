"""Sets of points to judge: images of lenses whose shapes are unlike the fitter's priors, and chance look-alikes.

So are the colours: the fitter takes those of images to agree to 0.15 mag and those of chance points for independent
Gaussians of 0.5 mag; here images agree to 0.05 mag, and chance points lie on a sequence, the first colour uniform over
1.7 mag (0.49 rms), the second 0.6 of it with a scatter of 0.4 mag (0.50 rms in all). Every flux has the place's noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from stages.counter.images import Images, all_images
from stages.counter.lens_model import LensModel


@dataclass(frozen=True)
class Place:
    """An instrument: FWHM, error of the deflector's place and of the images', arcsec; error of fluxes, mag."""

    fwhm: float
    deflector_error: float
    error: float
    flux_error: float


PLACES = {"space": Place(0.1, 0.03, 0.005, 0.03), "ground": Place(0.7, 0.08, 0.03, 0.08)}
IMAGE_COLOUR_SCATTER, STAR_COLOUR_RANGE, STAR_SLOPE, STAR_SCATTER = 0.05, 1.7, 0.6, 0.4  # mag; see above
Points = tuple[np.ndarray, np.ndarray]  # positions (n, 2) about the deflector, arcsec, and fluxes (n,)
FAINTEST = 0.1  # of the brightest image: fainter ones are not detected


MASSES = ("isothermal", "satellite", "slope")


def random_lens(rng: np.random.Generator, mass: str = MASSES[0]) -> LensModel:
    """As wide as the image finder must bear: e to 0.4 per component, shear to 0.15, cores 0.005-0.3 arcsec.

    mass : with a satellite of 0.03 to 0.3 Einstein radii at 0.3 to 1.8, or of a slope between 1.6 and 2.4.
    """
    angle, shear = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.15)
    g1, g2 = shear * np.cos(angle), shear * np.sin(angle)
    theta_e = rng.uniform(0.5, 2)
    core = min(10 ** rng.uniform(-2.3, -0.52), 0.4 * theta_e)
    model = LensModel(theta_e, *rng.uniform(-0.4, 0.4, 2), g1, g2, core_arcsec=core)
    if mass == "slope":
        return replace(model, slope=rng.uniform(1.6, 2.4))
    if mass == "isothermal":
        return model
    angle, radius, own = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.8) * theta_e, rng.uniform(0.03, 0.3) * theta_e
    core = min(10 ** rng.uniform(-2.3, -1), 0.3 * own)
    return replace(model, satellite=(own, radius * np.cos(angle), radius * np.sin(angle), core))


def source_near_caustic(model: LensModel, rng: np.random.Generator) -> np.ndarray:
    """A source within 1e-7 to 0.1 Einstein radii of a caustic, or NaN where the ray meets none."""
    radius, angle = np.geomspace(1e-3, 4 * model.theta_e_arcsec, 400), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    crossings = np.flatnonzero(np.diff(np.sign(model.magnification(radius[:, None] * direction))))
    if not len(crossings):
        return np.full(2, np.nan)
    k = rng.choice(crossings)
    low, high = radius[k], radius[k + 1]
    sign = np.sign(model.magnification(low * direction)[0])
    for _ in range(45):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if np.sign(model.magnification(mid * direction)[0]) == sign else (low, mid)
    return model.ray_shoot(low * direction)[0] + rng.normal(size=2) * 10 ** rng.uniform(-7, -1) * model.theta_e_arcsec


def lensed(rng: np.random.Generator, place: Place, n: int, reach: float) -> tuple[np.ndarray, np.ndarray, Images]:
    """Positions (n, 2) and fluxes (n,) of n bright images, and the lens's images; the source within `reach`."""
    while True:
        e, g = rng.rayleigh(0.16), min(rng.exponential(0.06), 0.2)
        a, b = rng.uniform(0, 2 * np.pi, 2)
        shape = (min(e, 0.5) * np.cos(a), min(e, 0.5) * np.sin(a), g * np.cos(b), g * np.sin(b))
        model = LensModel(rng.uniform(0.6, 1.8), *shape, core_arcsec=0.003)
        images = all_images(model, rng.uniform(-reach, reach, 2) * model.theta_e_arcsec)
        bright = images.kind < 2
        xy = images.xy_arcsec[bright] + rng.normal(0, place.error, (int(bright.sum()), 2))
        if len(xy) == n and closest(xy) > place.fwhm:
            return xy, np.abs(images.magnification[bright]) * 10 ** (0.4 * rng.normal(0, 0.35, n)), images


def quad(rng: np.random.Generator, place: Place) -> Points:
    """Four images at least 1 FWHM apart."""
    return lensed(rng, place, 4, 0.3)[:2]


def triple(rng: np.random.Generator, place: Place) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """A quad whose faintest image is below the limit: positions, fluxes, the limit, and where the fourth is."""
    xy, flux = quad(rng, place)
    k = int(flux.argmin())
    limit = flux[k] * rng.uniform(1, 2)
    return np.delete(xy, k, 0), np.delete(flux, k), min(limit, np.sort(flux)[1]), xy[k]


def double(rng: np.random.Generator, place: Place) -> Points:
    """Two images, the fainter at least a tenth of the brighter."""
    while True:
        xy, flux, _ = lensed(rng, place, 2, 0.8)
        if flux.min() > FAINTEST * flux.max():
            return xy, flux


def in_three_bands(rng: np.random.Generator, place: Place, flux: np.ndarray, one_source: bool) -> np.ndarray:
    """Noisy fluxes (n, 3) of points whose fluxes (n,) in the first band are known."""
    n = len(flux)
    if one_source:
        colours = rng.normal(0, 0.5, 2) + rng.normal(0, IMAGE_COLOUR_SCATTER, (n, 2))
    else:
        first = STAR_COLOUR_RANGE * rng.uniform(-0.5, 0.5, n)
        colours = np.column_stack([first, STAR_SLOPE * first + rng.normal(0, STAR_SCATTER, n)])
    magnitude = np.column_stack([np.zeros(n), colours]) + rng.normal(0, place.flux_error, (n, 3))
    return flux[:, None] * 10 ** (-0.4 * magnitude)


def closest(xy: np.ndarray) -> float:
    """Smallest separation."""
    return float((np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) + 99 * np.eye(len(xy))).min())


def on_ring(rng: np.random.Generator, place: Place, jitter: float, n: int = 4) -> Points:
    """Chance points on a ring about the deflector, radii scattered by `jitter`, fluxes by 0.8 mag."""
    while True:
        radius = rng.uniform(0.6, 1.8) * np.clip(1 + jitter * rng.normal(size=n), 0.2, None)
        angle = rng.uniform(0, 2 * np.pi, n)
        xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        if closest(xy) > place.fwhm:
            return xy, 10 ** (0.4 * rng.normal(0, 0.8, n))


def about_galaxy(rng: np.random.Generator, place: Place, n: int) -> Points:
    """Chance points at independent distances, 0.4 to 2.4 arcsec, uniform in area."""
    while True:
        radius, angle = np.sqrt(rng.uniform(0.4**2, 2.4**2, n)), rng.uniform(0, 2 * np.pi, n)
        xy = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        flux = 10 ** (0.4 * rng.normal(0, 0.8, n))
        if closest(xy) > place.fwhm and flux.min() > FAINTEST * flux.max():
            return xy, flux


def one_replaced(rng: np.random.Generator, place: Place) -> Points:
    """A lensed quad one of whose images is put at a chance place on the ring."""
    while True:
        xy, flux = quad(rng, place)
        angle, radius = rng.uniform(0, 2 * np.pi), np.hypot(*xy.T).mean() * (1 + 0.2 * rng.normal())
        k = rng.integers(4)
        old, xy[k] = xy[k].copy(), (radius * np.cos(angle), radius * np.sin(angle))
        if closest(xy) > place.fwhm and np.hypot(*(old - xy[k])) > max(place.fwhm, 0.2):
            return xy, flux


QUARTETS: dict[str, Callable[[np.random.Generator, Place], Points]] = {
    "lensed quads": quad,
    "ring, jitter 0.1": lambda rng, place: on_ring(rng, place, 0.1),
    "ring, jitter 0.2": lambda rng, place: on_ring(rng, place, 0.2),
    "about a galaxy": lambda rng, place: about_galaxy(rng, place, 4),
    "one of 4 replaced": one_replaced,
}
