"""Places where an image that was not detected may be, over all lenses and all readings of the detections.

The best reading's lens is one of many: the deflector may be unseen, one of the detections may be no image, and the
fourth image of three is a minimum in some lenses, a saddle in others. So the lenses that two or three images allow are
drawn (`stages.counter.sampling`), each with all its images and weighed by what it leaves unseen and by what the pixels
show there; lenses of four and more images are their fits. What they miss is gathered into places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from stages.counter.chance import log_common
from stages.counter.hypotheses import Look, Reading, Scene, log_look, unseen_images
from stages.counter.images import KINDS, all_images
from stages.counter.lens_fit import CORE_ARCSEC, FLUX_FLOOR_MAG, Fit
from stages.counter.lens_model import Array, LensModel
from stages.counter.prediction import (
    ellipse_about,
    in_ellipse,
    in_other_lenses,
    magnitude_error,
    quantile,
    search_ellipse,
)
from stages.counter.priors import TheoremConfig
from stages.counter.sampling import lenses_of

LEAST_PROBABILITY = 0.1  # of a place that is told
APART_FWHM = 0.7  # of places looked at from what is known
_MOST_LENSES = 64  # drawn of each set of images
_MOST_DRAWN = 3  # images whose lenses are drawn; more leave too few good ones
_LEAST_LENSES = 6  # that agree, for a place
_OFF = 6.0  # errors by which a drawn lens may miss a detection
_CENTRE = KINDS.index("maximum")


@dataclass(frozen=True, eq=False)
class Place:
    """Where an image may be, arcsec, that was not detected.

    ellipse : see `ellipse_about`; name : why it is not seen; probability : that it is there, if a lens it is;
    magnification : signed; magnitude and its error; snr, depth_mag : of what the pixels show there, NaN where not
    looked.
    """

    xy: Array
    ellipse: Array
    name: str
    probability: float
    magnification: float
    magnitude: float
    magnitude_err: float
    snr: float
    depth_mag: float


@dataclass(frozen=True, eq=False)
class _Missed:
    """One image missed in one lens."""

    xy: Array
    saddle: bool
    name: str
    weight: float
    magnification: float
    magnitude: float
    snr: float
    depth_mag: float


def missing_images(
    best: Reading,
    snr: Array,
    depth_mag: Array,
    known: list[Reading],
    shares: Array,
    look: Look | None,
    prior: TheoremConfig,
) -> list[Place]:
    """The best reading's missing images, in its order, then the other places where one may be, likeliest first.

    snr, depth_mag : of the pixels where the best reading has its missing images; known, shares : all readings and their
    parts of the whole, which sum to 1.
    """
    fit, out, left = best.fit, [], places(known, shares, look, prior)
    central = [bool((r.fit.images.kind[r.missing] == _CENTRE).any()) for r in known]
    for k, image in enumerate(best.missing):
        xy, is_central = fit.images.xy_arcsec[image], bool(fit.images.kind[image] == _CENTRE)
        here = [p for p in left if not is_central and in_ellipse(xy - p.xy, p.ellipse)]
        if here:
            left.remove(here[0])
            found = replace(here[0], name=best.names[k], snr=np.fmax(here[0].snr, snr[k]))
        else:
            share = (
                min(float(shares[central].sum()), 1.0)
                if is_central
                else float(shares[[r is best for r in known]].sum())
            )
            error = float(np.hypot(magnitude_error(fit, int(image)), FLUX_FLOOR_MAG))
            found = Place(
                xy, search_ellipse(fit, int(image)), best.names[k], share, float(fit.images.magnification[image]),
                float(best.missing_mag[k]), error, float(snr[k]), float(depth_mag[k]),
            )  # fmt: skip
        out.append(replace(found, depth_mag=found.depth_mag if np.isfinite(found.depth_mag) else float(depth_mag[k])))
    limit = best.scene.limit_mag
    return out + [replace(p, depth_mag=p.depth_mag if np.isfinite(p.depth_mag) else limit) for p in left]


def places(known: list[Reading], shares: Array, look: Look | None, prior: TheoremConfig) -> list[Place]:
    """Places outside the centre, likeliest first, from readings and their shares (n,), which sum to 1."""
    gathered: list[list[_Missed]] = []
    for share, missed in _sets(known, shares, look, prior):
        for kind in (False, True):
            some = [replace(m, weight=share * m.weight) for m in missed if m.saddle == kind]
            if len(some) >= _LEAST_LENSES:
                gathered.append(some)
    gathered.sort(key=lambda some: -sum(m.weight for m in some))
    out: list[tuple[list[_Missed], Place]] = []
    for some in gathered:
        here = _place(some)
        k = next(
            (
                k
                for k, (_, other) in enumerate(out)
                if in_ellipse(here.xy - other.xy, other.ellipse) or in_ellipse(other.xy - here.xy, here.ellipse)
            ),
            None,
        )
        if k is None:
            out.append((some, here))
        else:
            out[k] = (out[k][0] + some, _place(out[k][0] + some))
    found = [place for _, place in out if place.probability > LEAST_PROBABILITY]
    return sorted(found, key=lambda place: -place.probability)


def _sets(
    known: list[Reading], shares: Array, look: Look | None, prior: TheoremConfig
) -> Iterator[tuple[float, list[_Missed]]]:
    """Sets of detections taken for images: their share, and what their lenses miss, by weights that sum to 1."""
    sets: dict[tuple[int, ...], list[int]] = {}
    for k, reading in enumerate(known):
        sets.setdefault(tuple(reading.scene.index.tolist()), []).append(k)
    for rows in sets.values():
        share, outside = float(shares[rows].sum()), [k for k in rows if _misses(known[k])]
        if float(shares[outside].sum()) < 0.5 * LEAST_PROBABILITY:
            continue
        best = known[max(rows, key=lambda k: shares[k])]
        drawn = _drawn(best, look, prior) if len(best.scene.xy) <= _MOST_DRAWN else []
        yield share, drawn or [m for k in outside for m in _fitted(known[k], float(shares[k]) / share)]


def _misses(reading: Reading) -> bool:
    """Whether a reading's lens has an image outside the centre that was not detected."""
    return bool((reading.fit.images.kind[reading.missing] != _CENTRE).any())


