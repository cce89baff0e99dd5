"""Every reading of a set of detections - which are images, of what lens, what is hidden - with its likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import lgamma, log

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr

from stages.counter.chance import log_chance, log_common
from stages.counter.images import KINDS
from stages.counter.lens_fit import CORE_ARCSEC, FLUX_FLOOR_MAG, Fit, magnitudes_in, solutions, unseen_centre, weighed
from stages.counter.lens_model import Array
from stages.counter.naked_cusp import COUNTS, without_fourth
from stages.counter.priors import TheoremConfig
from stages.records import FloatArray

HYPOTHESES = (
    "two_images", "three_images", "four_images", "five_images", "unresolved_pair", "image_unseen", "naked_cusp",
    "one_contaminant", "two_contaminants", "chance_alignment", "single_point",
)  # fmt: skip
MISSING_NAMES = (
    "central_demagnified",  # the maximum under the deflector
    "below_limit",
    "merging_pair_unresolved",
    "hidden_by_deflector",
    "unexplained",  # the model makes a bright image where none was detected: look there again
)
COLOUR_FLOOR_MAG = 0.15  # differential reddening and microlensing
CHANCE_MAG_SCATTER, CHANCE_COLOUR_SCATTER = 1.0, 0.5  # of unrelated points
_MERGED_FWHM, _HIDDEN_FWHM = 0.8, 0.5  # half of the images this near to another, or to the deflector, go unseen
_PAIR_ERROR_FWHM = 0.3  # where the centroid of a merged pair may lie
_UNKNOWN_LIMIT = 0.75  # mag below the faintest detection, where the depth is not known
_MOST_CONTAMINANTS = 2
_NUCLEUS, _NUCLEUS_SIGMA = 0.1, 5.0  # unrelated points that are the deflector's nucleus; how near in errors
_CENTRE_REACH = 0.25  # of the others' mean distance from the deflector: a detection nearer may be the central image
_CENTRE_CORE_ARCSEC = 0.15  # of a lens whose central image is seen
_CENTRE_SCATTER = 1.5  # mag, of the central image, which goes as the square of the core
_DIMMED = 0.1  # of bright images, those that dust, variability or microlensing hides

Look = Callable[[FloatArray], tuple[FloatArray, FloatArray]]  # places (k, 2) -> flux of a point at each, and its error


@dataclass(frozen=True, eq=False)
class Scene:
    """Detections in arcsec; `index` numbers them as the caller did.

    magnitude : (n, B) of which column 0 is compared with magnifications and the others give colours; NaN: unknown.
    limit_mag : faintest point (5 sigma) that would have been found, of column 0; NaN if unknown.
    doubt : (n,) odds that a detection is no point, by the confidence it came with.
    """

    xy: Array
    error: Array
    magnitude: Array
    magnitude_err: Array
    index: npt.NDArray[np.int64]
    deflector: Array
    deflector_error: float
    fwhm: float
    limit_mag: float
    doubt: Array

    def only(self, keep: npt.ArrayLike) -> Scene:
        """Keep some detections."""
        k = np.asarray(keep, dtype=np.int64)
        names = ("xy", "error", "magnitude", "magnitude_err", "index", "doubt")
        return replace(self, **{name: getattr(self, name)[k] for name in names})

    @property
    def centre(self) -> tuple[Array, float]:
        """Centre and its error: the deflector's, or what the detections suggest."""
        if np.isfinite(self.deflector).all():
            return self.deflector, self.deflector_error
        return unseen_centre(self.xy)


@dataclass(frozen=True, eq=False)
class Reading:
    """One lens made to explain some of the detections.

    log_likelihood : of all detections, contaminants and priors of this reading included; compare with `log_by_chance`.
    missing : (m,) indices of the model's images without a detection; names, unseen : m names and probabilities of
        going unseen; missing_mag : (m,) predicted magnitudes, NaN where no detection has one.
    """

    hypothesis: str
    scene: Scene
    fit: Fit
    log_likelihood: float
    missing: npt.NDArray[np.int64]
    names: tuple[str, ...]
    unseen: Array
    missing_mag: Array


