"""Draw one pair of labelled cutouts: a lens with its unlensed twin, or two impostors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import truth
from sim.impostors import KINDS, Stage
from sim.lensed import lensed_light
from sim.lensing.images import Images, solve
from sim.lensing.lens import LensError
from sim.population import Deflector, Population, Source, deflector, source
from sim.populations.deflectors import source_redshift
from sim.populations.real_galaxies import Stamps
from sim.real_sky.backgrounds import Backgrounds, RealView
from sim.real_sky.empty import EmptySky
from sim.real_sky.unpainted import Unpainted
from sim.view import Points, SimulatedView, View
from stages.records import BoolArray, Cutout, FloatArray
from stages.survey import SurveyFacts

_TRIES = 400


@dataclass(frozen=True)
class Selection:
    """Which drawn lenses are kept: what nobody can see teaches noise.

    min_arc_snr, min_arc_contrast : of the lensed extended light, see `sim.truth`; min_theta_e_seeing : Einstein radius
    over the median FWHM; min_point_snr, min_points : so many images of a point source at that signal to noise.
    """

    min_arc_snr: float = 12.0
    min_arc_contrast: float = 0.03
    min_theta_e_seeing: float = 0.7
    min_point_snr: float = 8.0
    min_points: int = 2

    def __post_init__(self) -> None:
        faults = [f"{name} {value}: expected 0 or more" for name, value in vars(self).items() if value < 0]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class SimConfig:
    """What `sim/generate.py` draws; see `configs/sim.yaml`.

    lens_pair_fraction : share of pairs that are a lens and its twin; the others are two impostors.
    quasar_fraction, supernova_fraction : share of lenses whose source has such a point.
    second_source_fraction : share of lenses with a second lensed galaxy beside the first.
    impostors : relative frequency of each kind.
    composite_fraction : share of a survey's cutouts that pass through its 8-bit colour composite and back.
    centring_arcsec : rms error of the catalogue's position.
    painted_negative_fraction : on real sky, share of non-lens pairs with unlensed galaxies painted on.
    populations : priors by survey; a survey not named takes "default".
    """

    lens_pair_fraction: float = 0.55
    quasar_fraction: float = 0.2
    supernova_fraction: float = 0.05
    second_source_fraction: float = 0.05
    shard_size: int = 256
    centring_arcsec: float = 0.25
    painted_negative_fraction: float = 0.7
    selection: Selection = field(default_factory=Selection)
    impostors: dict[str, float] = field(default_factory=dict)
    composite_fraction: dict[str, float] = field(default_factory=dict)
    populations: dict[str, Population] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = []
        unknown = sorted(set(self.impostors) - set(KINDS))
        if unknown:
            faults.append(f"impostors {unknown}: expected some of {sorted(KINDS)}")
        if any(v < 0 for v in self.impostors.values()) or (self.impostors and not sum(self.impostors.values()) > 0):
            faults.append("impostors: expected frequencies of 0 or more, not all 0")
        if self.shard_size < 2 or self.shard_size % 2:
            faults.append(f"shard_size {self.shard_size}: expected an even number, since cutouts come in pairs")
        if not self.centring_arcsec >= 0:
            faults.append(f"centring_arcsec {self.centring_arcsec}: expected arcsec, 0 or more")
        shares = [name for name in vars(self) if name.endswith("_fraction") and name != "composite_fraction"]
        values = {name: getattr(self, name) for name in shares}
        values |= {f"composite_fraction.{name}": v for name, v in self.composite_fraction.items()}
        faults += [f"{name} {value}: expected 0 to 1" for name, value in values.items() if not 0 <= value <= 1]
        if self.quasar_fraction + self.supernova_fraction > 1:
            faults.append("quasar_fraction + supernova_fraction: expected at most 1")
        if faults:
            raise ValueError("; ".join(faults))

    def prior(self, survey: str) -> Population:
        """The priors of a survey."""
        return self.populations.get(survey, self.populations.get("default", Population()))


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What pairs are drawn from beside the configuration.

    stamps : real galaxies as sources; backgrounds : real deflectors to paint on; sky : empty places of real images;
    unpainted : real objects that are taken as they are.
    """

    stamps: Stamps | None = None
    backgrounds: Backgrounds | None = None
    sky: EmptySky | None = None
    unpainted: Unpainted | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """One labelled cutout; `arc_mask` (H, W) has bit k set where source k is seen lensed."""

    cutout: Cutout
    row: dict[str, Any]
    arc_mask: npt.NDArray[np.uint8]


