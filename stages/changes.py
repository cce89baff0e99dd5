"""The same object seen otherwise: turned, at another pixel scale, with a band less, or with masked pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from stages.records import Cutout
from stages.scaling import resample, slots
from stages.training import N_DIHEDRAL, dihedral

_PIXEL_FACTOR = 1.4  # coarser pixels, as another camera has
_MASKED_SHARE = 0.1
_BLOCK_PIX = 4
Change = Callable[[Cutout, np.random.Generator], Cutout | None]


def turned(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """One of the seven other rotations and reflections."""
    k = int(rng.integers(1, N_DIHEDRAL))
    flux, variance, valid = (
        dihedral(torch.from_numpy(a), k).numpy().copy() for a in (cutout.flux, cutout.variance, cutout.valid)
    )
    y, x = np.indices(cutout.valid.shape[-2:], float)
    before = np.stack(
        [dihedral(torch.from_numpy(a.copy()), k).numpy().ravel() for a in (x, y, np.ones_like(x))], axis=1
    )
    now = np.stack([a.ravel() for a in np.indices(valid.shape[-2:], float)[::-1]], axis=1)
    at = np.array([*cutout.xy_pix, 1.0]) @ np.linalg.lstsq(before, now, rcond=None)[0]
    return replace(cutout, flux=flux, variance=variance, valid=valid, xy_pix=at)


def rescaled(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """The same pixels averaged to others, 1.4 times as large."""
    size = int(min(cutout.valid.shape[-2:]) / _PIXEL_FACTOR)
    origin = cutout.xy_pix - _PIXEL_FACTOR * (size - 1) / 2
    flux, share = resample(cutout.flux, cutout.valid, size, origin, _PIXEL_FACTOR)
    variance, _ = resample(cutout.variance, cutout.valid, size, origin, _PIXEL_FACTOR)
    centre = np.full(2, (size - 1) / 2)
    shrunk = variance / _PIXEL_FACTOR**2  # noise of an average of that many pixels
    return replace(
        cutout, flux=flux, variance=shrunk, valid=share > 0.5, xy_pix=centre,
        pixel_scale_arcsec=cutout.pixel_scale_arcsec * _PIXEL_FACTOR,
    )  # fmt: skip


def band_less(cutout: Cutout, rng: np.random.Generator) -> Cutout | None:
    """All bands but one; None where there is only one."""
    if len(cutout.bands) < 2:
        return None
    return with_bands(cutout, np.delete(np.arange(len(cutout.bands)), int(rng.integers(len(cutout.bands)))))


def one_band(cutout: Cutout) -> Cutout:
    """The band of the middle colour slot alone, or the first where that has none."""
    return with_bands(cutout, np.array([max(slots(cutout.bands)[1], 0)]))


def with_bands(cutout: Cutout, keep: npt.NDArray[np.intp]) -> Cutout:
    """Some of a cutout's bands, by their numbers."""
    psf = cutout.psf[keep] if len(cutout.psf) == len(cutout.bands) else cutout.psf
    return replace(
        cutout, flux=cutout.flux[keep], variance=cutout.variance[keep], valid=cutout.valid[keep],
        bands=tuple(cutout.bands[k] for k in keep), psf_fwhm_arcsec=cutout.psf_fwhm_arcsec[keep], psf=psf,
    )  # fmt: skip


def masked(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """A tenth of the pixels masked in all bands, in blocks of 4 x 4."""
    height, width = cutout.valid.shape[-2:]
    blocks = rng.random((-(-height // _BLOCK_PIX), -(-width // _BLOCK_PIX))) < _MASKED_SHARE
    hole = np.kron(blocks, np.ones((_BLOCK_PIX, _BLOCK_PIX), bool))[:height, :width]
    return replace(cutout, flux=np.where(hole, np.nan, cutout.flux), valid=cutout.valid & ~hole)


CHANGES: dict[str, Change] = {"turned": turned, "rescaled": rescaled, "band_less": band_less, "masked": masked}
