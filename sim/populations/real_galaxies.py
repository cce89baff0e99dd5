"""Real galaxies as sources: noise-free stamps from a folder in the GalSim real-galaxy format (such as COSMOS).

Each galaxy is deconvolved by its own PSF and seen again through a round Gaussian as wide (Mandelbaum et al. 2012), so
that the telescope's spikes are not lensed; `sim/populations/stamp.py` then takes the noise out.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import galsim
import numpy as np
from astropy.io import fits
from galsim.meta_data import share_dir

from sim.populations.stamp import Stamp, stamp_of
from stages.records import FloatArray

_MAGNITUDE_WIDTH = 0.75  # rms of a drawn galaxy's magnitude about the one asked for
_TRIES = 50
_KEPT_STAMPS = 256
_FITS_BLOCK = 2880


class StampError(ValueError):
    """A folder that cannot be used as source galaxies; the message says what to do."""


class Stamps:
    """The galaxies of one folder; images are opened when first needed, in each process by itself.

    Raises StampError for a folder without a catalogue, or whose images are missing or cut short.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).absolute()
        self._name = _catalogue_name(self.folder)
        table = _table(self.folder / self._name)
        self.magnitude: FloatArray = np.asarray(table["mag"], float)
        weight = np.asarray(table["weight"], float) if "weight" in table else np.ones(len(self.magnitude))
        usable = np.isfinite(self.magnitude) & np.isfinite(weight) & (weight > 0)
        self.magnitude = np.where(usable, self.magnitude, 0.0)
        self._weight: FloatArray = np.where(usable, weight, 0.0)
        if not usable.any():
            raise StampError(f"{self.folder}: no galaxy has a magnitude and a weight. Make the catalogue anew.")
        _check_files(self.folder, table)
        self._start()

    def _start(self) -> None:
        self._catalogue: galsim.RealGalaxyCatalog | None = None
        self.rejected: dict[int, str] = {}
        self._stamp = lru_cache(maxsize=_KEPT_STAMPS)(self._make)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("folder", "_name", "magnitude", "_weight")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return len(self.magnitude)

    def draw(self, rng: np.random.Generator, magnitude: float) -> Stamp:
        """A galaxy of about this magnitude; beyond the catalogue's range, one of its faint or bright end.

        Depends on `rng` alone, not on what was drawn before.
        """
        low, high = np.quantile(self.magnitude[self._weight > 0], (0.05, 0.95))
        near = np.clip(magnitude, low, high)
        for attempt in range(_TRIES):
            width = _MAGNITUDE_WIDTH * 2.0 ** (attempt // 10)  # wider where most of this magnitude are refused
            chance = self._weight * np.exp(-0.5 * ((self.magnitude - near) / width) ** 2)
            stamp = self._stamp(int(rng.choice(len(chance), p=chance / chance.sum())))
            if stamp is not None:
                return stamp
        raise StampError(
            f"{self.folder}: {_TRIES} galaxies in a row were refused ({self.report()}). Give another folder."
        )

    def stamp(self, index: int) -> Stamp | None:
        """The galaxy of one row of the catalogue, or None where it is refused (`rejected` says why)."""
        return self._stamp(index)

    def census(self, limit: int | None = None) -> dict[str, int]:
        """How many of the first `limit` galaxies are kept, and how many are refused for which reason."""
        n = len(self) if limit is None else min(limit, len(self))
        kept = sum(self._stamp(k) is not None for k in range(n))
        return {"kept": kept} | dict(Counter(self.rejected[k] for k in range(n) if k in self.rejected))

    def report(self) -> str:
        """Refusals so far, by reason."""
        return ", ".join(f"{reason} {n}" for reason, n in sorted(Counter(self.rejected.values()).items())) or "none"

    def _make(self, index: int) -> Stamp | None:
        if not self._weight[index]:
            self.rejected[index] = "no_magnitude"
            return None
        made = stamp_of(*self._seen(index), float(self.magnitude[index]), index)
        if isinstance(made, str):
            self.rejected[index] = made
            return None
        return made

    def _seen(self, index: int) -> tuple[FloatArray, float, float, float]:
        """A galaxy through a round PSF: image, rms of its noise, pixel scale and FWHM of the PSF in arcsec."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                catalogue = self._open()
                galaxy = galsim.RealGalaxy(catalogue, index=index)
                shape = catalogue.getGalImage(index).array.shape
        except (OSError, TypeError, IndexError, ValueError, galsim.GalSimError) as error:
            path = catalogue.gal_file_name[index]
            raise StampError(f"{path}: galaxy {index} cannot be read ({error}). Copy the folder anew.") from error
        scale = float(catalogue.pixel_scale[index])
        fwhm = float(galaxy.original_psf.calculateFWHM())
        side = max(shape)
        seen = galsim.Convolve(galaxy, galsim.Gaussian(fwhm=fwhm))
        image = seen.drawImage(nx=side, ny=side, scale=scale, method="no_pixel").array.astype(float)
        return image, float(np.sqrt(max(catalogue.variance[index], 0.0))), scale, fwhm

    def _open(self) -> galsim.RealGalaxyCatalog:
        if self._catalogue is None:
            catalogue = galsim.RealGalaxyCatalog(self._name, dir=str(self.folder))
            known = catalogue.noise_file_name
            if known is not None:  # GalSim itself carries the noise of the COSMOS images
                spare = [Path(share_dir) / Path(str(f)).name.strip() for f in known]
                found = [
                    next((p for p in (Path(str(f).strip()), s) if p.is_file()), None)
                    for f, s in zip(known, spare, strict=True)
                ]
                catalogue.noise_file_name = None if None in found else [str(p) for p in found]
            self._catalogue = catalogue
        return self._catalogue


def _catalogue_name(folder: Path) -> str:
    """The catalogue of a folder: not the tables of fits and selections that the COSMOS sample has beside it."""
    if not folder.is_dir():
        raise StampError(f"{folder}: no such folder. Give the folder that holds real_galaxy_catalog*.fits.")
    found = sorted(
        p.name for p in folder.glob("real_galaxy_catalog*.fits") if not p.stem.endswith(("_fits", "_selection"))
    )
    if not found:
        raise StampError(
            f"{folder}: holds no real_galaxy_catalog*.fits. Give a folder in the GalSim real-galaxy format."
        )
    return found[0]


def _table(path: Path) -> dict[str, Any]:
    """Columns of a catalogue by lower-case name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # astropy only warns of a file that was cut short
            with fits.open(path, memmap=False) as file:
                table = {name.lower(): np.array(file[1].data[name]) for name in file[1].columns.names}
    except (OSError, TypeError, IndexError, AttributeError, ValueError, Warning) as error:
        raise StampError(f"{path}: not a readable FITS table ({error}). Copy the folder anew.") from error
    needed = ("ident", "mag", "gal_filename", "psf_filename", "gal_hdu", "psf_hdu", "pixel_scale", "noise_variance")
    absent = [name for name in needed if name not in table]
    if absent:
        raise StampError(f"{path}: has no columns {absent}. Give a catalogue in the GalSim real-galaxy format.")
    if not len(table["mag"]):
        raise StampError(f"{path}: has no rows. Give a catalogue with galaxies.")
    return table


def _check_files(folder: Path, table: dict[str, Any]) -> None:
    names = sorted({str(n).strip() for column in ("gal_filename", "psf_filename") for n in np.unique(table[column])})
    absent = [n for n in names if not (folder / n).is_file()]
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise StampError(
            f"{folder}: {len(absent)} of {len(names)} image files are not there ({shown}). Copy them as well."
        )
    short = [n for n in names if (folder / n).suffix == ".fits" and (folder / n).stat().st_size % _FITS_BLOCK]
    if short:
        raise StampError(f"{folder}: {', '.join(short[:3])} was cut short (no whole FITS blocks). Copy it anew.")
