"""What is painted on real galaxies: a mass that the galaxy may have, and unlensed light that may be taken for arcs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cosmology import einstein_radius_arcsec
from sim.deflector_mass import ANGLE_RMS_DEG, AXIS_RATIO_RMS, Mass
from sim.discs import bulgeless_spiral
from sim.images import solve
from sim.lens import Lens, PowerLaw
from sim.photometry import Photometry
from sim.population import Deflector, Population, Sersic, Source, source
from sim.scene import Grid, paint
from sim.stage import Stage
from stages.records import FloatArray

_CORE_ARCSEC = 0.02
_SLOPE, _SLOPE_RMS = 2.08, 0.16  # Auger et al. (2010)
_MIN_THETA_E_ARCSEC = 0.2
_SPIRAL_FRACTION = 0.3  # of painted negatives: arms over the real core
_STRETCHED_FRACTION = 0.35  # of companions: seen edge-on, across the line to the galaxy, as arcs are
_MAX_GAIN = 12.0


def painted_deflector(rng: np.random.Generator, mass: Mass, q: float, pa: float, prior: Population) -> Deflector:
    """A deflector drawn from what the light of a real galaxy says; its own light is in the pixels and not repeated."""
    for _ in range(100):
        z, dispersion = mass.draw(rng)
        z_source = float(rng.uniform(*prior.z_source))
        theta_e = float(einstein_radius_arcsec(dispersion, z, z_source))
        if theta_e > _MIN_THETA_E_ARCSEC:
            break
    shear, angle = min(float(rng.rayleigh(prior.shear_sigma)), 0.25), float(rng.uniform(0, np.pi))
    main = PowerLaw(
        max(theta_e, _MIN_THETA_E_ARCSEC),
        float(np.clip(rng.normal(_SLOPE, _SLOPE_RMS), 1.6, 2.5)),
        float(np.clip(q + AXIS_RATIO_RMS * rng.normal(), 0.4, 0.98)),
        pa + np.radians(ANGLE_RMS_DEG) * float(rng.normal()),
        core=_CORE_ARCSEC,
    )
    lens = Lens((main,), shear * float(np.cos(2 * angle)), shear * float(np.sin(2 * angle)))
    return Deflector(lens, (), z, z_source, dispersion, "early")


def unlensed_light(
    rng: np.random.Generator, grid: Grid, photometry: Photometry, lens: Deflector, prior: Population
) -> FloatArray:
    """Light on the fine grid (B, n, n): blue galaxies where images would be, or a spiral's arms round the real core.

    Brightness, colours, sizes and distances are those of the images that `lens` would make.
    """
    canvas = np.zeros((len(photometry.bands), grid.size, grid.size), np.float32)
    if rng.random() < _SPIRAL_FRACTION:
        bulgeless_spiral(Stage(rng, canvas, grid, photometry, prior))
        return canvas
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3, 4]))):
        drawn = source(rng, photometry, prior, lens, "galaxy")
        images = solve(lens.mass, drawn.x, drawn.y)
        k = int(rng.integers(max(len(images.x) - 1, 1)))  # the last to arrive is the faint centre
        gain = float(np.clip(abs(images.magnification[k]), 1.0, _MAX_GAIN))
        distance, angle = float(np.hypot(images.x[k], images.y[k])), float(rng.uniform(0, 2 * np.pi))
        paint(canvas, grid, _companion(rng, drawn, gain, distance, angle))
    return canvas


def _companion(
    rng: np.random.Generator, drawn: Source, gain: float, distance: float, angle: float
) -> tuple[Sersic, ...]:
    """A source as an unlensed galaxy of `gain` times its flux and area, at a distance and angle from the galaxy."""
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
