"""The arc stage's maps as FITS: the probability that each place holds lensed light, for masks and lens models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from stages.records import ArcScore, Cutout
from stages.report.atomic import replacing


@dataclass(frozen=True, eq=False)
class ArcMap:
    """What is kept of one object's map.

    mask : (S, S) float16 probability of lensed light; its pixel (i, j) = (x, y) lies at 0-based pixel
    `origin_xy_pix + step_pix * (i, j)` of the input file.
    """

    id: str
    source: str
    mask: npt.NDArray[np.float16]
    origin_xy_pix: tuple[float, float]
    step_pix: float

    @classmethod
    def of(cls, arc: ArcScore, cutout: Cutout) -> ArcMap:
        """The map of a measured cutout, in its file's own pixels."""
        x, y = arc.mask_origin_xy_pix + cutout.origin_xy_pix
        return cls(cutout.id, cutout.source, arc.mask.astype(np.float16), (float(x), float(y)), arc.mask_step_pix)


def write_arc_maps(run_dir: Path, maps: Iterable[ArcMap]) -> Path:
    """Write `arc_maps.fits`, an image extension for each object under its id, one in memory at a time.

    Each has a linear world coordinate system: the input file's pixels, counted from 1 as FITS does.
    """
    path = run_dir / "arc_maps.fits"
    with replacing(path) as part:
        fits.PrimaryHDU().writeto(part)
        with part.open("ab") as file:
            for one in maps:
                file.write(_extension(one))
    return path


def _extension(one: ArcMap) -> bytes:
    header = fits.Header()
    header["EXTNAME"] = (one.id.encode("ascii", "replace").decode(), "id in candidates.csv")
    header["SOURCE"] = one.source.encode("ascii", "replace").decode()
    for axis, at in enumerate(one.origin_xy_pix, start=1):
        header[f"CTYPE{axis}"] = ("LINEAR", "pixel of the input file, from 1")
        header[f"CRPIX{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = 1.0, at + 1.0, one.step_pix
    hdu = fits.ImageHDU(one.mask.astype(np.float32), header)
    data = one.mask.astype(">f4").tobytes()
    return bytes(hdu.header.tostring().encode("ascii") + data + bytes(-len(data) % 2880))
