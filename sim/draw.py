"""Draw one pair of labelled cutouts: a lens with its unlensed twin, or two impostors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim import truth
from sim.impostors import KINDS, Stage
from sim.observe import Sampling, blur, defects, draw_seeing, expose, noise, sampling, transfer
from sim.population import Deflector, Photometry, Population, Source, deflector, neighbours, source
from sim.scene import images, lensed_light, paint
from stages.bands import wavelength_nm
from stages.records import BoolArray, Cutout, FloatArray
from stages.stretch import from_composite, to_composite
from stages.survey import SurveyFacts

_TRIES = 25
Points = list[tuple[float, float, FloatArray]]


@dataclass(frozen=True)
class Selection:
    """Which drawn lenses are kept: what nobody can see teaches noise."""

    min_arc_snr: float = 12.0
    min_arc_contrast: float = 0.03
    min_theta_e_seeing: float = 0.7
    min_point_snr: float = 8.0
    min_points: int = 2


@dataclass(frozen=True)
class SimConfig:
    """What `sim/generate.py` draws; see `configs/sim.yaml`.

    lens_pair_fraction : share of pairs that are a lens and its twin; the others are two impostors.
    quasar_fraction : share of lenses whose source has a point (quasar or supernova).
    impostors : relative frequency of each kind.
    composite_fraction : share of a survey's cutouts that pass through its 8-bit colour composite and back.
    populations : priors by survey; a survey not named takes "default".
    """

    lens_pair_fraction: float = 0.55
    quasar_fraction: float = 0.25
    shard_size: int = 256
    centring_arcsec: float = 0.25
    selection: Selection = field(default_factory=Selection)
    impostors: dict[str, float] = field(default_factory=dict)
    composite_fraction: dict[str, float] = field(default_factory=dict)
    populations: dict[str, Population] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.impostors) - set(KINDS))
        if unknown:
            raise ValueError(f"impostors {unknown}: expected some of {sorted(KINDS)}")
        if self.shard_size % 2:
            raise ValueError(f"shard_size {self.shard_size}: expected an even number, since cutouts come in pairs")


@dataclass(frozen=True, eq=False)
class Observation:
    """The conditions that a pair of cutouts shares: everything but the object."""

    survey: SurveyFacts
    sampling: Sampling
    photometry: Photometry
    fwhm: FloatArray
    otf: FloatArray
    unit_noise: FloatArray
    sky_sigma: FloatArray
    valid: BoolArray
    xy_pix: FloatArray
    composite: bool
    field_light: FloatArray
    field_points: Points

    @property
    def gain(self) -> FloatArray:
        """Effective gain (B,)."""
        return np.array([self.survey.gain[band] for band in self.survey.bands])

    def see(self, light: FloatArray, points: Points) -> FloatArray:
        """Light on the fine grid to noiseless pixels (B, H, W)."""
        return self.sampling.bin(blur(light, self.sampling.grid, self.otf, points))


@dataclass(frozen=True, eq=False)
class Drawn:
    """One labelled cutout."""

    cutout: Cutout
    row: dict[str, Any]
    arc_mask: BoolArray


def draw_pair(rng: np.random.Generator, survey: SurveyFacts, config: SimConfig, name: str) -> list[Drawn]:
    """Two cutouts of the systems `name` (a lens and its twin share one; two impostors have one each)."""
    prior = config.populations.get(survey.name, config.populations.get("default", Population()))
    if rng.random() < config.lens_pair_fraction:
        return _lens_pair(rng, _observation(rng, survey, config, prior), config, prior, name)
    return [
        _impostor(rng, _observation(rng, survey, config, prior), config, prior, f"{name}{part}") for part in ("a", "b")
    ]


def _observation(rng: np.random.Generator, survey: SurveyFacts, config: SimConfig, prior: Population) -> Observation:
    frame = sampling(survey)
    photometry = Photometry(
        np.array([wavelength_nm(b) for b in survey.bands]), np.array([survey.zero_point[b] for b in survey.bands])
    )
    fwhm = draw_seeing(rng, survey)
    unit_noise, sky_sigma = noise(rng, survey, frame.size_pix, float(np.exp(0.12 * rng.normal())))
    off = config.centring_arcsec * rng.normal(size=2) * (3.0 if rng.random() < 0.12 else 1.0)
    light = np.zeros((len(survey.bands), frame.grid.size, frame.grid.size), np.float32)
    field_arcsec = frame.grid.size * frame.grid.step
    galaxies, stars = neighbours(rng, photometry, prior, field_arcsec, survey.density_per_arcmin2)
    paint(light, frame.grid, galaxies)
    return Observation(
        survey, frame, photometry, fwhm, transfer(survey, fwhm, frame.grid, rng), unit_noise, sky_sigma,
        defects(rng, survey, frame.size_pix), np.clip(frame.to_pixel(np.clip(off, -1.2, 1.2)), 0, frame.size_pix - 1),
        rng.random() < config.composite_fraction.get(survey.name, 0.0), light, stars,
    )  # fmt: skip


def _lens_pair(
    rng: np.random.Generator, o: Observation, config: SimConfig, prior: Population, name: str
) -> list[Drawn]:
    with_point = rng.random() < config.quasar_fraction
    for _ in range(_TRIES):
        lens = deflector(rng, o.photometry, prior)
        src = source(rng, o.photometry, prior, lens, with_point)
        pair = _try_lens(o, config.selection, lens, src, name)
        if pair is not None:
            return pair
    return [_impostor(rng, o, config, prior, f"{name}{part}") for part in ("a", "b")]


def _try_lens(o: Observation, cut: Selection, lens: Deflector, src: Source, name: str) -> list[Drawn] | None:
    """The lens and its twin, or None where the lensed light could not be seen."""
    grid, frame = o.sampling.grid, o.sampling
    if lens.theta_e < cut.min_theta_e_seeing * float(np.median(o.fwhm)):
        return None
    with_point = bool(src.point_flux.any())
    found = images(lens, src)
    light = o.field_light.copy()
    paint(light, grid, lens.light)
    lensed_extended = lensed_light(grid, lens, src)
    base = o.see(light, o.field_points)
    arcs = o.see(lensed_extended, [])
    mu = np.abs(found.magnification)
    points: Points = [
        (float(x), float(y), src.point_flux * m) for x, y, m in zip(found.x, found.y, mu, strict=True)
    ] if with_point else []  # fmt: skip
    lensed = arcs + (o.see(np.zeros_like(light), points) if points else 0.0)
    variance = expose(base + lensed, o.unit_noise, o.sky_sigma, o.gain)[1]
    mask = truth.arc_mask(arcs, variance, base)
    snr, contrast = truth.arc_snr(arcs, variance, mask), truth.arc_contrast(arcs, base, mask)
    n_bright = int((_point_rows(o, points, variance)["point_snr"] > cut.min_point_snr).sum()) if points else 0
    enough = n_bright >= cut.min_points if with_point else snr >= cut.min_arc_snr and contrast >= cut.min_arc_contrast
    if not enough or (not with_point and mask.sum() < 6):
        return None
    shared = {
        "deflector_x_pix": float(frame.to_pixel(np.array(0.0))),
        "deflector_y_pix": float(frame.to_pixel(np.array(0.0))),
    }
    row = truth.blank_row() | truth.lens_row(lens, (src.x, src.y), found, frame) | shared
    row |= {"kind": "lens_quasar" if with_point else "lens_galaxy", "arc_snr": snr, "arc_contrast": contrast}
    row |= {"coverage_deg": truth.coverage_deg(mask, frame.to_pixel(np.zeros(2)))}
    twin = truth.blank_row() | shared | {"kind": "twin"}
    empty = np.zeros_like(mask)
    return [
        _finish(o, base + lensed, row, mask, name, f"{name}-lens", [*points, *o.field_points]),
        _finish(o, base, twin, empty, name, f"{name}-twin", o.field_points),
    ]


def _impostor(rng: np.random.Generator, o: Observation, config: SimConfig, prior: Population, name: str) -> Drawn:
    weights = np.array([config.impostors.get(kind, 0.0) for kind in KINDS]) if config.impostors else np.ones(len(KINDS))
    kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
    light = o.field_light.copy()
    painted = KINDS[kind](Stage(rng, light, o.sampling.grid, o.photometry, prior))
    row = truth.blank_row() | {"kind": kind}
    if painted.has_galaxy:
        row |= {"deflector_x_pix": float(o.sampling.to_pixel(np.array(0.0)))}
        row |= {"deflector_y_pix": float(o.sampling.to_pixel(np.array(0.0)))}
    points = [*painted.points, *o.field_points]
    pixels = o.see(light, points)
    return _finish(o, pixels, row, np.zeros(pixels.shape[1:], bool), name, f"{name}-{kind}", points)


def _point_rows(o: Observation, points: Points, variance: FloatArray) -> dict[str, FloatArray]:
    """Point sources within the cutout, with their signal to noise."""
    if not points:
        return {"point_x_pix": np.empty(0), "point_y_pix": np.empty(0), "point_snr": np.empty(0)}
    xy = np.array([o.sampling.to_pixel(np.array(p[:2])) for p in points])
    snr = truth.point_snr(xy, np.array([p[2] for p in points]), o.fwhm / o.survey.pixel_scale_arcsec, variance)
    inside = ((xy > -0.5) & (xy < o.sampling.size_pix - 0.5)).all(axis=1)
    return {"point_x_pix": xy[inside, 0], "point_y_pix": xy[inside, 1], "point_snr": snr[inside]}


def _finish(
    o: Observation, pixels: FloatArray, row: dict[str, Any], mask: BoolArray, system: str, ident: str, points: Points
) -> Drawn:
    """Expose, saturate, pass through the composite where asked, and wrap up with the truth."""
    flux, variance = expose(pixels, o.unit_noise, o.sky_sigma, o.gain)
    for plane, band in enumerate(o.survey.bands):
        flux[plane] = np.minimum(flux[plane], o.survey.saturation.get(band, np.inf))
    row |= {"id": ident, "system": system, "seeing_arcsec": float(np.median(o.fwhm))}
    row |= {key: value.tolist() for key, value in _point_rows(o, points, variance).items()}
    if o.composite:
        flux, variance = _through_composite(flux, o.survey), np.full_like(variance, np.nan)
        row = _moved(row, o.survey.composite_shift_pix)
    cutout = Cutout(
        id=ident,
        source="",
        flux=np.where(o.valid, flux, np.nan).astype(np.float32),
        variance=variance.astype(np.float32),
        valid=o.valid,
        bands=o.survey.bands,
        pixel_scale_arcsec=o.survey.pixel_scale_arcsec,
        psf_fwhm_arcsec=o.fwhm,
        psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=o.xy_pix,
        origin_xy_pix=np.zeros(2),
        survey=o.survey.name,
    )
    return Drawn(cutout, row, mask & o.valid.any(axis=0))


def _through_composite(flux: FloatArray, survey: SurveyFacts) -> FloatArray:
    """Flux to the survey's 8-bit colour composite and back, as a survey that ships only pictures delivers it."""
    assert survey.stretch is not None
    planes = [survey.bands.index(band) for band in survey.stretch.bands]
    picture = to_composite(flux[planes], survey.stretch)
    dx, dy = survey.composite_shift_pix
    wide = np.pad(picture.astype(float), ((0, 1), (0, 1), (0, 0)), mode="edge")
    wide = (1 - dx) * wide[:, :-1] + dx * wide[:, 1:]
    picture = np.ceil((1 - dy) * wide[:-1] + dy * wide[1:] - 1e-6).astype(np.uint8)
    out = flux.copy()
    out[planes] = from_composite(picture, survey.stretch)
    return out


def _moved(row: dict[str, Any], shift_pix: tuple[float, float]) -> dict[str, Any]:
    """A truth row whose positions follow an image that was resampled at pixel + shift."""
    return row | {
        f"{what}_{axis}_pix": (np.asarray(row[f"{what}_{axis}_pix"]) - shift).tolist()
        for what in ("deflector", "image", "point")
        for axis, shift in zip("xy", shift_pix, strict=True)
    }
