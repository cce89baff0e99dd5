"""Colour pictures of cutouts, and sheets of them: the one way in which `sim` shows what it made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from astropy.visualization import make_lupton_rgb
from PIL import Image, ImageDraw

from stages.bands import wavelength_nm
from stages.records import BoolArray, Cutout, FloatArray

Picture = npt.NDArray[np.uint8]

_TEXT = 12  # pixels of one line of caption
_GAP = 3
_STRETCH, _Q = 12.0, 6.0  # in units of the noise
_QUARTILE = 0.6745  # of a Gaussian, in its sigmas; and the rms distance from it of what lies below
_BELOW_QUARTILE = 0.773


def picture(cutout: Cutout) -> Picture:
    """Asinh picture (H, W, 3) in units of each band's noise, y up: row 0 is the top (Lupton et al. 2004).

    The reddest, middle and bluest bands are red, green and blue; one band is grey.
    """
    order = np.argsort([wavelength_nm(band) for band in cutout.bands])
    chosen = [order[-1], order[len(order) // 2], order[0]]
    red, green, blue = (_over_noise(cutout.flux[k], cutout.variance[k], cutout.valid[k])[::-1] for k in chosen)
    out: Picture = make_lupton_rgb(red, green, blue, minimum=-1.0, stretch=_STRETCH, Q=_Q)
    return out


def sheet(tiles: Sequence[tuple[Picture, str]], columns: int, side: int) -> Image.Image:
    """Tiles enlarged to `side` pixels without smoothing, each with a caption of one or more lines, as one picture."""
    lines = max((text.count("\n") + 1 for _, text in tiles), default=1)
    high = side + lines * _TEXT + _GAP
    out = Image.new("RGB", (max(columns, 1) * (side + _GAP), max(-(-len(tiles) // columns), 1) * high), (255, 255, 255))
    draw = ImageDraw.Draw(out)
    for k, (pixels, text) in enumerate(tiles):
        x, y = k % columns * (side + _GAP), k // columns * high
        out.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x + 1, y + side), text, fill=(40, 40, 40), spacing=0)
    return out


def _over_noise(flux: FloatArray, variance: FloatArray, valid: BoolArray) -> FloatArray:
    """A plane less its sky, over its noise: known from the variance, else from the spread below the lower quartile."""
    usable = valid & np.isfinite(flux)
    if not usable.any():
        return np.zeros(flux.shape)
    quartile = float(np.percentile(flux[usable], 25))
    known = variance[usable & np.isfinite(variance)]
    if len(known):
        sigma = float(np.sqrt(np.percentile(known, 10)))
    else:
        below = flux[usable & (flux <= quartile)]
        sigma = float(np.sqrt(np.mean((below - quartile) ** 2))) / _BELOW_QUARTILE
    sky = quartile + _QUARTILE * sigma
    return np.where(usable, (flux - sky) / max(sigma, 1e-30), 0.0)