def draw_pair(
    rng: np.random.Generator, survey: SurveyFacts, config: SimConfig, name: str, given: Ingredients
) -> list[Drawn]:
    """Two cutouts of the systems `name` (a lens and its twin share one; two impostors have one each)."""
    prior = config.prior(survey.name)
    is_lens = rng.random() < config.lens_pair_fraction
    if given.backgrounds is not None:
        return _on_real_sky(rng, given, config, prior, name, is_lens)
    if is_lens:
        view, kind = _view(rng, survey, config, prior, given.sky), _source_kind(rng, config)
        for _ in range(_TRIES):
            lens = deflector(rng, view.photometry, prior, kind)
            pair = _try_lens(rng, view, config, prior, lens, kind, given.stamps, name)
            if pair is not None:
                return pair
    views = [_view(rng, survey, config, prior, given.sky) for _ in range(2)]
    return [_impostor(rng, v, config, prior, f"{name}{part}") for v, part in zip(views, ("a", "b"), strict=True)]


def _view(
    rng: np.random.Generator, survey: SurveyFacts, config: SimConfig, prior: Population, sky: EmptySky | None
) -> SimulatedView:
    if sky is not None:
        return sky.view(rng, prior, config.centring_arcsec)
    composite = config.composite_fraction.get(survey.name, 0.0)
    return SimulatedView.draw(rng, survey, prior, config.centring_arcsec, composite)


def _source_kind(rng: np.random.Generator, config: SimConfig) -> str:
    draw = rng.random()
    if draw < config.quasar_fraction:
        return "quasar"
    return "supernova" if draw < config.quasar_fraction + config.supernova_fraction else "galaxy"


def _try_lens(
    rng: np.random.Generator, view: View, config: SimConfig, prior: Population, lens: Deflector, kind: str,
    stamps: Stamps | None, name: str,
) -> list[Drawn] | None:  # fmt: skip
    """The lens and its twin, or None where the lensed light could not be seen."""
    cut = config.selection
    if lens.mass.theta_e < cut.min_theta_e_seeing * float(np.median(view.optics.fwhm)):
        return None
    kinds = [kind, "galaxy"] if rng.random() < config.second_source_fraction else [kind]
    planes = [lens, *(_second_plane(rng, view, prior, lens) for _ in kinds[1:])]
    sources = [source(rng, view.photometry, prior, p, k, stamps) for p, k in zip(planes, kinds, strict=True)]
    found = [solve(p.mass, s.x, s.y) for p, s in zip(planes, sources, strict=True)]
    if not _worth_painting(view, cut, sources[0], found[0]):
        return None
    optics, grid = view.optics, view.optics.sampling.grid
    painted = [lensed_light(grid, p.mass, s) for p, s in zip(planes, sources, strict=True)]
    arcs = [optics.see(light, []) for light in painted]
    points = _lensed_points(lens, sources[0])
    lensed = sum(arcs, np.zeros_like(arcs[0]))
    if points:
        lensed = lensed + optics.see(np.zeros_like(painted[0]), points)
    base = view.base(lens.light)
    variance = view.variance(base + lensed)
    masks = [truth.arc_mask(a, variance, base) for a in arcs]
    row = _lens_truth(view, lens, sources, found, painted, arcs, masks, base, variance)
    row |= _point_rows(view, points, base + lensed)
    if sources[0].point_flux.any():
        enough = (np.array(row["point_snr"]) > cut.min_point_snr).sum() >= cut.min_points
    else:
        enough = row["arc_snr"] >= cut.min_arc_snr and row["arc_contrast"] >= cut.min_arc_contrast
        enough = enough and masks[0].sum() >= 6
    if not enough:
        return None
    bits = np.sum([m.astype(np.uint8) << k for k, m in enumerate(masks)], axis=0).astype(np.uint8)
    shared = _deflector_position(view)
    twin = truth.blank_row() | shared | {"kind": "twin", "boost": row["boost"], "drawn": row["drawn"]}
    twin |= _point_rows(view, [], base)
    return [
        _finish(view, view.record(base, lensed), row | shared, bits, name, f"{name}-lens"),
        _finish(view, view.record(base, None), twin, np.zeros_like(bits), name, f"{name}-twin"),
    ]