def log_by_chance(scene: Scene) -> float:
    """Log likelihood that all detections are unrelated."""
    out = _log_unrelated(scene.xy, scene.deflector, scene.deflector_error, *scene.centre)
    out += float(log_common(scene.magnitude[:, 0], np.hypot(scene.magnitude_err[:, 0], CHANCE_MAG_SCATTER)))
    return out + _colours(scene, np.full(len(scene.xy), CHANCE_COLOUR_SCATTER))


def readings(scene: Scene, prior: TheoremConfig) -> list[Reading]:
    """Every reading of the detections as images of one lens, best first."""
    out: list[Reading] = []
    n = len(scene.xy)
    for size in range(min(n, 5), 1, -1):
        if n - size > max(_MOST_CONTAMINANTS, n - 4):
            continue
        for subset in combinations(range(n), size):
            for variant, log_prior, core in _variants(scene.only(subset), prior, size == n):
                fits = solutions(variant.xy, variant.error, variant.deflector, variant.deflector_error, core)
                some = [_read(scene, variant, list(subset), fit, log_prior, prior) for fit in fits if fit.matched]
                if size == n == 3 and some and (best := max(some + out, key=_likelihood)) in some:
                    some += _naked_cusp(best, log_prior, prior)
                out += some
    return sorted(out, key=_likelihood, reverse=True)


def _likelihood(reading: Reading) -> float:
    return reading.log_likelihood


def _variants(scene: Scene, prior: TheoremConfig, every: bool) -> Iterator[tuple[Scene, float, float]]:
    """The images as they are, with a small core, and what else they can be where they are all.

    The central image of a large core among them; each of three a merged pair whose place is poor.
    """
    n, error = len(scene.xy), _PAIR_ERROR_FWHM * scene.fwhm
    pairs = every and n == 3 and scene.error.max() < error
    yield scene, log(1 - prior.pair_unresolved) if pairs else 0.0, CORE_ARCSEC
    for k in range(n if pairs else 0):
        poor = np.where(np.arange(n) == k, error, scene.error)
        yield replace(scene, error=poor), log(prior.pair_unresolved / n), CORE_ARCSEC
    distance = np.sort(np.hypot(*(scene.xy - scene.deflector).T))
    if every and n in (3, 5) and distance[0] < _CENTRE_REACH * distance[1:].mean():
        yield scene, 0.0, _CENTRE_CORE_ARCSEC


def _naked_cusp(best: Reading, log_prior: float, prior: TheoremConfig) -> list[Reading]:
    """A reading of three images without the fourth that the best one misses, where that one ought to be seen."""
    unseen = float(best.unseen.prod())
    fit = without_fourth(best.fit, 0.5 * unseen) if unseen < 0.5 else None
    return [] if fit is None else [_read(best.scene, best.scene, [0, 1, 2], fit, log_prior, prior)]


def _log_unrelated(xy: Array, deflector: Array, deflector_err: float, centre: Array, centre_err: float) -> float:
    """Log density of unrelated points, of which the nearest to a seen deflector may be its nucleus."""
    out = log_chance(xy, centre, centre_err)
    square = ((xy - deflector) ** 2).sum(1)
    if not square.min() < (_NUCLEUS_SIGMA * deflector_err) ** 2:
        return out
    near = int(square.argmin())
    at_centre = -0.5 * square[near] / deflector_err**2 - log(2 * np.pi * deflector_err**2)
    rest = log_chance(np.delete(xy, near, 0), centre, centre_err)
    return float(np.logaddexp(log(1 - _NUCLEUS) + out, log(_NUCLEUS) + at_centre + rest))


