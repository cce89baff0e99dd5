"""The softening Q of colour composites from pictures alone, by their noise (Lupton et al. 2004).

A composite keeps colours: plane c over the mean m of the three planes is p_c / I in flux, whatever the stretch, and
I = sinh(Q m) / Q in units of 1 / alpha. So the noise of this ratio, times I, must be the same at all brightnesses but
for photon noise, which grows with I: of all Q, one makes it so. Galaxies' structure cancels in the ratio.

The scales and alpha cannot be known: they are the flux unit of each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d
from scipy.optimize import minimize

from sim.matching.values import Findings, Value
from stages.records import FloatArray

_SECOND = np.array([1.0, -2.0, 1.0]) / np.sqrt(6.0)
_WEIGHTS = np.outer(_SECOND**2, _SECOND**2).ravel()
_FAINTEST, _WHITE = 0.1, 250  # of the mean plane; level
_QUANTUM = 1 / 255**2 / 12  # variance of a whole level
_TAIL = 4.0  # degrees of freedom of Student's t: structure and artefacts are far off
_SAMPLES, _MOST, _LEAST = 600, 30000, 3000
_BOOTSTRAPS, _BRIGHT = 10, 0.4
_Q_RANGE = (0.3, 40.0)
_UNSURE = 0.25  # a relative error beyond which Q counts as not measured
# ln Q, ln of the noise of each plane (3), ln of photon noise over sky at I = 1, ln of the rms of structure in the ratio.
_START = np.array([np.log(4.0), -3.0, -3.0, -3.0, -1.0, -4.0])
_PRIOR_MEAN, _PRIOR_RMS = np.array([1.5, -3.0, -3.0, -3.0, -1.0, -4.0]), np.array([2.0, 3.0, 3.0, 3.0, 2.0, 1.5])


@dataclass(frozen=True, eq=False)
class Softening:
    """Q and its error (68%), the number of pixels, and the curve (bins, 3): mean plane, rms of noise times I, error."""

    q: float
    error: float
    n: int
    curve: FloatArray

    @property
    def known(self) -> bool:
        """Whether the pictures tell Q at all."""
        return bool(self.error < _UNSURE * self.q)


def softening_samples(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> FloatArray:
    """(n, 15) of an (H, W, 3) picture's bright pixels: mean plane about each (9), ratios (3), their noise (3)."""
    planes = picture.transpose(2, 0, 1) / 255.0
    mean = planes.mean(axis=0)
    ratio = planes / np.maximum(mean, 1e-3)
    noise = convolve1d(convolve1d(ratio, _SECOND, 1, mode="nearest"), _SECOND, 2, mode="nearest")
    good = (mean > _FAINTEST) & (picture > 0).all(axis=2) & (picture < _WHITE).all(axis=2)
    near = np.lib.stride_tricks.sliding_window_view(good, (3, 3)).all(axis=(2, 3))
    at = np.argwhere(near) + 1
    if not len(at):
        return np.zeros((0, 15), np.float32)
    order = rng.permutation(len(at))
    bright = mean[tuple(at.T)][order] > _BRIGHT  # these are few and tell most
    at = at[np.concatenate([order[bright], order[~bright]])[:_SAMPLES]]
    y, x = at.T
    around = np.stack([mean[y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=1)
    return np.concatenate([around, ratio[:, y, x].T, noise[:, y, x].T], axis=1).astype(np.float32)


def fit_softening(samples: Sequence[FloatArray], rng: np.random.Generator) -> Softening | None:
    """Q by maximum likelihood, its error by drawing images anew; None where there are too few bright pixels."""
    kept = [s for s in samples if len(s)]
    if len(kept) < 3 or sum(map(len, kept)) < _LEAST:
        return None
    share = min(1.0, _MOST / sum(map(len, kept)))
    kept = [s[: max(1, round(share * len(s)))].astype(float) for s in (rng.permutation(s) for s in kept)]
    rows = np.concatenate(kept)
    best = min((_fit(rows, _START + (step, 0, 0, 0, 0, 0)) for step in (-1.0, 0.6)), key=lambda r: r[0])[1]
    draws = []
    for _ in range(_BOOTSTRAPS):
        drawn = np.concatenate([kept[k] for k in rng.integers(0, len(kept), len(kept))])
        draws.append(np.exp(_fit(drawn, best)[1][0]))
    return Softening(float(np.exp(best[0])), float(np.std(draws)), len(rows), _curve(rows, best))


def say_softening(found: Findings, fit: Softening | None) -> None:
    """Put Q among the values, or say that it cannot be had."""
    if fit is not None and fit.known:
        found.put("stretch_q", "all", Value(fit.q, fit.error, fit.n, "noise of colour against brightness in pictures"))
        return
    why = "too few bright pixels" if fit is None else f"{fit.q:.2g} +- {fit.error:.2g} from the pictures' noise"
    found.notes.append(f"stretch_q: not measured ({why}). Give more pictures, or --pair.")


def _fit(rows: FloatArray, start: FloatArray) -> tuple[float, FloatArray]:
    def cost(p: FloatArray) -> float:
        variance = _variance(p, rows)
        far = np.log1p(rows[:, 12:] ** 2 / (_TAIL * variance))
        prior = 0.5 * float(np.sum(((p - _PRIOR_MEAN) / _PRIOR_RMS) ** 2))
        return float(0.5 * np.log(variance).sum() + 0.5 * (_TAIL + 1) * far.sum()) + prior

    bounds = [tuple(np.log(_Q_RANGE)), *[(-9.0, 2.0)] * 3, (-6.0, 4.0), (-8.0, 0.0)]
    found = minimize(cost, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 50, "ftol": 1e-7})
    return float(found.fun), np.asarray(found.x)


def _variance(p: FloatArray, rows: FloatArray) -> FloatArray:
    """Variance (n, 3) of the ratios' second differences."""
    q, photons, structure = np.exp(p[0]), np.exp(p[4]), np.exp(2 * p[5])
    around, ratio = rows[:, :9], rows[:, 9:12]
    light = np.sinh(np.minimum(q * around, 50.0)) / q
    noise = ((1 + photons * light) / light**2) @ _WEIGHTS
    quantum = _QUANTUM * (1 / around**2) @ _WEIGHTS
    own, others = (1 - ratio / 3) ** 2, ratio**2 / 9
    plane = np.exp(2 * p[1:4])
    total = own * plane + others * (plane.sum() - plane)
    return np.asarray(noise[:, None] * total + quantum[:, None] * (own + 2 * others) + structure)


def _curve(rows: FloatArray, p: FloatArray) -> FloatArray:
    """Rms of what was seen over what the fit predicts, by brightness: 1 everywhere if the fit is right."""
    level, ratio = rows[:, 4], np.abs(rows[:, 12:] / np.sqrt(_variance(p, rows)))
    parts = np.array_split(np.argsort(level), 16)
    middle = [np.median(ratio[k]) for k in parts]
    unit = float(np.median(middle))
    return np.array([(level[k].mean(), m / unit, m / unit / np.sqrt(len(k))) for k, m in zip(parts, middle, strict=True)])
