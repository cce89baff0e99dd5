"""Images that no survey delivers, made of ones that it does: which of them are called out of domain?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from stages.classifier.predict import Predictor
from stages.records import Cutout, FloatArray

_SIGMAS, _SPOTS, _COARSER = 20.0, 0.03, 5.0


def _noise(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    return _with(cutout, _sigma(cutout) * rng.normal(size=cutout.flux.shape))


def _blank(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    return _with(cutout, np.zeros(cutout.flux.shape))


def _negative(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    return _with(cutout, -cutout.flux)


def _stripes(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    wave = np.sin(0.5 * np.arange(cutout.flux.shape[2]))
    return _with(cutout, _SIGMAS * _sigma(cutout) * wave + _noise(cutout, rng).flux)


def _spots(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    hit = rng.random(cutout.flux.shape[1:]) < _SPOTS
    return _with(cutout, cutout.flux + 50 * _SIGMAS * _sigma(cutout) * hit)


def _shuffled(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    order = rng.permutation(cutout.flux[0].size)
    return _with(cutout, cutout.flux.reshape(len(cutout.flux), -1)[:, order].reshape(cutout.flux.shape))


def _coarse(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    return replace(cutout, pixel_scale_arcsec=_COARSER * cutout.pixel_scale_arcsec)


STRANGE: dict[str, Callable[[Cutout, np.random.Generator], Cutout]] = {
    "noise": _noise, "blank": _blank, "negative": _negative, "stripes": _stripes, "spots": _spots,
    "shuffled": _shuffled, "coarse_pixels": _coarse,
}  # fmt: skip


def unlike(predictor: Predictor, cutouts: Sequence[Cutout]) -> dict[str, float]:
    """Share out of domain of cutouts as they are, and of each kind of `STRANGE` ones made of them."""
    rng = np.random.default_rng(0)
    seen = {"as_is": list(cutouts)} | {name: [make(c, rng) for c in cutouts] for name, make in STRANGE.items()}
    return {f"unlike_{name}": float(predictor.predict(some).out_of_domain.mean()) for name, some in seen.items()}


def _sigma(cutout: Cutout) -> FloatArray:
    """Noise (B, 1, 1) of each band by the median deviation of its pixels."""
    flux = np.where(cutout.valid, cutout.flux, np.nan)
    middle = np.nanmedian(flux, axis=(1, 2), keepdims=True)
    return np.asarray(1.4826 * np.nanmedian(np.abs(flux - middle), axis=(1, 2), keepdims=True))


def _with(cutout: Cutout, flux: FloatArray) -> Cutout:
    return replace(cutout, flux=flux.astype(np.float32))
