"""A deflector's own light: a robust elliptical model that leaves rings alone, taken away before arcs are looked for.

Along each ellipse the light is a low quantile over the angle, which arcs on less than half of it do not raise. From the
centre outwards it may only fall: what rises again, a ring, is not the deflector's. So nothing is dug out where a whole
ring stands apart from its deflector.
"""

from __future__ import annotations

import math

import numpy as np
import sep
import torch
from astropy.stats import mad_std
from scipy.ndimage import gaussian_filter
from torch import Tensor

from stages.polar import sample
from stages.records import Cutout, FloatArray
from stages.scaling import N_SLOTS, resolution_arcsec, slots
from stages.softening import linear, softened

_N_ANGLES = 48
_QUANTILE = 0.4
_WINDOW_PIX = 10.0  # Gaussian weight within which the ellipse is measured
_LEAST_AXIS_RATIO = 0.35
_UNKNOWN = 1e12  # stands for the light of pixels that no slot has: never the fainter of two
_NEAR_ARCSEC, _BESIDE_ARCSEC = 0.5, 3.0  # where a galaxy's middle is looked for, and the sky about it
_PEAK_SIGMA = 5.0
_RADII_PIX = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 23.0, 26.0, 30.0,
              34.0, 39.0, 44.0, 50.0, 57.0)  # fmt: skip


def brightest_place(cutout: Cutout) -> FloatArray:
    """The middle (2,) = (x, y) in pixels of the brightest light near the object's position, in its reddest band.

    That band has most of an early-type galaxy's light and least of a young source's. The peak of the image smoothed by
    the PSF within 0.5 arcsec, then its windowed centroid (`sep.winpos`); the object's own position where no peak stands
    5 sigma above what is about it.
    """
    by_wavelength = [k for k in slots(cutout.bands) if k >= 0] or [0]
    seen = [k for k in by_wavelength if cutout.valid[k].any()]
    resolution, pixel = resolution_arcsec(cutout), cutout.pixel_scale_arcsec
    sigma_pix = max(resolution / pixel, 1.5) / 2.355
    reach = int(np.ceil((_BESIDE_ARCSEC + resolution) / pixel))
    x0, y0 = (max(0, round(float(v)) - reach) for v in cutout.xy_pix)
    part = (slice(y0, y0 + 2 * reach + 1), slice(x0, x0 + 2 * reach + 1))
    if not seen or not cutout.valid[seen[-1]][part].any():
        return cutout.xy_pix
    valid = cutout.valid[seen[-1]][part]
    image = cutout.flux[seen[-1]][part].astype(float)
    image = np.ascontiguousarray(np.where(valid, image - np.median(image[valid]), 0.0))
    smooth = gaussian_filter(image, sigma_pix) / np.maximum(gaussian_filter(valid.astype(float), sigma_pix), 0.1)
    y, x = np.indices(image.shape)
    near = np.hypot(x + x0 - cutout.xy_pix[0], y + y0 - cutout.xy_pix[1]) * pixel < _NEAR_ARCSEC
    top = np.where(near & valid, smooth, -np.inf)
    peak = np.array(np.unravel_index(int(top.argmax()), top.shape), float)[::-1]
    if not top.max() > _PEAK_SIGMA * mad_std(smooth[valid]):
        return cutout.xy_pix
    x_mid, y_mid, _ = sep.winpos(image, peak[:1], peak[1:], np.array([sigma_pix]), mask=~valid)
    middle = np.array([x_mid[0], y_mid[0]])
    return np.asarray([x0, y0] + (middle if np.hypot(*(middle - peak)) < 2 * sigma_pix else peak))


def deflector_light(flux: Tensor, valid: Tensor, centre: Tensor) -> Tensor:
    """Flux (N, C, S, S) of the galaxies at centres (N, 2) on the grid, from linear flux and validity (N, C, S, S)."""
    ellipse = _ellipse(flux, valid, centre)
    return _at(_profile(flux, valid, centre, ellipse), ellipse[3])


def without_deflector(pixels: Tensor, centre: Tensor) -> Tensor:
    """Scaled flux (N, 3, S, S) less the deflector's, from scaled pixels (N, 6, S, S); 0 where a slot is not valid."""
    flux, valid = linear(pixels[:, :N_SLOTS]), pixels[:, N_SLOTS:]
    return softened(flux - deflector_light(flux, valid, centre)) * valid


