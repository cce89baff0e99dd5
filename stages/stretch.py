"""The Lupton et al. (2004) colour composite and its inverse.

Forward: p_c = scale_c * flux_c, I = mean of the three p_c, plane c = p_c * asinh(alpha Q I) / (Q I), clipped to
0..1 and rounded or truncated to 8 bits. The inverse takes the middle of what gives a level: going there and back
changes no picture. Negative pixels come back as 0, a plane at 255 as the least flux that it can have had.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.records import FloatArray
from stages.survey import Stretch


def to_composite(flux: FloatArray, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Flux (3, H, W) in the stretch's band order to an 8-bit picture (H, W, 3); NaN becomes 0."""
    planes = np.nan_to_num(flux) * np.array(stretch.scales)[:, None, None]
    intensity = planes.mean(axis=0)
    if stretch.kind == "lupton":
        safe = np.where(np.abs(intensity) > 1e-9, intensity, 1e-9)
        planes = planes * np.arcsinh(stretch.alpha * stretch.q * safe) / (stretch.q * safe)
    levels = 255 * np.clip(planes, 0, 1)
    whole = np.floor(levels + 1e-9) if stretch.truncated else np.round(levels)
    return np.asarray(whole.transpose(1, 2, 0), np.uint8)


def from_composite(picture: npt.NDArray[np.uint8], stretch: Stretch) -> npt.NDArray[np.float32]:
    """An 8-bit picture (H, W, 3) to flux (3, H, W) in the stretch's band order."""
    levels = picture.transpose(2, 0, 1).astype(np.float64)
    if stretch.truncated:
        levels = np.where((levels > 0) & (levels < 255), levels + 0.5, levels)
    planes = levels / 255
    if stretch.kind == "lupton":
        mean = np.maximum(planes.mean(axis=0), 1e-9)  # = asinh(alpha Q I) / Q
        intensity = np.sinh(stretch.q * mean) / (stretch.alpha * stretch.q)
        planes = planes * intensity / mean
    return np.asarray(planes / np.array(stretch.scales)[:, None, None], np.float32)
