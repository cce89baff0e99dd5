"""What is painted on real galaxies: a mass that the galaxy may have, and unlensed light that may be taken for arcs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.impostor_kinds.discs import bulgeless_spiral
from sim.impostor_kinds.stage import Stage
from sim.lensing.cosmology import einstein_radius_arcsec
from sim.lensing.images import solve
from sim.lensing.lens import Lens, PowerLaw
from sim.population import Deflector, Population, Sersic, source
from sim.populations.deflectors import source_redshift
from sim.populations.photometry import Photometry
from sim.real_sky.deflector_mass import Mass
from sim.scene import Grid, paint
from stages.records import FloatArray

_SPIRAL_FRACTION = 0.3  # of painted negatives: arms over the real core
_STRETCHED_FRACTION = 0.35  # of companions: seen edge-on, across the line to the galaxy, as arcs are
_MAX_GAIN = 12.0
_TRIES, _SPIRAL_TRIES = 30, 4
_SPREAD = 3.0  # a spiral's light lies on about nine times the PSF's area


def painted_deflector(
    rng: np.random.Generator, photometry: Photometry, mass: Mass, q: float, pa: float, prior: Population
) -> Deflector:
    """A deflector that a real galaxy may be, by its lensing cross-section; its light is in the pixels already.

    q, pa : of the light. Everything that light does not tell follows the priors of simulated deflectors.
    """
    z, dispersion = mass.draw(rng, power=4.0)
    z_source = source_redshift(rng, photometry, prior, z)
    kind = "group" if rng.random() < prior.group_fraction else "early"
    halo = rng.uniform(*prior.group_halo) if kind == "group" else 1.0
    theta_e = float(np.clip(halo * einstein_radius_arcsec(dispersion, z, z_source), 0.1, 1.5 * prior.theta_e_arcsec[1]))
    freedom = min(0.3 / max(1 - q, 0.1), 3.0)  # round galaxies' masses turn freely
    main = PowerLaw(
        theta_e,
        float(np.clip(rng.normal(prior.slope_mean, prior.slope_sigma), 1.6, 2.5)),
        float(np.clip(q + prior.axis_ratio_sigma * rng.normal(), 0.4, 0.99)),
        pa + float(np.radians(prior.misalignment_deg) * rng.normal() * freedom),
        core=min(float(prior.core_arcsec * np.exp(prior.core_sigma_ln * rng.normal())), 0.2 * theta_e),
    )
    shear, foreground = _shear(rng, prior.shear_sigma), _shear(rng, prior.foreground_shear_sigma)
    return Deflector(Lens((main,), *shear, *foreground), (), z, z_source, dispersion, kind)


def _shear(rng: np.random.Generator, sigma: float) -> tuple[float, float]:
    """Components of a shear whose size follows a Rayleigh law."""
    size, angle = min(float(rng.rayleigh(sigma)), 0.25), float(rng.uniform(0, 2 * np.pi))
    return size * float(np.cos(angle)), size * float(np.sin(angle))


def unlensed_light(
    rng: np.random.Generator, grid: Grid, photometry: Photometry, lens: Deflector, prior: Population, least: FloatArray
) -> FloatArray:
    """Light on the fine grid (B, n, n): blue galaxies where images would be, or a spiral's arms round the real core.

    Brightness, colours, sizes and distances are those of the images that `lens` would make; drawn anew until the flux
    in some band is `least` (B,), as `Selection` does with lenses, else the brightest of many.
    """
    empty = np.zeros((len(photometry.bands), grid.size, grid.size), np.float32)
    if rng.random() < _SPIRAL_FRACTION:
        canvas = empty
        for _ in range(_SPIRAL_TRIES):
            canvas = empty.copy()
            bulgeless_spiral(Stage(rng, canvas, grid, photometry, prior))
            if (canvas.sum(axis=(1, 2)) > _SPREAD * least).any():
                break
        return canvas
    best, parts = -1.0, tuple[Sersic, ...]()
    for _ in range(_TRIES):
        number = int(rng.choice([1, 1, 1, 2, 2, 3, 4]))
        drawn = tuple(part for _ in range(number) for part in _companion(rng, photometry, lens, prior))
        seen = float((sum((part.flux for part in drawn), np.zeros_like(least)) / least).max())
        if seen > best:
            best, parts = seen, drawn
        if best > 1:
            break
    paint(empty, grid, parts)
    return empty


def _companion(
    rng: np.random.Generator, photometry: Photometry, lens: Deflector, prior: Population
) -> tuple[Sersic, ...]:
    """An unlensed galaxy with the flux, area and distance from the centre of one image of a source."""
    drawn = source(rng, photometry, prior, lens, "galaxy")
    images = solve(lens.mass, drawn.x, drawn.y)
    k = int(rng.integers(max(len(images.x) - 1, 1)))  # the last to arrive is the faint centre
    gain = float(np.clip(abs(images.magnification[k]), 1.0, _MAX_GAIN))
    distance, angle = float(np.hypot(images.x[k], images.y[k])), float(rng.uniform(0, 2 * np.pi))
    x, y, larger = distance * np.cos(angle), distance * np.sin(angle), np.sqrt(gain)
    if rng.random() < _STRETCHED_FRACTION:
        main = max(drawn.light, key=lambda part: float(part.flux.sum()))
        flux = sum((part.flux for part in drawn.light), np.zeros_like(main.flux))
        q = float(rng.uniform(0.12, 0.35))
        return (Sersic(x, y, main.radius * larger, 1.0, q, angle + np.pi / 2, flux * gain),)
    return tuple(
        replace(
            part,
            x=x + larger * (part.x - drawn.x),
            y=y + larger * (part.y - drawn.y),
            radius=part.radius * larger,
            flux=part.flux * gain,
        )
        for part in drawn.light
    )