_Ellipse = tuple[Tensor, Tensor, Tensor, Tensor]


def _ellipse(flux: Tensor, valid: Tensor, centre: Tensor) -> _Ellipse:
    """Semi-axis factors (N,), position angle (N,) and each pixel's radius (N, S, S) on ellipses of equal area.

    From second moments of the scaled light of all slots within a Gaussian window, whose own share is taken off again.
    Of a pixel and the one across the centre the fainter counts: arcs and neighbours seldom lie on both sides.
    """
    light = torch.where(valid.amax(1) > 0, (flux * valid).sum(1) / valid.sum(1).clamp(min=1), _UNKNOWN)
    index = torch.arange(flux.shape[-1], dtype=torch.float32, device=flux.device)
    dx = (index[None, None, :] - centre[:, 0, None, None]).expand_as(light)
    dy = (index[None, :, None] - centre[:, 1, None, None]).expand_as(light)
    fainter = torch.minimum(light, sample(light[:, None], centre[:, :1, None] - dx, centre[:, 1:, None] - dy)[:, 0])
    fainter = torch.where(fainter < 0.01 * _UNKNOWN, fainter.clamp(min=0), 0.0)
    weight = torch.exp(-0.5 * (dx**2 + dy**2) / _WINDOW_PIX**2) * softened(fainter)
    total = weight.sum((1, 2)).clamp(min=1e-6)
    xx, yy, xy = ((weight * p).sum((1, 2)) / total for p in (dx**2, dy**2, dx * dy))
    half_trace, difference = 0.5 * (xx + yy), torch.sqrt(0.25 * (xx - yy) ** 2 + xy**2)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    own = [1 / (1 / v.clamp(min=0.3, max=0.95 * _WINDOW_PIX**2) - 1 / _WINDOW_PIX**2)
           for v in (half_trace + difference, half_trace - difference)]  # fmt: skip
    root = torch.sqrt(torch.sqrt(own[1] / own[0]).clamp(min=_LEAST_AXIS_RATIO, max=1.0))  # sqrt of the axis ratio
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return root, 1 / root, angle, torch.sqrt((along * root[:, None, None]) ** 2 + (across / root[:, None, None]) ** 2)


def _profile(flux: Tensor, valid: Tensor, centre: Tensor, ellipse: _Ellipse) -> Tensor:
    """Light (N, 3, K) on the ellipses of `_RADII_PIX`, falling outwards and not negative."""
    short, long, angle, _ = ellipse
    radius = torch.tensor(_RADII_PIX, device=flux.device)
    turn = torch.arange(_N_ANGLES, device=flux.device) * (2 * math.pi / _N_ANGLES)
    along = radius[:, None] * torch.cos(turn) * long[:, None, None]
    across = radius[:, None] * torch.sin(turn) * short[:, None, None]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x = centre[:, 0, None, None] + along * cos - across * sin
    y = centre[:, 1, None, None] + along * sin + across * cos
    share = sample(valid, x, y)
    seen = torch.where(share > 0.5, sample(flux * valid, x, y) / share.clamp(min=0.5), float("nan"))
    level = torch.nanquantile(seen, _QUANTILE, dim=3)
    level = torch.where(level.isnan(), float("inf"), level.clamp(min=0))  # where nothing is seen, what is inside counts
    falling = torch.cummin(level, dim=2).values
    return torch.where(falling.isinf(), 0.0, falling)


def _at(profile: Tensor, radius: Tensor) -> Tensor:
    """Profiles (N, C, K) interpolated at radii (N, S, S) as (N, C, S, S)."""
    knots = torch.tensor(_RADII_PIX, device=radius.device)
    inside = radius.clamp(max=_RADII_PIX[-1] - 1e-3)
    upper = torch.bucketize(inside, knots, right=True).clamp(1, len(knots) - 1)
    share = ((inside - knots[upper - 1]) / (knots[upper] - knots[upper - 1]))[:, None]
    flat = upper.flatten(1)[:, None].expand(-1, profile.shape[1], -1)
    high = profile.gather(2, flat).reshape(len(profile), -1, *radius.shape[1:])
    low = profile.gather(2, flat - 1).reshape(len(profile), -1, *radius.shape[1:])
    return low + (high - low) * share
