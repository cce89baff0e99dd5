"""Bands whose pixels do not lie on each other, put on one grid by their WCS: frames of SDSS, a VIS and a NISP image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel
from scipy.ndimage import map_coordinates, spline_filter, zoom

from stages.ingest.field import Field
from stages.records import FloatArray

_SAME_PIX = 0.1  # bands that lie within this of each other are left alone
_WHOLE = 0.99  # what of a pixel must come from valid pixels
_STRIP = 256  # rows at a time: memory must not grow with the tile's area more than its pixels do
_LEAST_SHARE = 0.25  # of a grid that a band must cover to be of use


def aligned(fields: Sequence[Field]) -> tuple[list[Field], tuple[str, ...]]:
    """Fields of one object on the grid of the sharpest-sampled, in their order, and reasons.

    Where their WCS agree to a tenth of a pixel, or where one has none or one that leads nowhere (`wcs_ignored`), pixels
    are taken to lie on each other and what has another shape than most is left out (`missing_band`); otherwise planes
    are interpolated (`bands_aligned`).
    """
    why: tuple[str, ...] = ()
    if all(f.wcs is not None for f in fields):
        try:
            return _by_wcs(fields)
        except _LeadsNowhere:
            why = ("wcs_ignored",)
    shapes = [f.flux.shape[1:] for f in fields]
    common = max(shapes, key=shapes.count)
    kept = [f for f, shape in zip(fields, shapes, strict=True) if shape == common]
    return kept, (*why, *(("missing_band",) if len(kept) < len(fields) else ()))


class _LeadsNowhere(ValueError):
    """A WCS that cannot be followed to the sky and back."""


def _by_wcs(fields: Sequence[Field]) -> tuple[list[Field], tuple[str, ...]]:
    """Onto the finest grid; of like ones that of most bands, then the first."""
    shapes = [f.flux.shape[1:] for f in fields]
    onto = min(fields, key=lambda f: (round(f.pixel_scale_arcsec, 3), -shapes.count(f.flux.shape[1:])))
    if all(_on_one_grid(f, onto) for f in fields):
        return list(fields), ()
    moved = [f if _on_one_grid(f, onto) else _moved(f, onto) for f in fields]
    kept = [f for f in moved if f is onto or f.valid.mean() > _LEAST_SHARE]
    return kept, ("bands_aligned", *(("missing_band",) if len(kept) < len(fields) else ()))


def _on_one_grid(field: Field, onto: Field) -> bool:
    if field is onto:
        return True
    if field.flux.shape[1:] != onto.flux.shape[1:]:
        return False
    assert isinstance(onto.wcs, WCS)
    if field.wcs is not None and onto.wcs.wcs.compare(field.wcs.wcs):  # the same numbers: no need to go to the sky
        return True
    x, y = _corners(onto)
    return bool(np.hypot(*(p - q for p, q in zip(_across(onto, field, x, y), (x, y), strict=True))).max() < _SAME_PIX)


def _corners(field: Field) -> tuple[FloatArray, FloatArray]:
    height, width = field.flux.shape[1:]
    return np.array([0.0, width - 1, 0.0, width - 1]), np.array([0.0, 0.0, height - 1, height - 1])


def _across(onto: Field, field: Field, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where pixels of one field lie in another; infinitely far where the sky has no such place."""
    assert isinstance(onto.wcs, WCS)
    assert isinstance(field.wcs, WCS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            to_x, to_y = pixel_to_pixel(onto.wcs, field.wcs, x, y)
        except Exception as error:  # astropy raises many kinds
            raise _LeadsNowhere(str(error)) from error
    return np.nan_to_num(to_x, nan=-1e9), np.nan_to_num(to_y, nan=-1e9)


def _moved(field: Field, onto: Field) -> Field:
    """A field on the grid of another: brightness by cubic splines, with the flux per area kept, noise by the nearest.

    The variance is such that an aperture keeps its error, were pixels independent, although neighbours correlate.
    """
    area = (onto.pixel_scale_arcsec / field.pixel_scale_arcsec) ** 2
    height, width = onto.flux.shape[1:]
    flux, variance = (np.full((len(field.flux), height, width), np.nan, np.float32) for _ in range(2))
    for k, good in enumerate(field.valid):
        if not good.any():
            continue
        splines = spline_filter(np.where(good, field.flux[k], np.median(field.flux[k][good])), output=np.float32)
        share = good.astype(np.float32)
        for start in range(0, height, _STRIP):
            rows = slice(start, min(start + _STRIP, height))
            y, x = np.mgrid[rows, 0:width].astype(float)
            at = np.array(_across(onto, field, x, y)[::-1])
            whole = map_coordinates(share, at, order=1) > _WHOLE
            flux[k, rows] = np.where(
                whole, area * map_coordinates(splines, at, mode="nearest", prefilter=False), np.nan
            )
            variance[k, rows] = area * map_coordinates(field.variance[k], at, order=0, mode="nearest")
    return replace(
        field, flux=flux, variance=variance, valid=np.isfinite(flux), pixel_scale_arcsec=onto.pixel_scale_arcsec,
        wcs=onto.wcs, psf=_resized(field.psf, field.pixel_scale_arcsec / onto.pixel_scale_arcsec),
    )  # fmt: skip


def _resized(psf: FloatArray, factor: float) -> FloatArray:
    """Kernels (B, P, P) on pixels smaller by a factor; `stacked` normalises them."""
    if not psf.size or abs(factor - 1) < 0.01:
        return psf
    return np.stack([zoom(k, factor, order=3, mode="grid-constant", grid_mode=True) for k in psf])
