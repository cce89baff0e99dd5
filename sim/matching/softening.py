"""The softening Q of colour composites from pictures alone, by their stars (Lupton et al. 2004).

The mean of the three planes is m = asinh(Q I) / Q, I in units of 1 / alpha. Stars have one profile, whatever their
brightness: of all Q, one makes I = sinh(Q m) / Q so that bright and faint stars are equally wide. Too small a Q leaves
bright stars broad. The index tells less, for it is the first to feel that the sky was cut at zero; and so does noise,
for that of photons grows with I as a smaller Q would have it.

The scales and alpha cannot be known: they are the flux unit of each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sep
from scipy.optimize import minimize
from scipy.special import expit

from sim.matching.curvature import curvature_errors
from sim.matching.psf import fit_moffat
from stages.records import FloatArray

_HALF, _ROUND, _WHITE = 8, 1.35, 250
_PEAK = (0.15, 0.95)  # of the mean plane
_TRIED = np.geomspace(2.5, 12.0, 6)
_FINE = np.geomspace(2.5, 12.0, 400)
_MIDDLE, LEAST, _MOST = 0.4, 60, 240
_SIGMA, _MAX_INDEX, _MAX_MISFIT, _MAX_ELLIPTICITY = 0.02, 9.5, 0.06, 0.25
_SYSTEMATIC = 0.1  # of Q: galaxies among the stars, and pictures moved after they were stretched
_UNSURE, _EDGE = 0.35, 0.2  # relative error, and likelihood at an end of the range over its greatest: Q is not known

# Logit of the stars' share; width, its slope with m, ln of its rms; ln(index - 1), slope, ln rms; the same of galaxies
# without slopes.
_PRIOR_MEAN = np.array([0.0, 0.0, 0.0, -2.0, 0.9, 0.0, -1.3, 0.0, -1.0, 0.2, -0.7])
_PRIOR_RMS = np.array([2.0, np.inf, 0.5, 0.4, 0.5, 1.0, 0.5, np.inf, 0.4, 0.5, 0.4])
_STEP = np.array([0.1, 0.01, 0.02, 0.05, 0.02, 0.05, 0.05, 0.01, 0.05, 0.02, 0.05])
_BOUNDS = [(-9.0, 9.0)] * 11


@dataclass(frozen=True, eq=False)
class Softening:
    """Q and its error (68%), the number of stars and galaxies, and the slope of width that must be nought.

    slopes : (tried, 3): Q, slope of ln FWHM with m, its error; inside : whether Q lies within what was tried.
    """

    q: float
    error: float
    n: int
    slopes: FloatArray
    inside: bool

    @property
    def known(self) -> bool:
        """Whether the pictures tell Q at all."""
        return bool(self.error < _UNSURE * self.q and self.inside)


def compact_stamps(picture: npt.NDArray[np.uint8]) -> FloatArray:
    """(n, 17, 17) of the mean plane (0 to 1) about round objects of an (H, W, 3) picture that stand alone."""
    mean = np.ascontiguousarray(picture.mean(axis=2) / 255)
    middle = float(np.median(mean))
    spread = float(np.percentile(mean, 84)) - middle
    found = sep.extract(mean - middle, 4, err=max(spread, 0.004), minarea=5, deblend_cont=0.005)
    apart = np.hypot(found["x"][:, None] - found["x"], found["y"][:, None] - found["y"]) + 1e9 * np.eye(len(found))
    rival = (apart < 1.5 * _HALF) & (found["peak"] > 0.15 * found["peak"][:, None])
    rows, columns = mean.shape
    out = []
    for k in np.flatnonzero((found["a"] < _ROUND * found["b"]) & ~rival.any(axis=1)):
        x, y = round(float(found["x"][k])), round(float(found["y"][k]))
        if min(x, y, columns - 1 - x, rows - 1 - y) < _HALF:
            continue
        part = (slice(y - _HALF, y + _HALF + 1), slice(x - _HALF, x + _HALF + 1))
        if not (picture[part] >= _WHITE).any() and _PEAK[0] < mean[part].max() < _PEAK[1]:
            out.append(mean[part])
    return np.array(out, np.float32).reshape(-1, 2 * _HALF + 1, 2 * _HALF + 1)


def fit_softening(stamps: Sequence[FloatArray], rng: np.random.Generator) -> Softening | None:
    """Q by width of stars against brightness; None where there are too few of them."""
    every = np.concatenate([s for s in stamps if len(s)]) if any(len(s) for s in stamps) else np.zeros((0, 1, 1))
    if len(every) < LEAST:
        return None
    every = every[rng.permutation(len(every))[:_MOST]].astype(float)
    slopes = np.array([(q, *_slope(_shapes(every, q))) for q in _TRIED])
    away = np.interp(np.log(_FINE), np.log(_TRIED), slopes[:, 1] / slopes[:, 2])
    weight = np.exp(-0.5 * (away**2 - (away**2).min()))
    q = float(np.average(_FINE, weights=weight))
    error = float(np.sqrt(np.average((_FINE - q) ** 2, weights=weight)))
    inside = bool(max(weight[0], weight[-1]) < _EDGE)
    return Softening(q, float(np.hypot(error, _SYSTEMATIC * q)), len(every), slopes, inside)


def _shapes(stamps: FloatArray, q: float) -> FloatArray:
    """(n, 3): brightest level, ln FWHM in pixels, ln(index - 1) of stamps in flux by one Q."""
    rows = []
    for stamp in stamps:
        fit = fit_moffat(np.sinh(q * stamp) / q, np.ones(stamp.shape, bool), _SIGMA)
        if fit is None or fit.misfit > _MAX_MISFIT or fit.beta > _MAX_INDEX or fit.snr < 5:
            continue
        if np.hypot(fit.e1, fit.e2) < _MAX_ELLIPTICITY:
            rows.append((stamp.max(), np.log(fit.fwhm), np.log(fit.beta - 1)))
    return np.array(rows, float).reshape(-1, 3)


def _slope(rows: FloatArray) -> tuple[float, float]:
    """Slope of the stars' ln FWHM with brightness and its error, by a mixture with galaxies; (0, 1e9): too few."""
    if len(rows) < LEAST // 2:
        return 0.0, 1e9
    starts = []
    for at in np.quantile(rows[:, 1], (0.15, 0.3, 0.5)):
        start = _PRIOR_MEAN.copy()
        start[1], start[7] = at, at + 0.3
        starts.append(minimize(_cost, start, (rows,), method="L-BFGS-B", bounds=_BOUNDS, options={"maxiter": 200}))
    best = min(starts, key=lambda r: float(r.fun))
    error = float(curvature_errors(lambda p: _cost(p, rows), best.x, _STEP)[2])
    return float(best.x[2]), error if np.isfinite(error) else 1e9


def _cost(p: FloatArray, rows: FloatArray) -> float:
    """Minus the log likelihood of the mixture, with weak priors."""
    beyond = rows[:, 0] - _MIDDLE
    star = _normal(rows[:, 1] - p[1] - p[2] * beyond, p[3]) + _normal(rows[:, 2] - p[4] - p[5] * beyond, p[6])
    galaxy = _normal(rows[:, 1] - p[7], p[8]) + _normal(rows[:, 2] - p[9], p[10])
    share = np.clip(expit(p[0]), 1e-9, 1 - 1e-9)
    prior = 0.5 * float(np.sum(((p - _PRIOR_MEAN) / _PRIOR_RMS) ** 2))
    return prior - float(np.logaddexp(np.log(share) + star, np.log1p(-share) + galaxy).sum())


def _normal(x: FloatArray, log_rms: float) -> FloatArray:
    return np.asarray(-0.5 * (x / np.exp(log_rms)) ** 2 - log_rms)