def _second_plane(rng: np.random.Generator, view: View, prior: Population, lens: Deflector) -> Deflector:
    """The deflector before a second source at a redshift of its own; the first source's mass is left out."""
    try:
        return lens.before(source_redshift(rng, view.photometry, prior, lens.z))
    except LensError:  # so little behind the deflector that it is hardly lensed
        return lens


def _worth_painting(view: View, cut: Selection, source: Source, found: Images) -> bool:
    """Whether the images could be bright enough, were each as compact as the PSF: saves painting what would be cut."""
    has_point = bool(source.point_flux.any())
    total = float(np.abs(found.magnification[found.kind != 2]).sum())
    flux = source.point_flux if has_point else source.total_flux
    n_effective = 2.266 * np.maximum(view.optics.fwhm / view.optics.sampling.pixel_arcsec, 1.2) ** 2
    limit = cut.min_point_snr if has_point else cut.min_arc_snr
    best = float((total * flux / (view.sky_sigma * np.sqrt(n_effective))).max())
    return (len(found.x) > 1 or not has_point) and best >= limit


def _lensed_points(lens: Deflector, source: Source) -> Points:
    """Images of the source's point: x, y in arcsec and flux per band."""
    if not source.point_flux.any():
        return []
    images = solve(lens.mass, *source.point_xy)
    return [
        (float(x), float(y), source.point_flux * abs(m))
        for x, y, m in zip(images.x, images.y, images.magnification, strict=True)
    ]


def _lens_truth(
    view: View, lens: Deflector, sources: Sequence[Source], found: Sequence[Images], painted: Sequence[FloatArray],
    arcs: Sequence[FloatArray], masks: Sequence[BoolArray], base: FloatArray, variance: FloatArray,
) -> dict[str, Any]:  # fmt: skip
    first, fwhm_pix = sources[0], view.optics.fwhm / view.optics.sampling.pixel_arcsec
    has_point = bool(first.point_flux.any())
    flux = first.point_flux if has_point else first.total_flux
    images = found[0] if not has_point else solve(lens.mass, *first.point_xy)
    mask = np.any(masks, axis=0)
    total = np.sum(arcs, axis=0)
    arc = truth.arc_shape(mask, view.to_pixel(np.zeros(2)))
    row = truth.blank_row() | truth.lens_row(lens, first, images, len(sources))
    row |= truth.image_rows(images, flux, view.to_pixel, view.photometry.magnitude, fwhm_pix, variance)
    unlensed = sum(float(s.total_flux.sum()) for s in sources)
    return row | {
        "kind": f"lens_{first.kind}",
        "boost": lens.boost * first.boost,
        "arc_snr": truth.arc_snr(total, variance, mask),
        "arc_contrast": truth.arc_contrast(total, base, mask),
        "coverage_deg": arc.coverage_deg,
        "n_arcs": arc.n_arcs,
        "stretch": arc.stretch,
        "magnification": float(np.sum(painted)) / max(unlensed, 1e-30),
        "drawn": truth.as_json({"deflector": lens, "sources": list(sources), "fwhm_arcsec": view.optics.fwhm}),
    }


def _on_real_sky(
    rng: np.random.Generator, given: Ingredients, config: SimConfig, prior: Population, name: str, is_lens: bool
) -> list[Drawn]:
    """Lensed light, or unlensed galaxies, painted on a real cutout; the untouched original beside it is the twin."""
    assert given.backgrounds is not None
    for _ in range(_TRIES):
        view = given.backgrounds.view(rng)
        if not is_lens:
            return _painted_negatives(rng, view, config, prior, name)
        kind = _source_kind(rng, config)
        for _ in range(20):
            lens = view.draw_deflector(rng, prior)
            pair = _try_lens(rng, view, config, prior, lens, kind, given.stamps, name)
            if pair is not None:
                return pair
    raise ValueError(
        f"no lens could be seen on any of {len(given.backgrounds)} backgrounds in {_TRIES} tries. Lower the "
        "selection's min_arc_snr or min_theta_e_seeing in the configuration, or give deeper cutouts."
    )


