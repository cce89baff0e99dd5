"""The odd-number theorem applied to detected images, by way of fitted lenses.

What is seen is even (2 or 4), for the odd image is the demagnified maximum under the deflector; so an even count is
never held against a candidate. Lenses are fitted to the detections and to parts of them, ALL images of each are found
(odd, parity sum +1: Burke 1981), every difference from the detections gets a name and a probability, and what the
lenses explain is weighed against chance by likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from stages.counter.hypotheses import Look, Reading, Scene, log_by_chance, log_look, readings
from stages.counter.images import KINDS
from stages.counter.lens_model import Array
from stages.counter.missing import APART_FWHM, Place, missing_images
from stages.counter.prediction import places_in, search_ellipse
from stages.counter.priors import TheoremConfig
from stages.records import Certificate

ASSUMPTIONS = "Assumes one deflector plane, smooth and transparent; satellites and substructure add pairs of images."
P_MIN = 0.01  # a lens drawn from the priors has misfitting positions this often
ASTROMETRIC_FLOOR_ARCSEC = 0.025  # substructure and departures from an ellipse (real quads, HST)
DEFLECTOR_FLOOR_ARCSEC = 0.03  # between the centres of light and mass
POINT_ERROR_FWHM, PEAK_ERROR_FWHM = 0.06, 0.3  # position errors of point images and of peaks along arcs
SYSTEMATIC_FWHM = 0.04  # of measured positions: what arcs and the PSF's shape add on simulated lenses
CONFIRMED_SNR = 5.0  # of a flux measured where an image was predicted
LOOK_STEP_FWHM = 0.4  # between places looked at
FAR_FACTOR = 3.0  # beyond this many times the second smallest distance from the deflector lie field objects
CENTRE_FACTOR = 0.25  # nearer than this part of the second smallest distance is a central image or a nucleus
_LEAST_CONFIDENCE = 0.05  # of a detection; it is doubted no more than this says
_MOST_IMAGES = 7  # detections beyond these, by confidence, are taken for contaminants
_WORTH_A_LOOK = 5.0  # below the likeliest, readings whose missing images are looked for in the pixels; natural log


@dataclass(frozen=True, eq=False)
class Detections:
    """What was measured of the point images of one candidate, in pixels.

    xy_pix, confidence : (n, 2) and (n,) positions, of which rows that are not finite are ignored, and 0..1.
    flux : (n,) or (n, B) in one unit for each column, NaN where not measured; the first column is compared with
        magnifications, the others with it for colours. flux_err : the same shape, or None.
    xy_err_pix : (n,) error per axis, or None.
    deflector_xy_pix, deflector_confidence : NaN where none was found; the fit then leaves its position free.
    pixel_scale_arcsec : NaN if unknown: an Einstein radius of about 1 arcsec is then assumed.
    psf_fwhm_arcsec : NaN if unknown: 2.5 pixels.
    flux_limit : faintest point source that would have been detected (5 sigma), in the unit of `flux`; NaN if unknown.
    are_points : False for peaks along arcs, whose positions are poor: the verdict is then at most "possible".
    """

    xy_pix: npt.ArrayLike
    flux: npt.ArrayLike
    confidence: npt.ArrayLike
    deflector_xy_pix: npt.ArrayLike
    deflector_confidence: float
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: float
    flux_limit: float = float("nan")
    flux_err: npt.ArrayLike | None = None
    xy_err_pix: npt.ArrayLike | None = None
    are_points: bool = True


def certificate(seen: Detections, prior: TheoremConfig | None = None, look: Look | None = None) -> Certificate:
    """What the odd-number theorem says of one set of detections.

    look : measures fluxes and errors of points at places (k, 2) in the pixels, what is detected taken away; predictions
        are then put to the test, and what is found or not found changes the odds.
    """
    prior = prior or TheoremConfig()
    xy = np.asarray(seen.xy_pix, dtype=np.float64).reshape(-1, 2)
    good = np.asarray(np.isfinite(xy).all(axis=1))
    if good.sum() == 0:
        return Certificate("no_images", sentence="No point-like image is detected: the theorem says nothing.")
    if good.sum() == 1:
        return Certificate(
            "single", sentence="One point-like image: no evidence of lensing.", hypothesis="single_point"
        )
    scene, origin, scale = _scene(seen, xy, good)
    confidence = np.nan_to_num(np.asarray(seen.confidence, dtype=np.float64)[scene.index])
    order = np.argsort(-confidence, kind="stable")
    strongest = scene.only(np.sort(order[_near(scene)[order]][:_MOST_IMAGES]))
    judged = _judge(strongest, prior, _in_arcsec(look, origin, scale, seen.flux_limit))
    trust = seen.deflector_confidence
    if judged.verdict == "inconsistent" and trust < 0.5 and np.isfinite(strongest.deflector).all():
        judged = _judge(replace(strongest, deflector=np.full(2, np.nan)), prior, None)
    known_scale = bool(np.isfinite(seen.pixel_scale_arcsec))
    if judged.verdict == "supports" and not (seen.are_points and known_scale):
        judged = replace(judged, verdict="possible")
    return _record(judged, len(good), scene, origin, scale, known_scale)


@dataclass(frozen=True, eq=False)
class _Judged:
    """A verdict, the log odds it rests on, the best reading; its missing images, then those of others."""

    verdict: str
    log_bayes_factor: float
    best: Reading | None
    missing: tuple[Place, ...] = ()


def _scene(seen: Detections, xy: Array, good: npt.NDArray[np.bool_]) -> tuple[Scene, Array, float]:
    """Detections in arcsec about their centroid, that centroid in pixels, and arcsec per pixel."""
    origin, scale = xy[good].mean(0), float(seen.pixel_scale_arcsec)
    if not np.isfinite(scale):
        scale = 1.0 / max(float(np.sqrt(((xy[good] - origin) ** 2).sum(1).mean())), 1e-6)
    fwhm = float(seen.psf_fwhm_arcsec) if np.isfinite(seen.psf_fwhm_arcsec) else 2.5 * scale
    flux = np.asarray(seen.flux, dtype=np.float64).reshape(len(xy), -1)[good]
    flux = np.where(flux > 0, flux, np.nan)
    error = np.zeros_like(flux)
    if seen.flux_err is not None:
        error = 1.086 * np.nan_to_num(np.asarray(seen.flux_err, dtype=np.float64).reshape(len(xy), -1)[good]) / flux
    place = np.full(int(good.sum()), (POINT_ERROR_FWHM if seen.are_points else PEAK_ERROR_FWHM) * fwhm)
    if seen.xy_err_pix is not None:
        measured = np.asarray(seen.xy_err_pix, dtype=np.float64)[good] * scale
        place = np.where(np.isfinite(measured), np.hypot(measured, SYSTEMATIC_FWHM * fwhm), place)
    confidence = np.asarray(seen.confidence, dtype=np.float64)[good]
    trust = float(np.clip(np.nan_to_num(seen.deflector_confidence, nan=1.0), 0.1, 1.0))
    scene = Scene(
        xy=(xy[good] - origin) * scale,
        error=np.hypot(ASTROMETRIC_FLOOR_ARCSEC, place),
        magnitude=-2.5 * np.log10(flux),
        magnitude_err=error,
        index=np.flatnonzero(good),
        deflector=(np.asarray(seen.deflector_xy_pix, dtype=np.float64) - origin) * scale,
        deflector_error=float(np.hypot(DEFLECTOR_FLOOR_ARCSEC, 0.1 * fwhm) / np.sqrt(trust)),
        fwhm=fwhm,
        limit_mag=-2.5 * np.log10(seen.flux_limit) if seen.flux_limit > 0 else float("nan"),
        doubt=1 / np.clip(np.nan_to_num(confidence, nan=1.0), _LEAST_CONFIDENCE, 1.0) - 1,
    )
    return scene, origin, scale


def _near(scene: Scene) -> npt.NDArray[np.bool_]:
    """Which detections may be images of one source: not those far outside all others as seen from the deflector."""
    distance = np.hypot(*(scene.xy - scene.deflector).T)
    if len(distance) < 3 or not np.isfinite(distance).all():
        return np.ones(len(distance), bool)
    first, second, third = np.sort(distance)[:3]
    return np.asarray(distance <= FAR_FACTOR * (third if first < CENTRE_FACTOR * second else second))


def _in_arcsec(look: Look | None, origin: Array, scale: float, flux_limit: float) -> Look | None:
    """The pixels' `look` for places in arcsec about the centroid."""
    if look is None or not flux_limit > 0:
        return None
    return lambda places: look(places / scale + origin)


