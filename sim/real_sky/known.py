"""Known lens candidates, which must be neither backgrounds nor in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stages.ingest import InputError
from stages.ingest.names import suffix_of
from stages.records import BoolArray, Cutout, FloatArray

_SAME_ARCSEC = 3.0
_MARGIN_ARCSEC = 1.5  # what a candidate's arcs may reach beyond its position
_NEAR_DEG = 0.1
_RA, _DEC = ("ra_deg", "ra", "raj2000"), ("dec_deg", "dec", "dej2000")
_ID = ("id", "name", "objid", "object_id")


@dataclass(eq=False)
class Known:
    """Ids and positions (n, 2) in degrees of known candidates, and where those with an id lie on their tiles."""

    ids: frozenset[str] = frozenset()
    radec_deg: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    _on_tile: dict[str, list[FloatArray]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Known:
        """A text file with an id a line, or a CSV with a column `id` or `ra` and `dec`; raises InputError."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error}). Give a text file of ids or a CSV.") from error
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            raise InputError(f"{path}: is empty. Give ids, one a line, or a CSV with id or ra and dec.")
        if "," not in lines[0] and suffix_of(path) != ".csv":
            return cls(frozenset(lines))
        table = pd.read_csv(path, dtype=str, comment="#", skipinitialspace=True)
        lower = {str(c).strip().lower(): c for c in table.columns}
        name, ra, dec = (next((lower[n] for n in names if n in lower), None) for names in (_ID, _RA, _DEC))
        if name is None and (ra is None or dec is None):
            raise InputError(f"{path}: has columns {sorted(lower)}. Give a column id, or ra and dec in degrees.")
        ids = frozenset() if name is None else frozenset(table[name].dropna().str.strip())
        if ra is None or dec is None:
            return cls(ids)
        sky = table[[ra, dec]].apply(pd.to_numeric, errors="coerce").dropna().to_numpy(float)
        return cls(ids, sky)

    def note(self, cutout: Cutout) -> None:
        """Remember where a known candidate lies on its tile."""
        if cutout.id in self.ids:
            self._on_tile.setdefault(cutout.source, []).append(cutout.origin_xy_pix + cutout.xy_pix)

    def reason(self, cutout: Cutout, near_arcsec: float) -> str:
        """Why a cutout is left out: "known_candidate", "near_known_candidate", or "" if it is not."""
        if cutout.id in self.ids:
            return "known_candidate"
        nearest = min([*self._on_same_tile(cutout), *self._on_sky(cutout)], default=np.inf)
        return "known_candidate" if nearest < _SAME_ARCSEC else "near_known_candidate" if nearest < near_arcsec else ""

    def clear(self, cutout: Cutout, side_arcsec: float) -> BoolArray:
        """Pixels (H, W) of an image about which a square of this side, however turned, shows no known candidate.

        Of a candidate that is known by its position on the sky only its distance from the object is used, since a
        cutout does not say where north is: a whole ring about the object is then not clear.
        """
        y, x = np.indices(cutout.flux.shape[1:])
        scale, out = cutout.pixel_scale_arcsec, np.ones(x.shape, bool)
        if cutout.id in self.ids and cutout.source not in self._on_tile:
            return ~out
        for at_x, at_y in self._on_tile.get(cutout.source, ()):
            away = np.maximum(np.abs(x + cutout.origin_xy_pix[0] - at_x), np.abs(y + cutout.origin_xy_pix[1] - at_y))
            out &= away * scale > 0.5 * side_arcsec + _MARGIN_ARCSEC
        distance = np.hypot(x - cutout.xy_pix[0], y - cutout.xy_pix[1]) * scale
        for ring in self._on_sky(cutout):
            out &= np.abs(distance - ring) > 0.71 * side_arcsec + _MARGIN_ARCSEC
        return out

    def _on_same_tile(self, cutout: Cutout) -> list[float]:
        """Distances in arcsec of candidates whose place on the cutout's tile is known."""
        here = cutout.origin_xy_pix + cutout.xy_pix
        return [
            float(np.hypot(*(xy - here))) * cutout.pixel_scale_arcsec for xy in self._on_tile.get(cutout.source, ())
        ]

    def _on_sky(self, cutout: Cutout) -> list[float]:
        """Distances in arcsec of candidates by right ascension and declination."""
        if not len(self.radec_deg) or not np.isfinite([cutout.ra_deg, cutout.dec_deg]).all():
            return []
        across = (self.radec_deg[:, 0] - cutout.ra_deg + 180) % 360 - 180
        away = np.hypot(across * np.cos(np.radians(cutout.dec_deg)), self.radec_deg[:, 1] - cutout.dec_deg)
        near = away[away < _NEAR_DEG] * 3600
        return [float(d) for d in near]
