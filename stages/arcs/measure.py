"""From an arc mask to numbers: the arcs and counter-images, the ring they lie on, their signal and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from stages.polar import N_ANGLES
from stages.records import Arc, BoolArray, FloatArray

THRESHOLD = 0.5  # a pixel more likely lensed than not
_STEP_RAD = 2 * np.pi / N_ANGLES
_LEAST_AREA_PIX = 4.0  # smaller specks are no arcs
_OPPOSITE_DEG = 110.0  # a counter-image lies across the deflector from its arc
_PRIOR_SHARE = 0.1  # of its radius by which a ring is shifted from its deflector, and flattened
_MOST_FLATTENED = 0.6  # an axis ratio of a quarter
_RIDGE_ERR_PIX = 0.7  # of the middle of an arc in one direction
_MAX_MAG = 10.0
_COLOUR_ERR_MAG = 0.7  # of what is left of the galaxy in the mask, on simulations of seed 79; noise adds to it


@dataclass(frozen=True)
class Ring:
    """The ellipse on which arcs lie, in grid pixels and degrees; NaN where there is nothing to fit.

    dx, dy : its centre from the deflector; err : of either; angle_deg : of its long axis from +x to +y.
    """

    radius: float = float("nan")
    dx: float = float("nan")
    dy: float = float("nan")
    err: float = float("nan")
    axis_ratio: float = float("nan")
    axis_ratio_err: float = float("nan")
    angle_deg: float = float("nan")


def find_arcs(mask: FloatArray, pixel_arcsec: float) -> list[Arc]:
    """The unbroken pieces of a polar mask (R, T), largest first.

    What lies across the deflector from the largest and nearer to it is its counter-image. Lengths are along the
    circles, widths area over length, both as seen: the PSF is not taken out.
    """
    pieces = _pieces(mask > THRESHOLD)
    radius = np.arange(mask.shape[0])[:, None] + 0.5
    found: list[tuple[float, Arc]] = []
    for piece in pieces:
        area = float((piece * radius).sum() * _STEP_RAD)
        if area < _LEAST_AREA_PIX:
            continue
        light = np.where(piece, mask, 0.0)
        columns = np.flatnonzero(piece.any(axis=0))
        ridge = (light * radius).sum(axis=0)[columns] / light.sum(axis=0)[columns]
        length = float(ridge.sum()) * _STEP_RAD
        towards = np.angle((light.sum(axis=0) * np.exp(1j * _STEP_RAD * np.arange(mask.shape[1]))).sum())
        arc = Arc(
            float((light * radius).sum() / light.sum()) * pixel_arcsec, float(np.degrees(towards)) % 360.0,
            360.0 * len(columns) / mask.shape[1], length * pixel_arcsec, area / length * pixel_arcsec, False,
        )  # fmt: skip
        found.append((area, arc))
    found.sort(key=lambda pair: -pair[0])
    arcs = [arc for _, arc in found]
    return [arc if k == 0 else _judged(arc, arcs[0]) for k, arc in enumerate(arcs)]


def fit_ring(mask: FloatArray) -> Ring:
    """The ellipse through the middle of a polar mask (R, T) in every direction that it covers.

    Least squares of r = R + dx cos a + dy sin a + c cos 2a + s sin 2a, valid for small shifts and ellipticities, which
    are pulled towards none by `_PRIOR_SHARE`: a short arc says little of them, and its errors say so.
    """
    light = np.where(mask > THRESHOLD, mask, 0.0)
    total = light.sum(axis=0)
    columns = np.flatnonzero(total > 0)
    if not len(columns):
        return Ring()
    radius = np.arange(mask.shape[0])[:, None] + 0.5
    ridge = (light * radius).sum(axis=0)[columns] / total[columns]
    angle = _STEP_RAD * columns
    terms = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], 1)
    size = float(np.median(ridge))
    shrink = np.diag([0.0, *[1 / (_PRIOR_SHARE * size) ** 2] * 4])
    covariance = np.linalg.inv(terms.T @ terms / _RIDGE_ERR_PIX**2 + shrink)
    best = covariance @ terms.T @ ridge / _RIDGE_ERR_PIX**2
    error = np.sqrt(np.diag(covariance))
    flattening = min(float(np.hypot(best[3], best[4]) / best[0]), _MOST_FLATTENED)
    ratio = (1 - flattening) / (1 + flattening)
    return Ring(
        float(best[0]), float(best[1]), float(best[2]), float(np.hypot(error[1], error[2]) / np.sqrt(2)), ratio,
        float(2 * np.hypot(error[3], error[4]) / np.sqrt(2) / best[0]),
        float(np.degrees(0.5 * np.arctan2(best[4], best[3]))) % 180.0,
    )  # fmt: skip


def signal(lensed: FloatArray, valid: BoolArray, mask: BoolArray, independent: float) -> float:
    """Signal to noise of flux (3, S, S) in units of its noise within a mask (S, S), in the best slot.

    independent : independent noise values per grid pixel (below one where the grid is finer than the image's pixels).
    """
    inside = valid & mask
    count = inside.sum(axis=(1, 2))
    if not count.any():
        return 0.0
    total = (lensed * inside).sum(axis=(1, 2))
    return float(np.max(total * np.sqrt(independent) / np.sqrt(np.maximum(count, 1)), initial=0.0))


def colour(
    lensed: FloatArray, galaxy: FloatArray, valid: BoolArray, mask: BoolArray, core: BoolArray, independent: float
) -> tuple[float, float]:
    """Bluest less reddest magnitude of the arcs, less the deflector's, and its error; NaN: unknown.

    lensed, galaxy : (3, S, S) flux in units of each slot's noise, which cancels; mask, core : (S, S) where the arcs and
    the deflector's light are summed. Negative: the arcs are bluer.
    """
    nan = float("nan")
    slots = np.flatnonzero(valid.any(axis=(1, 2)))
    if len(slots) < 2:
        return nan, nan
    ends = slots[[0, -1]]
    both = valid[ends].all(axis=0)
    arc, below = (np.array([(p[k] * (both & where)).sum() for k in ends])
                  for p, where in ((lensed, mask), (galaxy, core)))  # fmt: skip
    noise = np.sqrt((both & mask).sum() / independent)
    if (arc <= noise).any() or (below <= 0).any():
        return nan, nan
    magnitude = -2.5 * np.log10(arc[0] / arc[1] * below[1] / below[0])
    error = float(np.hypot(1.0857 * np.hypot(*(noise / arc)), _COLOUR_ERR_MAG))
    return float(np.clip(magnitude, -_MAX_MAG, _MAX_MAG)), error


def _pieces(inside: BoolArray) -> list[BoolArray]:
    """Connected pieces of a polar mask (R, T), across the seam too."""
    number, count = label(inside, np.ones((3, 3)))
    if not count:
        return []
    names: npt.NDArray[np.intp] = np.arange(count + 1)
    first, last = np.pad(number[:, 0], 1), number[:, -1]
    for shift in (0, 1, 2):
        beside = first[shift : shift + len(last)]
        for a, b in zip(beside[(beside > 0) & (last > 0)], last[(beside > 0) & (last > 0)], strict=True):
            names[names == names[b]] = names[a]
    joined = names[number]
    return [joined == k for k in np.unique(names[1:])]


def _judged(arc: Arc, main: Arc) -> Arc:
    apart = abs((arc.angle_deg - main.angle_deg + 180.0) % 360.0 - 180.0)
    counter = apart >= _OPPOSITE_DEG and arc.radius_arcsec <= main.radius_arcsec
    return Arc(**{**vars(arc), "is_counter_image": counter})