def _judge(scene: Scene, prior: TheoremConfig, look: Look | None) -> _Judged:
    """Weigh every reading against chance, after looking where the best ones predict more images."""
    known, chance = readings(scene, prior), log_by_chance(scene)
    known = [r for r in known if np.isfinite(r.log_likelihood)]
    if not known:
        return _Judged("inconsistent", -np.inf, None)
    log_like, looks = np.array([r.log_likelihood for r in known]), {}
    worth = int((log_like > log_like[0] - _WORTH_A_LOOK).sum())
    for k in range(worth if look is not None else 0):
        assert look is not None
        looks[k] = _put_to_the_test(known[k], look)
        log_like[k] += looks[k][2]
    first = int(np.argmax(log_like))
    best, factor = known[first], float(logsumexp(log_like)) - chance
    unknown = np.full(len(best.missing), np.nan)
    tested, depth, _ = looks.get(first, (unknown, unknown, 0.0))
    depth = np.where(np.isfinite(depth), depth, scene.limit_mag)
    odds = factor + float(np.log(prior.lens_odds))
    n_images = len(best.scene.xy) + int((tested > CONFIRMED_SNR).sum())
    strong = float(np.log(prior.strong_odds))
    few = len(scene.xy) < 4  # two or three points hardly test a lens: only a misfit of their places counts against it
    if odds < (-2 * strong if few else -strong) and not (few and best.fit.p_value > P_MIN):
        verdict = "inconsistent"
    elif odds > strong and len(best.scene.xy) > 2 and n_images > 3 and best.fit.p_value > P_MIN:
        verdict = "supports"
    else:
        verdict = "possible"
    shares = np.exp(log_like - logsumexp(log_like))
    missing = missing_images(best, tested, depth, known, shares, look, prior)
    return _Judged(verdict, factor, best, tuple(missing))