def _fitted(reading: Reading, weight: float) -> list[_Missed]:
    """What a fitted lens misses, in the lenses of its posterior."""
    out = []
    for image, name, mag in zip(reading.missing, reading.names, reading.missing_mag, strict=True):
        if reading.fit.images.kind[image] == _CENTRE:
            continue
        found, share = in_other_lenses(reading.fit, int(image))
        brightness = abs(float(reading.fit.images.magnification[image]))
        for (x, y, det), part in zip(found, share / max(share.sum(), 1e-30), strict=True):
            fainter = mag + 2.5 * np.log10(abs(det) * brightness)
            out.append(_Missed(np.array([x, y]), det < 0, name, weight * part, 1 / det, fainter, np.nan, np.nan))
    return out


def _drawn(reading: Reading, look: Look | None, prior: TheoremConfig) -> list[_Missed]:
    """What the lenses miss that a reading's detections allow."""
    scene, (centre, centre_err) = reading.scene, reading.scene.centre
    magnitude, scatter = scene.magnitude[:, 0], np.hypot(scene.magnitude_err[:, 0], FLUX_FLOOR_MAG)
    lenses, times, counted = lenses_of(
        scene.xy, scene.error, centre, centre_err, magnitude, scatter, CORE_ARCSEC, _MOST_LENSES
    )
    logs, missed = [], []
    for lens, often, fluxes in zip(lenses, times, counted, strict=True):
        fit = _as_fit(scene, lens, reading.fit)
        if fit is not None:
            missing, names, unseen, mag, apparent = unseen_images(scene, fit, prior)
            exact = float(log_common(magnitude - apparent, scatter))
            logs.append(float(np.log(often)) + exact - fluxes + float(np.log(unseen).sum()))
            outside = np.flatnonzero(fit.images.kind[missing] != _CENTRE)
            missed.append([_Row(len(logs) - 1, fit, int(missing[k]), names[k], unseen[k], mag[k]) for k in outside])
    if not logs:
        return []
    rows = [row for some in missed for row in some]
    gain, snr, depth = _looked(scene, rows, look)
    log_weight = np.array(logs)
    np.add.at(log_weight, [row.lens for row in rows], gain)
    weight = np.exp(log_weight - logsumexp(log_weight))
    return [
        _Missed(
            row.xy, row.saddle, row.name, float(weight[row.lens]), row.magnification, row.magnitude, snr[k], depth[k]
        )
        for k, row in enumerate(rows)
    ]