def _read(whole: Scene, scene: Scene, subset: list[int], fit: Fit, log_prior: float, prior: TheoremConfig) -> Reading:
    """Likelihood of one solution: places, brightnesses, colours, what is unseen, and the contaminants."""
    n, k = len(whole.xy), len(whole.xy) - len(subset)
    missing, names, unseen, mag, apparent = unseen_images(scene, fit, prior)
    out = log_prior + fit.log_evidence + float(np.log(unseen).sum())
    rest = [i for i in range(n) if i not in subset]
    out += float(np.log(prior.contaminants + whole.doubt[rest]).sum()) - prior.contaminants - lgamma(k + 1)
    rows, magnified = magnitudes_in(fit)
    seen = fit.detection >= 0
    own = np.empty(len(subset))
    own[fit.detection[seen]] = -2.5 * np.log10(np.abs(fit.images.magnification[seen]))
    magnified = magnified + (apparent - own)  # light of images merged with the detections
    offset, scatter = np.empty((len(magnified), n)), np.full(n, CHANCE_MAG_SCATTER)
    offset[:, subset], offset[:, rest], scatter[subset] = magnified, magnified.mean(1)[:, None], FLUX_FLOOR_MAG
    centre = [subset[d] for d in fit.detection[fit.images.kind == KINDS.index("maximum")] if d >= 0]
    if centre:
        scatter[centre] = _CENTRE_SCATTER
        out += len(centre) * log(prior.centre_seen)
    fit = weighed(fit, rows, log_common(whole.magnitude[:, 0] - offset, np.hypot(whole.magnitude_err[:, 0], scatter)))
    out += fit.log_fluxes
    floor = np.full(n, CHANCE_COLOUR_SCATTER)
    floor[subset] = COLOUR_FLOOR_MAG
    out += _colours(whole, floor)
    if rest:
        at = np.array([fit.model.x_arcsec, fit.model.y_arcsec])
        out += _log_unrelated(whole.xy[rest], scene.deflector, scene.deflector_error, at, scene.deflector_error)
    return Reading(_hypothesis(fit, names, k), scene, fit, out, missing, names, unseen, mag)


def unseen_images(
    scene: Scene, fit: Fit, prior: TheoremConfig
) -> tuple[npt.NDArray[np.int64], tuple[str, ...], Array, Array, Array]:
    """Unseen images (indices, names, probabilities of going unseen, magnitudes), and the detections' magnifications.

    The last, (n,), is in magnitudes, -2.5 log10 |mu|, light of images merged with a detection included.
    """
    images = fit.images
    brightness = np.abs(images.magnification)
    missing = np.flatnonzero(fit.detection < 0)
    seen = np.flatnonzero(fit.detection >= 0)
    distance = np.hypot(*(images.xy_arcsec[missing, None] - images.xy_arcsec[None, seen]).transpose(2, 0, 1))
    near = distance.min(1, initial=np.inf)
    merged = 1.0 / (1.0 + (near / (_MERGED_FWHM * scene.fwhm)) ** 8)
    from_centre = np.hypot(*(images.xy_arcsec[missing] - (fit.model.x_arcsec, fit.model.y_arcsec)).T)
    total = brightness[seen].copy()
    for row, m in enumerate(missing):
        total[distance[row].argmin()] += merged[row] * brightness[m]
    apparent = np.empty(len(seen))
    apparent[fit.detection[seen]] = -2.5 * np.log10(total)
    zero = scene.magnitude[:, 0] - apparent
    known = bool(np.isfinite(zero).any())
    zero_point = float(np.nanmedian(zero)) if known else 0.0
    faintest = float(np.nanmax(scene.magnitude[:, 0])) if known else float(apparent.max())
    limit = scene.limit_mag if known and np.isfinite(scene.limit_mag) else faintest + _UNKNOWN_LIMIT
    mag = zero_point - 2.5 * np.log10(np.maximum(brightness[missing], 1e-12))
    centre = images.kind[missing] == KINDS.index("maximum")
    reach = np.where(centre, 1.0, _HIDDEN_FWHM) * scene.fwhm
    hidden = 1.0 / (1.0 + (from_centre / reach) ** 8)
    faint = ndtr((mag - limit) / FLUX_FLOOR_MAG)
    chances = np.stack([faint, merged, hidden, np.full(len(missing), prior.detector_miss)])
    names = tuple(_name(chances[:, k], bool(centre[k])) for k in range(len(missing)))
    return missing, names, 1 - np.prod(1 - chances, axis=0), np.where(known, mag, np.nan), apparent