def _put_to_the_test(reading: Reading, look: Look) -> tuple[Array, Array, float]:
    """S/N and depth (mag) where a missing image should stand apart, and what the likelihood gains by looking there."""
    fit, scene, gain = reading.fit, reading.scene, 0.0
    snr, depth = np.full((2, len(reading.missing)), np.nan)
    known = np.vstack([scene.xy, [(fit.model.x_arcsec, fit.model.y_arcsec)]])
    for k, (image, name) in enumerate(zip(reading.missing, reading.names, strict=True)):
        ellipse = search_ellipse(fit, int(image))
        maximum = fit.images.kind[image] == KINDS.index("maximum")
        if maximum or name == "merging_pair_unresolved" or not np.isfinite(ellipse).all():
            continue
        places, weight = places_in(fit.images.xy_arcsec[image], ellipse, LOOK_STEP_FWHM * scene.fwhm)
        distance = np.hypot(*(places[:, None] - known[None]).transpose(2, 0, 1))
        apart = (distance > APART_FWHM * scene.fwhm).all(1)
        flux, error = look(places[apart])
        good = np.isfinite(flux) & (error > 0)
        predicted = 10 ** (-0.4 * reading.missing_mag[k])
        if not good.any() or not np.isfinite(predicted):
            continue
        ratios = log_look(flux[good], error[good], predicted)
        w = weight[apart][good]
        gain += float(logsumexp(ratios, b=w / w.sum())) - float(np.log(reading.unseen[k]))
        snr[k], depth[k] = (flux[good] / error[good]).max(), -2.5 * np.log10(5 * np.median(error[good]))
    return snr, depth, gain