@dataclass(frozen=True, eq=False)
class _Row:
    """An image that a drawn lens misses."""

    lens: int
    fit: Fit
    image: int
    name: str
    unseen: float
    magnitude: float

    @property
    def xy(self) -> Array:
        return np.asarray(self.fit.images.xy_arcsec[self.image])

    @property
    def saddle(self) -> bool:
        return bool(self.fit.images.kind[self.image] == 1)

    @property
    def magnification(self) -> float:
        return float(self.fit.images.magnification[self.image])


def _as_fit(scene: Scene, lens: Array, like: Fit) -> Fit | None:
    """A drawn lens with its images, if each detection is one of its own."""
    theta_e, e1, e2, gamma1, gamma2, x, y = lens[:7].tolist()
    model = LensModel(theta_e, e1, e2, gamma1, gamma2, x, y, CORE_ARCSEC)
    images = all_images(model, lens[7:9])
    distance = np.hypot(*(images.xy_arcsec[:, None] - scene.xy[None]).transpose(2, 0, 1))
    nearest = distance.argmin(0)
    if len(set(nearest.tolist())) < len(scene.xy) or (distance.min(0) > _OFF * scene.error).any():
        return None
    detection = np.full(len(images.kind), -1)
    detection[nearest] = np.arange(len(scene.xy))
    return replace(like, model=model, source_xy_arcsec=lens[7:9], images=images, detection=detection)


def _looked(scene: Scene, rows: list[_Row], look: Look | None) -> tuple[Array, Array, Array]:
    """What looking at missed images adds to the logs of their lenses' weights, S/N and depth in mag, each (n,).

    Light that is there adds no more than its being possible: few lenses put an image on the very pixel, and these few
    would be all that counts.
    """
    gain, (snr, depth) = np.zeros(len(rows)), np.full((2, len(rows)), np.nan)
    if look is None or not rows:
        return gain, snr, depth
    xy = np.array([row.xy for row in rows])
    mag, unseen = np.array([row.magnitude for row in rows]), np.array([row.unseen for row in rows])
    centre = np.array([(row.fit.model.x_arcsec, row.fit.model.y_arcsec) for row in rows])
    known = np.concatenate([np.broadcast_to(scene.xy, (len(rows), *scene.xy.shape)), centre[:, None]], axis=1)
    apart = (np.hypot(*(xy[:, None] - known).transpose(2, 0, 1)) > APART_FWHM * scene.fwhm).all(1)
    k = np.flatnonzero(apart & np.isfinite(mag))
    flux, error = look(xy[k]) if len(k) else (np.empty(0), np.empty(0))
    good = np.isfinite(flux) & (error > 0)
    k, flux, error = k[good], flux[good], error[good]
    gain[k] = np.minimum(log_look(flux, error, 10 ** (-0.4 * mag[k])), 0.0) - np.log(unseen[k])
    snr[k], depth[k] = flux / error, -2.5 * np.log10(5 * error)
    return gain, snr, depth


def _place(some: list[_Missed]) -> Place:
    """One place for images missed in several lenses."""
    weight, xy = np.array([m.weight for m in some]), np.array([m.xy for m in some])
    share = weight / weight.sum()
    centre = np.array([quantile(part, share, 0.5) for part in xy.T])
    words = {name: sum(m.weight for m in some if m.name == name) for name in {m.name for m in some}}
    size, mag = np.array([[abs(m.magnification), m.magnitude] for m in some]).T
    low, middle, high = (quantile(mag, share, content) for content in (0.1587, 0.5, 0.8413))
    snr, depth = np.array([(m.snr, m.depth_mag) for m in some]).T
    looked = np.isfinite(snr).any()
    sign = -1.0 if share[[m.saddle for m in some]].sum() > 0.5 else 1.0
    return Place(
        centre, ellipse_about(centre, xy, weight, _LEAST_LENSES), max(sorted(words), key=lambda name: words[name]),
        min(float(weight.sum()), 1.0), sign * quantile(size, share, 0.5), middle,
        float(np.hypot(0.5 * (high - low), FLUX_FLOOR_MAG)),
        float(np.nanmax(snr)) if looked else np.nan, float(np.nanmedian(depth)) if looked else np.nan,
    )  # fmt: skip


def _same(one: Place, other: Place) -> bool:
    """Whether either of two places lies in the 95% of the other."""
    return in_ellipse(one.xy - other.xy, other.ellipse) or in_ellipse(other.xy - one.xy, one.ellipse)
