"""Known lens candidates, which must be neither backgrounds nor in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stages.ingest import InputError
from stages.ingest.names import suffix_of
from stages.records import Cutout, FloatArray

_SAME_ARCSEC = 3.0
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
        here = cutout.origin_xy_pix + cutout.xy_pix
        others = [
            float(np.hypot(*(xy - here))) * cutout.pixel_scale_arcsec for xy in self._on_tile.get(cutout.source, ())
        ]
        if len(self.radec_deg) and np.isfinite([cutout.ra_deg, cutout.dec_deg]).all():
            across = (self.radec_deg[:, 0] - cutout.ra_deg + 180) % 360 - 180
            away = np.hypot(across * np.cos(np.radians(cutout.dec_deg)), self.radec_deg[:, 1] - cutout.dec_deg)
            others.append(float(away.min()) * 3600)
        nearest = min(others, default=np.inf)
        return "known_candidate" if nearest < _SAME_ARCSEC else "near_known_candidate" if nearest < near_arcsec else ""