def _name(chance: Array, is_maximum: bool) -> str:
    """Why an image is not seen: the likeliest reason, if any is better than even."""
    faint, merged, hidden, _ = chance
    if is_maximum and max(faint, hidden) > 0.5:
        return "central_demagnified" if faint > 0.5 else "hidden_by_deflector"
    best = int(np.argmax((faint, merged, hidden)))
    reason = ("below_limit", "merging_pair_unresolved", "hidden_by_deflector")[best]
    return reason if chance[best] > 0.5 else "unexplained"


def _hypothesis(fit: Fit, names: tuple[str, ...], contaminants: int) -> str:
    """The name of what a reading says."""
    minima, saddles, maxima = np.bincount(fit.images.kind, minlength=3)
    if contaminants:
        return "one_contaminant" if contaminants == 1 else "two_contaminants"
    if (minima, saddles, maxima) == COUNTS:
        return "naked_cusp"
    if "merging_pair_unresolved" in names:
        return "unresolved_pair"
    if set(names) - {"central_demagnified"} and (fit.detection[fit.images.kind < 2] >= 0).sum() < minima + saddles:
        return "image_unseen"
    seen = {2: "two_images", 3: "three_images", 4: "four_images"}
    return seen.get(int((fit.detection >= 0).sum()), "five_images")


def _colours(scene: Scene, floor: Array) -> float:
    """Log likelihood that the detections share their colours to within a floor (n,)."""
    out = 0.0
    for band in range(1, scene.magnitude.shape[1]):
        colour = scene.magnitude[:, band] - scene.magnitude[:, 0]
        error = np.sqrt(scene.magnitude_err[:, band] ** 2 + scene.magnitude_err[:, 0] ** 2 + floor**2)
        out += float(log_common(colour, error))
    return out


def log_look(
    flux: FloatArray, flux_err: FloatArray, predicted: float | FloatArray, chance_of_something: float = 0.05
) -> Array:
    """Log likelihood ratios (n,), lens to chance, of fluxes measured where a model puts an image of a predicted flux.

    The prediction is log-normal with `FLUX_FLOOR_MAG`, and dimmed beyond that one time in ten; without a lens there is
    nothing, or sometimes something of any brightness above the noise. Where nothing could be measured they are 0.
    """
    out = np.zeros(len(flux))
    wanted = np.broadcast_to(np.asarray(predicted, dtype=np.float64), flux.shape)
    known = np.isfinite(flux) & (flux_err > 0) & (wanted > 0)
    measured, error = flux[known, None], flux_err[known, None]
    z = np.linspace(-3, 3, 61)
    grid = wanted[known, None] * 10 ** (-0.4 * FLUX_FLOOR_MAG * z)
    there = logsumexp(-0.5 * (z**2 + ((measured - grid) / error) ** 2), axis=1) - logsumexp(-0.5 * z**2)
    any_flux = error * 10 ** np.linspace(0, 2.5, 61)
    else_there = logsumexp(-0.5 * ((measured - any_flux) / error) ** 2, axis=1) - np.log(61)
    nothing = (-0.5 * (measured / error) ** 2)[:, 0]
    chance = np.logaddexp(np.log(1 - chance_of_something) + nothing, np.log(chance_of_something) + else_there)
    out[known] = np.logaddexp(np.log(1 - _DIMMED) + there, np.log(_DIMMED) + nothing) - chance
    return out