def _record(judged: _Judged, n: int, scene: Scene, origin: Array, scale: float, known_scale: bool) -> Certificate:
    """The certificate in the caller's pixels."""
    best = judged.best
    if best is None:
        return Certificate(
            judged.verdict, sentence=f"No lens of the family makes these images. {ASSUMPTIONS}",
            hypothesis="chance_alignment", log_bayes_factor=judged.log_bayes_factor,
        )  # fmt: skip
    images, model = best.fit.images, best.fit.model
    magnification, arrival = np.full(n, np.nan), np.full(n, np.nan)
    seen = best.fit.detection >= 0
    rows = best.scene.index[best.fit.detection[seen]]
    magnification[rows], arrival[rows] = images.magnification[seen], 1.0 + np.flatnonzero(seen)
    missing, numbers = judged.missing, {
        name: np.array([getattr(place, name) for place in judged.missing], dtype=np.float64)
        for name in ("probability", "magnification", "magnitude", "magnitude_err", "snr", "depth_mag")
    }  # fmt: skip
    ellipse = np.array([place.ellipse for place in missing]).reshape(-1, 4)
    counts = np.bincount(images.kind, minlength=3)
    return Certificate(
        judged.verdict,
        best.fit.p_value,
        float(len(images.kind)),
        float(images.parity_sum),
        np.array([place.xy for place in missing]).reshape(-1, 2) / scale + origin,
        tuple(place.name for place in missing),
        model.theta_e_arcsec if known_scale else float("nan"),
        sentence(judged, scene, known_scale),
        hypothesis=best.hypothesis if judged.verdict != "inconsistent" else "chance_alignment",
        log_bayes_factor=judged.log_bayes_factor,
        n_positive=float(counts[0] + counts[2]),
        n_negative=float(counts[1]),
        image_magnification=magnification,
        image_arrival=arrival,
        missing_magnification=numbers["magnification"],
        missing_depth_mag=numbers["magnitude"] - numbers["depth_mag"],
        missing_mag_err=numbers["magnitude_err"],
        missing_ellipse_pix=np.column_stack([ellipse[:, :2] / scale, ellipse[:, 2], ellipse[:, 3] / scale]),
        missing_snr=numbers["snr"],
        missing_probability=numbers["probability"],
    )


def sentence(judged: _Judged, scene: Scene, known_scale: bool) -> str:
    """The verdict as an astronomer would write it, and what it assumes."""
    best = judged.best
    assert best is not None
    fitted, names = best.fit, [name.replace("_", " ") for name in best.names]
    counts = np.bincount(fitted.images.kind, minlength=3)
    radius = f"an Einstein radius of {fitted.model.theta_e_arcsec:.2f} arcsec" if known_scale else "unknown scale"
    outcome = {"supports": "are those of", "possible": "could be those of", "inconsistent": "are not those of"}
    text = (
        f"{len(best.scene.xy)} of {len(scene.xy)} detections {outcome[judged.verdict]} an isothermal ellipsoid with"
        f" shear and {radius} (p = {fitted.p_value:.2g}, ln of the Bayes factor against chance"
        f" {judged.log_bayes_factor:+.1f}), which makes {len(fitted.images.kind)} images"
        f" ({counts[0]} minima, {counts[1]} saddles, {counts[2]} maxima; parity sum {fitted.images.parity_sum:+d})"
    )
    text += f"; not detected: {', '.join(names)}" if names else ""
    for name, place in zip(names, judged.missing, strict=False):
        found = f"there at {place.snr:.1f} sigma" if place.snr > CONFIRMED_SNR else f"not there ({place.snr:.1f} sigma)"
        text += f"; looked for in the pixels, the image {name} is {found}" if np.isfinite(place.snr) else ""
    others = [f"{place.probability:.0%}" for place in judged.missing[len(names) :]]
    text += f"; other lenses of these images have one elsewhere ({', '.join(others)})" if others else ""
    outside = sorted(k + 1 for k in set(scene.index.tolist()) - set(best.scene.index.tolist()))  # as the report counts
    text += f"; contaminant: detection {', '.join(map(str, outside))}" if outside else ""
    text += "; a naked cusp" if best.hypothesis == "naked_cusp" else ""
    text += "; two images hardly test a lens" if len(best.scene.xy) == 2 else ""
    text += "" if np.isfinite(scene.deflector).all() else "; the deflector is not seen"
    return f"{text}. {ASSUMPTIONS}"
