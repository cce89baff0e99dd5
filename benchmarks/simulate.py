"""Speed of the simulator beside plain lenstronomy, and that both make the same pixels: python benchmarks/simulate.py.

The same scenes (deflector, satellites, neighbours, stars, one or two sources, PSF of the survey, noise) are made by
`sim` and by lenstronomy's ImageModel, one by one and band by band, from parameters to noisy pixels. lenstronomy samples
each pixel --supersampling times per side and convolves at that resolution. Singular lenses without subhaloes, so that
both have the same model. For the comparison of pixels, without noise, lenstronomy samples --reference times per side.

lenstronomy is timed in one process, ours also in --workers processes at once, as `sim/generate.py` runs them. Rates of
one process are by CPU time, those of several by wall time, and in brackets by CPU time on as many cores: they agree
where nothing else runs on the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.PointSource.point_source import PointSource
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy import fft
from scipy.signal import fftconvolve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim.draw import SimConfig
from sim.generate import load_survey
from sim.instrument.noise import expose, noise
from sim.instrument.psf import draw_seeing, frequencies, transfer
from sim.lensed import lensed_light
from sim.lensing import images
from sim.lensing.lens import Lens, PowerLaw
from sim.observe import Optics, sampling
from sim.population import Deflector, Sersic, Source, deflector, neighbours, source
from sim.populations.photometry import Photometry
from sim.scene import Grid, paint
from sim.sersic import peak_fluxes, profiles
from sim.view import FLOOR
from stages import config as configuration
from stages.records import FloatArray
from stages.survey import SurveyFacts

_STEEP = 2e-3  # change from sample to sample, over the brightest light, that is looked at more finely
_START_S = 600.0  # patience with processes that start
Points = list[tuple[float, float, FloatArray]]


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that is drawn before anything is painted."""

    seed: int
    survey: SurveyFacts
    lens: Deflector
    sources: list[Source]
    galaxies: tuple[Sersic, ...]
    stars: Points

    def light(self) -> list[Sersic]:
        """Every profile that is not lensed, each with one radius in all bands."""
        return [part for c in (*self.galaxies, *self.lens.light) for part in c.parts()]

    def lensed_points(self) -> Points:
        """Images of the source's point, if it has one."""
        first = self.sources[0]
        if not first.point_flux.any():
            return []
        found = images.solve(self.lens.mass, *first.point_xy)
        return [
            (x, y, first.point_flux * abs(m)) for x, y, m in zip(found.x, found.y, found.magnification, strict=True)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surveys", nargs="+", default=["des", "lsst", "euclid_vis"])
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--compared", type=int, default=6, help="scenes whose pixels are compared")
    parser.add_argument("--supersampling", type=int, default=3)
    parser.add_argument("--reference", type=int, default=9)
    parser.add_argument("--doubled", action="store_true", help="also sample the first reference twice as finely")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of the second timing")
    options = parser.parse_args()
    worst = 0.0
    for name in options.surveys:
        survey = replace(load_survey(name), psf_files={}, band_offset_arcsec=0.0)
        scenes = [draw(survey, options.seed + k) for k in range(options.scenes)]
        warm(scenes)
        one = rate(noisy, scenes)
        theirs = rate(lambda s: plain(s, options.supersampling, noisy=True), scenes)
        wall, cpu = pooled_rates(scenes, options.workers)
        if options.doubled:
            print(
                f"{name}: the reference with twice the sampling differs by {doubled(scenes[0], options.reference):.1e}"
            )
        differences = [difference(s, options.reference) for s in scenes[: options.compared]]
        worst = max(worst, *differences)
        print(
            f"{name}: plain lenstronomy {theirs:.1f} scenes/s (one by one, one process); "
            f"ours {one:.1f}, {one / theirs:.1f} times: one core; {wall:.1f} [{cpu:.1f}], "
            f"{wall / theirs:.1f} [{cpu / theirs:.1f}] times: {options.workers} cores; "
            f"largest difference {max(differences):.1e} of the peak, median {np.median(differences):.1e} "
            f"({len(survey.bands)} bands, {options.scenes} scenes, {len(differences)} compared)"
        )
    print(f"largest difference of all: {worst:.1e} of the peak ({'within' if worst < 1e-3 else 'ABOVE'} 1e-3)")
    return int(worst >= 1e-3)


def draw(survey: SurveyFacts, seed: int) -> Scene:
    """One scene with a singular lens; every other source has a point."""
    rng = np.random.default_rng(seed)
    prior = configuration.load(SimConfig, configuration.CONFIG_DIR / "sim.yaml").prior(survey.name)
    photometry = Photometry.of(survey)
    lens = deflector(rng, photometry, prior)
    parts = tuple(replace(p, core=0.0) for p in lens.mass.parts if isinstance(p, PowerLaw))
    lens = replace(lens, mass=Lens(parts, lens.mass.gamma1, lens.mass.gamma2))
    kind = "quasar" if seed % 2 else "galaxy"
    grid = sampling(survey).grid
    galaxies, stars = neighbours(rng, photometry, prior, grid.size * grid.step, survey.density_per_arcmin2)
    return Scene(seed, survey, lens, [source(rng, photometry, prior, lens, kind)], galaxies, stars)


def ours(scene: Scene, noisy: bool) -> FloatArray:
    rng = np.random.default_rng(scene.seed)
    optics = Optics.draw(rng, scene.survey)
    grid = optics.sampling.grid
    canvas = np.zeros((len(scene.survey.bands), grid.size, grid.size), np.float32)
    sky = np.array([scene.survey.sky_sigma[b] for b in scene.survey.bands])
    paint(canvas, grid, scene.light(), FLOOR * sky / optics.sampling.oversample**2)
    for one in scene.sources:
        canvas += lensed_light(grid, scene.lens.mass, one)
    pixels = optics.see(canvas, [*scene.stars, *scene.lensed_points()])
    return exposed(rng, scene.survey, pixels) if noisy else pixels


def exposed(rng: np.random.Generator, survey: SurveyFacts, pixels: FloatArray) -> FloatArray:
    """Noise is the same code for both."""
    unit, sky = noise(rng, survey, pixels.shape[-1], 1.0)
    return expose(pixels, unit, sky, np.array([survey.gain[b] for b in survey.bands]))[0]


def plain(scene: Scene, supersampling: int, noisy: bool) -> FloatArray:
    frame = sampling(scene.survey)
    n, pixel = frame.size_pix, frame.pixel_arcsec
    kernels = psf_kernels(scene, supersampling)
    parts = [p for p in scene.lens.mass.parts if isinstance(p, PowerLaw)]
    lens_model = LensModel(["EPL"] * len(parts) + ["SHEAR"])
    kwargs_lens = [_epl(p) for p in parts] + [{"gamma1": scene.lens.mass.gamma1, "gamma2": scene.lens.mass.gamma2}]
    lit, src = scene.light(), [c for s in scene.sources for c in s.light]
    points = [*scene.stars, *scene.lensed_points()]
    margin = frame.margin_pix
    wide = n + 2 * margin
    start = -(wide - 1) / 2 * pixel
    grid = PixelGrid(wide, wide, np.eye(2) * pixel, start, start)
    out = []
    for band in range(len(scene.survey.bands)):
        model = ImageModel(
            grid,
            PSF("PIXEL", kernel_point_source=kernels[band], point_source_supersampling_factor=supersampling),
            lens_model,
            LightModel(["SERSIC_ELLIPSE"] * len(src)),
            LightModel(["SERSIC_ELLIPSE"] * len(lit)),
            PointSource(["UNLENSED"]) if points else None,
            kwargs_numerics={"supersampling_factor": supersampling, "supersampling_convolution": True,
                             "point_source_supersampling_factor": supersampling},
        )  # fmt: skip
        kwargs_ps = [
            {"ra_image": np.array([p[0] for p in points]), "dec_image": np.array([p[1] for p in points]),
             "point_amp": np.array([p[2][band] for p in points])}
        ] if points else None  # fmt: skip
        image = model.image(kwargs_lens, _sersics(src, band), _sersics(lit, band), kwargs_ps)
        out.append(image[margin : margin + n, margin : margin + n])
    pixels = np.array(out)
    return exposed(np.random.default_rng(scene.seed), scene.survey, pixels) if noisy else pixels


def transfers(scene: Scene, supersampling: int) -> tuple[Grid, FloatArray]:
    """The scene's transfer functions (B, n, n // 2 + 1) on a grid with `supersampling` samples per pixel.

    A diffraction PSF is drawn on the simulator's own grid, to its cut-off, and has nothing beyond: every grid gets the
    same PSF. Those of the ground are formulae, evaluated on each grid.
    """
    frame = sampling(scene.survey)
    fine = Grid(frame.grid.size // frame.oversample * supersampling, frame.pixel_arcsec / supersampling)
    rng = np.random.default_rng(scene.seed)
    fwhm, (x, y) = draw_seeing(rng, scene.survey), frame.pixel_arcsec * rng.uniform(-0.5, 0.5, 2)
    kx, ky, _ = frequencies(fine.size, fine.step)
    if scene.survey.kind == "space":
        own = transfer(scene.survey, fwhm, frame.grid, rng)
        otf = np.zeros((len(own), fine.size, fine.size // 2 + 1), own.dtype)
        m = min(fine.size, frame.grid.size) // 2
        otf[:, :m, :m], otf[:, 1 - m :, :m] = own[:, :m, :m], own[:, 1 - m :, :m]
    else:
        otf = transfer(scene.survey, fwhm, fine, rng)
    return fine, otf * np.exp(-2j * np.pi * (kx * x + ky * y))


def psf_kernels(scene: Scene, supersampling: int) -> list[FloatArray]:
    """The scene's PSFs as kernels with `supersampling` samples per pixel, odd in size."""
    fine, otf = transfers(scene, supersampling)
    kernels = fft.fftshift(fft.irfft2(otf, s=(fine.size, fine.size)), axes=(-2, -1))
    middle, half = fine.size // 2, (fine.size - 2) // 2
    cut = [k[middle - half : middle + half + 1, middle - half : middle + half + 1] for k in kernels]
    return [np.asarray(k / k.sum(), float) for k in cut]


def _epl(part: PowerLaw) -> dict[str, float]:
    e1, e2 = phi_q2_ellipticity(part.pa, part.q)
    return {"theta_E": part.theta_e, "gamma": part.slope, "e1": e1, "e2": e2, "center_x": part.x, "center_y": part.y}


def _sersics(components: list[Sersic], band: int) -> list[dict[str, Any]]:
    """lenstronomy's arguments of the same profiles: its b_n is linear in n, hence another R_sersic and amplitude."""
    rows = profiles(components)
    amplitude = peak_fluxes(components, rows)[:, band]
    out = []
    for c, b, amp in zip(components, rows[:, 7], amplitude, strict=True):
        theirs = 1.9992 * c.index - 0.3271
        e1, e2 = phi_q2_ellipticity(c.pa, c.q)
        out.append(
            {"amp": amp * np.exp(b - theirs), "R_sersic": c.radius * (theirs / b) ** c.index, "n_sersic": c.index,
             "e1": e1, "e2": e2, "center_x": c.x, "center_y": c.y}
        )  # fmt: skip
    return out


def converged(scene: Scene, supersampling: int) -> FloatArray:
    """Noiseless pixels from lenstronomy's own light and ray shooting, sampled until nothing changes.

    On a grid alone its midpoint samples miss the cusps of steep profiles by 1% of the peak even at 27 a side: cells in
    which the light changes steeply are sampled 15 x 15 times more, the curvature from cell to cell makes means of the
    others, then all is convolved with the PSF on the fine grid. --doubled shows what twice the sampling changes.
    """
    frame = sampling(scene.survey)
    wide, k, pixel = frame.size_pix + 2 * frame.margin_pix, supersampling, frame.pixel_arcsec
    step = pixel / k
    axis = (np.arange(wide * k) - (wide * k - 1) / 2) * step
    x, y = np.meshgrid(axis, axis)
    inner = ((np.arange(15) - 7) / 15) * step
    inner_x, inner_y = (v.ravel() for v in np.meshgrid(inner, inner))
    points = seen_points(scene, k)
    out = []
    for band, kernel in enumerate(psf_kernels(scene, k)):
        light = surface_brightness(scene, band, x.ravel(), y.ravel()).reshape(x.shape)
        change = np.hypot(*np.gradient(light))
        steep = np.nonzero(change > _STEEP * np.percentile(light, 99.9))
        fine_x = (x[steep][:, None] + inner_x).ravel()
        fine_y = (y[steep][:, None] + inner_y).ravel()
        light[1:-1, 1:-1] += (
            (  # a mean over the cell, whose width is what a sum of midpoints in a pixel lacks
                light[2:, 1:-1] + light[:-2, 1:-1] + light[1:-1, 2:] + light[1:-1, :-2] - 4 * light[1:-1, 1:-1]
            )
            / 24
        )
        light[steep] = surface_brightness(scene, band, fine_x, fine_y).reshape(-1, 225).mean(axis=1)
        seen = fftconvolve(light * step**2, kernel, mode="same") + points[band]
        seen = seen.reshape(wide, k, wide, k).sum(axis=(1, 3))
        out.append(seen[frame.margin_pix : -frame.margin_pix, frame.margin_pix : -frame.margin_pix])
    return np.array(out)


def surface_brightness(scene: Scene, band: int, x: FloatArray, y: FloatArray) -> FloatArray:
    """lenstronomy's light of a scene per square arcsec, points left out."""
    parts = [p for p in scene.lens.mass.parts if isinstance(p, PowerLaw)]
    lens_model = LensModel(["EPL"] * len(parts) + ["SHEAR"])
    shear = {"gamma1": scene.lens.mass.gamma1, "gamma2": scene.lens.mass.gamma2}
    lit, src = scene.light(), [c for s in scene.sources for c in s.light]
    beta = lens_model.ray_shooting(x, y, [*map(_epl, parts), shear])
    plain_light = LightModel(["SERSIC_ELLIPSE"] * len(lit)).surface_brightness(x, y, _sersics(lit, band))
    lensed = LightModel(["SERSIC_ELLIPSE"] * len(src)).surface_brightness(*beta, _sersics(src, band))
    return np.asarray(plain_light + lensed)


def seen_points(scene: Scene, supersampling: int) -> FloatArray:
    """The scene's points through its PSFs, (B, n, n) on the fine grid."""
    fine, otf = transfers(scene, supersampling)
    kx, ky, _ = frequencies(fine.size, fine.step)
    spectrum = np.zeros_like(otf)
    square = np.sinc(kx * fine.step) * np.sinc(ky * fine.step)  # of the samples: their sum is the integral over a pixel
    middle = (fine.size - 1) / 2 * fine.step
    for x, y, flux in [*scene.stars, *scene.lensed_points()]:
        spectrum += flux[:, None, None] * np.exp(-2j * np.pi * (kx * (x + middle) + ky * (y + middle)))
    return np.asarray(fft.irfft2(spectrum * square * otf, s=(fine.size, fine.size)))


def difference(scene: Scene, reference: int) -> float:
    """Largest difference of the noiseless pixels over the peak, any band."""
    mine, theirs = ours(scene, noisy=False), converged(scene, reference)
    peak = theirs.max(axis=(1, 2))
    return float((np.abs(mine - theirs).max(axis=(1, 2)) / peak).max())


def doubled(scene: Scene, reference: int) -> float:
    """Largest change of the reference, over its peak, when it is sampled twice as finely."""
    once, twice = converged(scene, reference), converged(scene, 2 * reference)
    return float((np.abs(once - twice).max(axis=(1, 2)) / twice.max(axis=(1, 2))).max())


def noisy(scene: Scene) -> float:
    """CPU seconds of ours, from parameters to noisy pixels; these stay where they are made."""
    start = time.process_time()
    ours(scene, noisy=True)
    return time.process_time() - start


def warm(scenes: list[Scene]) -> None:
    """Compile, fill tables, and draw the PSFs: a run of thousands draws each PSF of space once."""
    for scene in scenes[:4]:
        noisy(scene)
    for scene in scenes:
        Optics.draw(np.random.default_rng(scene.seed), scene.survey)


def rate(make: Callable[[Scene], object], scenes: list[Scene]) -> float:
    """Scenes a second of CPU time in this process."""
    start = time.process_time()
    for scene in scenes:
        make(scene)
    return len(scenes) / (time.process_time() - start)


def pooled_rates(scenes: list[Scene], workers: int) -> tuple[float, float]:
    """Scenes a second by wall time, and by CPU time, of a pool whose processes are up and warm."""
    context = get_context("spawn")
    ready = context.Barrier(workers + 1)
    with ProcessPoolExecutor(workers, context, _start, (scenes, ready)) as pool:
        for _ in range(workers):  # each starts one
            pool.submit(os.getpid)
        ready.wait(_START_S)
        start = time.perf_counter()
        spent = sum(pool.map(noisy, scenes))
        return len(scenes) / (time.perf_counter() - start), workers * len(scenes) / spent


def _start(scenes: list[Scene], ready: Any) -> None:
    warm(scenes)
    ready.wait(_START_S)


if __name__ == "__main__":
    sys.exit(main())
