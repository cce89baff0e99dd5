"""The panels of `page.draw` about PSF kernels measured from stars."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from sim.matching.facts import Match
from sim.matching.kernel import moffat_kernel
from sim.matching.star_kernels import StarKernel
from stages.psf import moffat
from stages.records import FloatArray

_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_SHOWN_FWHM = 2.5


def add_profile(axis: Any, got: StarKernel, colour: str, factor: float) -> None:
    """The kernel along all directions, as a strip, over a plot of profiles in units of the FWHM.

    Its mean is dashed where the kernel was taken, else dotted. Divided by the peak of the Moffat of equal light, and
    times `factor`.
    """
    radius = np.linspace(0, 3.9, 100)
    half = got.kernel.shape[0] // 2
    r, angle = radius[:, None] * got.fwhm_pix, _ANGLES[None, :]
    at = [half + r * np.sin(angle), half + r * np.cos(angle)]
    peak = float(moffat(np.zeros(1), got.fwhm_pix, got.beta)[0])
    value = np.maximum(map_coordinates(got.kernel, at, order=3) / peak, 1e-9) * factor
    axis.fill_between(radius, value.min(axis=1), value.max(axis=1), color=colour, alpha=0.25, lw=0)
    axis.plot(radius, value.mean(axis=1), "--" if got.taken else ":", color=colour, lw=1)


def kernels(axis: Any, match: Match) -> bool:
    """The kernels, side by side, in logarithmic light."""
    return _row(axis, match, "kernels / peak, log from 0.001 to 1", lambda got: _log(got.kernel / got.kernel.max()))


def kernels_less_moffat(axis: Any, match: Match) -> bool:
    """What the kernels have beyond the file's Moffat."""

    def rest(got: StarKernel) -> FloatArray:
        shape = moffat_kernel(got.fwhm_pix, got.beta, got.kernel.shape[0])
        return np.asarray((got.kernel - shape) / shape.max())

    return _row(axis, match, "(kernel - Moffat) / its peak, -0.1 (blue) to 0.1 (red)", rest, cmap="RdBu_r", vmin=-0.1,
                vmax=0.1)  # fmt: skip


def held_out_stars(axis: Any, match: Match) -> bool:
    """chi2 of stars that neither model was made of, by both."""
    if not match.kernels:
        return False
    for n, (band, got) in enumerate(match.kernels.items()):
        which = "kernel taken" if got.taken else "Moffat kept"
        axis.scatter(got.chi2[:, 1], got.chi2[:, 0], s=12, color=f"C{n}", label=f"{band}: {which} ({len(got.chi2)})")
    both = np.concatenate([got.chi2.ravel() for got in match.kernels.values()])
    line = [0.9 * both.min(), 1.1 * both.max()]
    axis.plot(line, line, "k:", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="chi2 per pixel by the Moffat", ylabel="by the kernel of other stars",
             title="held-out stars (below the line: the kernel is better)")  # fmt: skip
    axis.legend(fontsize=7)
    return True


def _log(value: FloatArray) -> FloatArray:
    return np.log10(np.maximum(value, 1e-3))


def _row(axis: Any, match: Match, title: str, shown: Any, **look: Any) -> bool:
    """Kernels' cores side by side."""
    if not match.kernels:
        return False
    tiles = []
    for got in match.kernels.values():
        half = got.kernel.shape[0] // 2
        near = min(half, int(np.ceil(_SHOWN_FWHM * max(g.fwhm_pix for g in match.kernels.values()))))
        part = slice(half - near, half + near + 1)
        tiles.append(np.pad(shown(got)[part, part], 1, constant_values=np.nan))
    side = max(tile.shape[0] for tile in tiles)
    tiles = [np.pad(t, (side - t.shape[0]) // 2, constant_values=np.nan) for t in tiles]
    axis.imshow(np.hstack(tiles), origin="lower", **look)
    axis.set_xticks([side * (k + 0.5) for k in range(len(tiles))], list(match.kernels))
    axis.set_yticks([])
    axis.set_title(title, fontsize=9)
    return True
