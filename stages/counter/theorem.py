"""The odd-number theorem applied to detected images, by way of a fitted lens.

What is seen is even (2 or 4), for the odd image is the demagnified maximum under the deflector; so an even count is
never held against a candidate. A lens is fitted, ALL its images are found (odd, parity sum +1: Burke 1981), and every
difference between these and the detections must have a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2 as chi2_distribution

from stages.counter.images import KINDS
from stages.counter.lens_fit import Fit, fit
from stages.counter.lens_model import Array
from stages.records import Certificate

MISSING_NAMES = (
    "central_demagnified",  # the maximum under the deflector
    "below_limit",
    "merging_pair_unresolved",
    "naked_cusp",  # of a lens with 3 bright images and no centre; said in the sentence, for no image is missing
    "hidden_by_deflector",
    "unexplained",  # the model makes a bright image where none was detected: look there again
)
ASSUMPTIONS = "Assumes one deflector plane, smooth and transparent; satellites and substructure add pairs of images."
P_SUPPORTS = 0.05  # asked of positions and flux ratios together; random quartets pass three times as often at 0.01
P_MIN = 0.01  # a lens drawn from the priors has misfitting positions this often
P_MIN_FLUX = 1e-3  # of positions and flux ratios together; low, for anomalies are common
P_MIN_CONTAMINANT = 0.2  # asked of what is left after a detection was set aside: four tries
ASTROMETRIC_FLOOR_ARCSEC = 0.025  # substructure and departures from an ellipse (real quads, HST)
DEFLECTOR_FLOOR_ARCSEC = 0.03  # between the centres of light and mass
POINT_ERROR_FWHM, PEAK_ERROR_FWHM = 0.06, 0.3  # position errors of point images and of peaks along arcs
FLUX_FLOOR_MAG = 0.5  # microlensing, variability, dust, substructure
_MOST_IMAGES = 7  # detections beyond these, by confidence, are taken for contaminants


@dataclass(frozen=True, eq=False)
class _Scene:
    """Detections in arcsec; `index` numbers them as the caller did."""

    xy: Array
    flux: Array
    index: npt.NDArray[np.int64]
    error: float
    deflector: Array
    deflector_error: float
    fwhm: float
    flux_limit: float

    def only(self, keep: npt.ArrayLike) -> _Scene:
        """Keep some detections."""
        k = np.asarray(keep, dtype=np.int64)
        return replace(self, xy=self.xy[k], flux=self.flux[k], index=self.index[k])


@dataclass(frozen=True, eq=False)
class _Reading:
    """A fit of some detections with a name for each model image that is not among them."""

    scene: _Scene
    fit: Fit
    missing: Array
    names: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """Whether every detection is an image, every unseen image has an excuse and the theorem holds."""
        matched = int((self.fit.detection >= 0).sum()) == len(self.scene.xy)
        return matched and "unexplained" not in self.names and self.fit.images.parity_sum == 1


def certificate(
    positions_pix: npt.ArrayLike,
    fluxes: npt.ArrayLike,
    confidences: npt.ArrayLike,
    deflector_xy_pix: npt.ArrayLike,
    deflector_confidence: float,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: float,
    flux_limit: float = float("nan"),
    has_point_detections: bool = True,
) -> Certificate:
    """What the odd-number theorem says of one set of detections.

    Parameters
    ----------
    positions_pix : (n, 2) detected images; rows that are not finite are ignored.
    fluxes, confidences : (n,) in one unit, NaN where not measured, and 0..1.
    deflector_xy_pix, deflector_confidence : NaN where none was found; the fit then leaves its position free.
    pixel_scale_arcsec : NaN if unknown: an Einstein radius of about 1 arcsec is then assumed.
    psf_fwhm_arcsec : NaN if unknown: 2.5 pixels.
    flux_limit : faintest point source that would have been detected (5 sigma), in the unit of `fluxes`; NaN if unknown.
    has_point_detections : False for peaks along arcs, whose positions are poor: the verdict is then at most "possible".
    """
    xy = np.asarray(positions_pix, dtype=np.float64).reshape(-1, 2)
    good = np.isfinite(xy).all(1)
    if good.sum() == 0:
        return Certificate("no_images", sentence="No point-like image is detected: the theorem says nothing.")
    if good.sum() == 1:
        return Certificate("single", sentence="One point-like image: no evidence of lensing.")
    error_part = POINT_ERROR_FWHM if has_point_detections else PEAK_ERROR_FWHM
    known_scale = bool(np.isfinite(pixel_scale_arcsec))
    origin = xy[good].mean(0)
    scale = float(pixel_scale_arcsec)
    if not known_scale:
        scale = 1.0 / max(float(np.sqrt(((xy[good] - origin) ** 2).sum(1).mean())), 1e-6)
    fwhm = float(psf_fwhm_arcsec) if np.isfinite(psf_fwhm_arcsec) else 2.5 * scale
    flux = np.asarray(fluxes, dtype=np.float64)[good]
    confidence = np.nan_to_num(np.asarray(confidences, dtype=np.float64)[good])
    deflector = np.asarray(deflector_xy_pix, dtype=np.float64)
    trust = float(np.clip(np.nan_to_num(deflector_confidence, nan=1.0), 0.1, 1.0))
    scene = _Scene(
        xy=(xy[good] - origin) * scale,
        flux=np.where(flux > 0, flux, np.nan),
        index=np.flatnonzero(good),
        error=float(np.hypot(ASTROMETRIC_FLOOR_ARCSEC, error_part * fwhm)),
        deflector=(deflector - origin) * scale,
        deflector_error=float(np.hypot(DEFLECTOR_FLOOR_ARCSEC, 0.1 * fwhm) / np.sqrt(trust)),
        fwhm=fwhm,
        flux_limit=flux_limit,
    )
    strongest = np.sort(np.argsort(-confidence, kind="stable")[:_MOST_IMAGES])
    verdict, reading = _judge(scene.only(strongest))
    if verdict == "inconsistent" and trust < 0.5 and np.isfinite(deflector).all():
        verdict, reading = _judge(replace(scene, deflector=np.full(2, np.nan)).only(strongest))
    if verdict == "supports" and not (has_point_detections and known_scale):
        verdict = "possible"
    model, images = reading.fit.model, reading.fit.images
    return Certificate(
        verdict,
        reading.fit.p_value,
        float(len(images.kind)),
        float(images.parity_sum),
        reading.missing / scale + origin,
        reading.names,
        model.theta_e_arcsec if known_scale else float("nan"),
        _sentence(verdict, reading, scene, known_scale),
    )


def _read(scene: _Scene) -> _Reading:
    """Fit the detections and name the model images that are not among them."""
    fitted = fit(scene.xy, np.full(len(scene.xy), scene.error), scene.deflector, scene.deflector_error)
    missing, names = _name_missing(scene, fitted)
    return _Reading(scene, fitted, missing, names)


def _name_missing(scene: _Scene, fitted: Fit) -> tuple[Array, tuple[str, ...]]:
    """Positions and names of the model images without a detection; brightnesses relative to the detected ones."""
    images, seen = fitted.images, fitted.detection >= 0
    magnification = np.abs(images.magnification)
    flux, limit = magnification, 0.3 * magnification[seen].min() if seen.any() else 0.0
    measured = scene.flux[fitted.detection[seen]]
    if np.isfinite(measured).any():
        flux = magnification * float(np.nanmedian(measured / magnification[seen]))
        limit = scene.flux_limit if np.isfinite(scene.flux_limit) else 0.5 * float(np.nanmin(measured))
    centre, names = np.array([fitted.model.x_arcsec, fitted.model.y_arcsec]), []
    for i in np.flatnonzero(~seen):
        here = images.xy_arcsec[i]
        from_centre = float(np.hypot(*(here - centre)))
        from_image = float(np.hypot(*(scene.xy - here).T).min())
        if KINDS[images.kind[i]] == "maximum" and (flux[i] < limit or magnification[i] < 0.1 * magnification.max()):
            names.append("central_demagnified")
        elif from_centre < (1.0 if KINDS[images.kind[i]] == "maximum" else 0.5) * scene.fwhm:
            names.append("hidden_by_deflector")
        elif from_image < scene.fwhm:
            names.append("merging_pair_unresolved")
        else:
            names.append("below_limit" if flux[i] < 1.5 * limit else "unexplained")
    return images.xy_arcsec[~seen].reshape(-1, 2), tuple(names)


def _judge(scene: _Scene) -> tuple[str, _Reading]:
    """Verdict and the reading it rests on."""
    n = len(scene.xy)
    if n > 4:
        return _judge_many(scene)
    reading = _read(scene)
    if n == 2:
        hopeless = reading.fit.p_value < 1e-3 and _same_side(scene)
        return ("inconsistent" if hopeless else "possible"), reading
    joint = _joint_p_value(reading)
    if n == 3 and reading.fit.p_value > P_MIN:
        return "possible", reading
    if n == 4 and reading.fit.p_value > P_MIN and joint > P_MIN_FLUX and reading.consistent:
        return ("supports" if joint > P_SUPPORTS else "possible"), reading
    if not np.isfinite(scene.deflector).all():  # without its centre the rest would be tested by priors alone
        return "inconsistent", reading
    rest = [_read(scene.only([k for k in range(n) if k != dropped])) for dropped in range(n)]
    rest = [r for r in rest if r.fit.p_value > P_MIN_CONTAMINANT and r.consistent and not _same_side(r.scene)]
    if n == 4:  # one excuse is enough: with two, chance quartets pass
        rest = [r for r in rest if set(r.names) <= {"central_demagnified", "hidden_by_deflector"}]
    if rest:
        return "possible", max(rest, key=lambda r: r.fit.p_value)
    return "inconsistent", reading


def _judge_many(scene: _Scene) -> tuple[str, _Reading]:
    """Best four of five or more detections; the more choices, the better the best must be."""
    readings = [_read(scene.only(subset)) for subset in combinations(range(len(scene.xy)), 4)]
    threshold = min(P_MIN * len(readings), 0.3)
    best = max(readings, key=lambda r: (r.consistent, r.fit.p_value))
    if not (best.consistent and best.fit.p_value > threshold):
        return "inconsistent", best
    others = scene.only(sorted(set(range(len(scene.xy))) - {list(scene.index).index(i) for i in best.scene.index}))
    distance = np.hypot(*(others.xy[:, None] - best.missing[None]).transpose(2, 0, 1))
    explained = bool((distance.min(1, initial=np.inf) < 0.5 * scene.fwhm).all())
    return ("supports" if explained and _joint_p_value(best) > P_SUPPORTS else "possible"), best


def _same_side(scene: _Scene) -> bool:
    """Whether two images lie within 60 degrees of each other as seen from a known deflector."""
    if len(scene.xy) != 2 or not np.isfinite(scene.deflector).all():
        return False
    a, b = scene.xy - scene.deflector
    return bool(a @ b > 0.5 * np.hypot(*a) * np.hypot(*b))


def _joint_p_value(reading: _Reading) -> float:
    """Chance of a larger misfit of positions and flux ratios together, the latter with `FLUX_FLOOR_MAG` as error."""
    seen = reading.fit.detection >= 0
    ratio = reading.scene.flux[reading.fit.detection[seen]] / np.abs(reading.fit.images.magnification[seen])
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < 2:
        return reading.fit.p_value
    magnitude = -2.5 * np.log10(ratio)
    chi2 = reading.fit.chi2 + float((((magnitude - magnitude.mean()) / FLUX_FLOOR_MAG) ** 2).sum())
    return float(chi2_distribution.sf(chi2, reading.fit.dof + len(ratio) - 1))


def _sentence(verdict: str, reading: _Reading, scene: _Scene, known_scale: bool) -> str:
    """The verdict as an astronomer would write it, and what it assumes."""
    fitted, names = reading.fit, [name.replace("_", " ") for name in reading.names]
    counts = np.bincount(fitted.images.kind, minlength=3)
    radius = f"an Einstein radius of {fitted.model.theta_e_arcsec:.2f} arcsec" if known_scale else "unknown scale"
    outcome = {"supports": "are those of", "possible": "could be those of", "inconsistent": "are not those of"}[verdict]
    text = (
        f"{len(reading.scene.xy)} of {len(scene.xy)} detections {outcome} an isothermal ellipsoid with shear and"
        f" {radius} (p = {fitted.p_value:.2g}), which makes {len(fitted.images.kind)} images"
        f" ({counts[0]} minima, {counts[1]} saddles, {counts[2]} maxima; parity sum {fitted.images.parity_sum:+d})"
    )
    text += f"; not detected: {', '.join(names)}" if names else ""
    outside = sorted(
        set(scene.index.tolist()) - set(reading.scene.index[fitted.detection[fitted.detection >= 0]].tolist())
    )
    text += f"; contaminant: detection {', '.join(map(str, outside))}" if outside else ""
    text += "; a naked cusp" if tuple(counts) == (2, 1, 0) and len(scene.xy) >= 3 else ""
    text += "; two images hardly test a lens" if len(reading.scene.xy) == 2 else ""
    text += "" if np.isfinite(scene.deflector).all() else "; the deflector is not seen"
    return f"{text}. {ASSUMPTIONS}"