def _painted_negatives(
    rng: np.random.Generator, view: RealView, config: SimConfig, prior: Population, name: str
) -> list[Drawn]:
    """A cutout with unlensed galaxies painted where arcs would be, beside the untouched original."""
    base = view.base(())
    shared = _deflector_position(view)
    out = []
    for part, painted in (("a", rng.random() < config.painted_negative_fraction), ("b", False)):
        light = view.unlensed(rng, prior) if painted else None
        row = truth.blank_row() | shared | {"kind": "painted_blend" if painted else "real_field"}
        empty = np.zeros(base.shape[1:], np.uint8)
        out.append(_finish(view, view.record(base, light), row, empty, name, f"{name}{part}-{row['kind']}"))
    return out


def _impostor(rng: np.random.Generator, view: SimulatedView, config: SimConfig, prior: Population, name: str) -> Drawn:
    weights = np.array([config.impostors.get(kind, 0.0) for kind in KINDS]) if config.impostors else np.ones(len(KINDS))
    kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
    canvas = view.field.copy()
    seeing = float(np.median(view.optics.fwhm))
    painted = KINDS[kind](Stage(rng, canvas, view.optics.sampling.grid, view.photometry, prior, seeing))
    row = truth.blank_row() | {"kind": kind}
    if painted.has_galaxy:
        row |= _deflector_position(view)
    pixels = view.see(canvas, painted.points)
    row |= _point_rows(view, painted.points, pixels)
    return _finish(view, view.record(pixels, None), row, np.zeros(pixels.shape[1:], np.uint8), name, f"{name}-{kind}")


def _deflector_position(view: View) -> dict[str, float]:
    x, y = view.to_pixel(np.zeros(2))
    return {"deflector_x_pix": float(x), "deflector_y_pix": float(y)}


def _point_rows(view: View, points: Points, pixels: FloatArray) -> dict[str, Any]:
    """Point sources of noiseless pixels (B, H, W), the field's own stars included, and what can be seen of them."""
    every = [*points, *view.points]
    if not every:
        return {"point_x_pix": [], "point_y_pix": [], "point_snr": [], "point_share": []}
    xy, flux = view.to_pixel(np.array([p[:2] for p in every])), np.array([p[2] for p in every])
    inside = ((xy > -0.5) & (xy < np.array(pixels.shape[:0:-1]) - 0.5)).all(axis=1)
    xy, flux = xy[inside], flux[inside]
    fwhm_pix = view.optics.fwhm / view.optics.sampling.pixel_arcsec
    share = truth.point_share(xy, flux, view.optics.kernels, pixels)
    snr = truth.point_snr(xy, flux, fwhm_pix, view.variance(pixels))
    values = {"point_x_pix": xy[:, 0], "point_y_pix": xy[:, 1], "point_snr": snr, "point_share": share}
    return {key: value.tolist() for key, value in values.items()}


def _finish(
    view: View,
    recorded: tuple[FloatArray, FloatArray],
    row: dict[str, Any],
    mask: npt.NDArray[np.uint8],
    system: str,
    ident: str,
) -> Drawn:
    """Wrap up with the truth; pixels that the instrument lost are NaN."""
    flux, variance = recorded
    row |= {"id": ident, "system": view.system or system, "seeing_arcsec": float(np.median(view.optics.fwhm))}
    cutout = Cutout(
        id=ident,
        source="",
        flux=np.where(view.valid, flux, np.nan).astype(np.float32),
        variance=variance.astype(np.float32),
        valid=view.valid,
        bands=view.survey.bands,
        pixel_scale_arcsec=view.optics.sampling.pixel_arcsec,
        psf_fwhm_arcsec=view.optics.fwhm,
        psf=view.optics.kernels,
        xy_pix=view.xy_pix,
        origin_xy_pix=np.zeros(2),
        survey=view.survey.name,
    )
    return Drawn(cutout, row, (mask * view.valid.any(axis=0)).astype(np.uint8))
