"""Empty places of real images, on which whole simulated objects are painted: real noise, neighbours and defects.

Where `backgrounds.py` needs a real deflector, this needs none: any image of the survey serves, and what is painted on
it (deflector, lensed light, impostors) is drawn as for simulated sky. Lenses and non-lenses are painted alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from sim.instrument.noise import noise
from sim.observe import sampling
from sim.population import Population
from sim.populations.photometry import Photometry
from sim.real_sky.cutouts import BackgroundError, BackgroundOptions, Seen, place_of, psf_width, read_images, square
from sim.real_sky.patch import Patch, gains, patch_optics
from sim.view import SimulatedView
from stages.records import BoolArray, FloatArray
from stages.stretch import to_composite

_MAX_IMAGES = 400
_CLEAR_ARCSEC = 1.8  # nothing is detected so near to the place
_MAX_MASKED = 0.2  # share of the cutout beyond the edge or invalid


@dataclass(frozen=True, eq=False)
class SkyView(SimulatedView):
    """Simulated objects on a patch of real sky; see `sim.view.View`. The patch brings noise, neighbours, defects."""

    patch: Patch | None = None

    @property
    def gain(self) -> FloatArray:
        """Effective gain (B,) in electrons per flux unit."""
        return gains(self.survey)

    def record(self, base: FloatArray, lensed: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """See `View`."""
        assert self.patch is not None
        pixels = base if lensed is None else base + lensed
        flux, variance = self.patch.with_light(pixels, self.unit_noise, self.gain, self.survey)
        return flux, np.where(np.isfinite(self.patch.variance), variance, np.nan)

    def to_pixel(self, arcsec: FloatArray) -> FloatArray:
        """See `View`."""
        return self.optics.to_pixel(arcsec)


class EmptySky:
    """Places of a folder's images where nothing is detected and no known candidate is near.

    rejected : (id, reason) of images without such a place; psf_source : "images", "stars" or "survey facts".
    """

    def __init__(self, options: BackgroundOptions) -> None:
        """Read and search; raises BackgroundError where there is no place, InputError for unreadable folders."""
        self.options, self.survey = options, options.survey
        self.photometry = Photometry.of(options.survey)
        self.rejected: list[tuple[str, str]] = []
        self._images: list[Seen] = []
        self._places: list[npt.NDArray[np.intp]] = []
        for seen, clear in read_images(options, self.rejected):
            places = np.argwhere(clear & self._empty(seen))[:, ::-1]
            if not len(places):
                self.rejected.append((seen.cutout.id, "no_empty_place"))
            elif len(self._images) < _MAX_IMAGES:
                self._images.append(seen)
                self._places.append(places)
            else:
                self.rejected.append((seen.cutout.id, "not_needed"))
        if not self._images:
            raise BackgroundError(
                f"{options.folder}: no image has an empty place to paint on ({self.report()}). Give images larger than "
                f"{options.survey.cutout_arcsec} arcsec, or cutouts, of the survey that --survey names."
            )
        self.fwhm, self.psf_source = psf_width(self._images, self.survey)

    def __len__(self) -> int:
        return len(self._images)

    def report(self) -> str:
        """What became of the images, in words."""
        counts = {"kept": len(self._images)} | dict(Counter(reason for _, reason in self.rejected).most_common())
        return ", ".join(f"{name} {n}" for name, n in counts.items())

    def view(self, rng: np.random.Generator, prior: Population, centring_arcsec: float) -> SkyView:
        """A place drawn at random; not turned, since noise and PSFs have directions that all of a survey shares."""
        del prior  # neighbours are there already
        k = int(rng.integers(len(self._images)))
        place = self._places[k][int(rng.integers(len(self._places[k])))]
        patch = self._patch(self._images[k], place.astype(float))
        x, y = self.survey.pixel_scale_arcsec * rng.uniform(-0.5, 0.5, 2)
        optics = patch_optics(rng, self.survey, patch, (float(x), float(y)))
        frame = optics.sampling
        unit_noise, _ = noise(rng, self.survey, frame.size_pix, 1.0)
        error = centring_arcsec * rng.normal(size=2) * (3.0 if rng.random() < 0.12 else 1.0)
        position = np.clip(optics.to_pixel(np.clip(error, -1.2, 1.2)), 0, frame.size_pix - 1)
        empty = np.zeros((len(self.survey.bands), frame.grid.size, frame.grid.size), np.float32)
        return SkyView(
            self.survey, optics, self.photometry, position, patch.valid, patch.sky_sigma, unit_noise, empty,
            np.zeros_like(patch.flux), (), patch.composite, patch.system, patch,
        )  # fmt: skip

    def _empty(self, seen: Seen) -> BoolArray:
        """Pixels (H, W) without an object near, about which most of the cutout lies on valid pixels."""
        survey, n = self.survey, sampling(self.survey).size_pix
        radius = int(np.ceil(_CLEAR_ARCSEC / survey.pixel_scale_arcsec))
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        taken = seen.found.segments > 0
        if seen.composite and survey.stretch is not None:
            planes = [survey.bands.index(band) for band in survey.stretch.bands]
            taken |= (to_composite(np.nan_to_num(seen.cutout.flux[planes]), survey.stretch) == 255).all(axis=2)
        near = binary_dilation(taken, x**2 + y**2 <= radius**2)
        whole = _box_mean(np.asarray(seen.cutout.valid.all(axis=0)), n) > 1 - _MAX_MASKED
        return np.asarray(whole & ~near)

    def _patch(self, seen: Seen, xy_pix: FloatArray) -> Patch:
        cutout, n = seen.cutout, sampling(self.survey).size_pix
        flux, variance, valid, origin = square(cutout, xy_pix, n)
        return Patch(
            id=cutout.id,
            system=f"{self.survey.name}:{place_of(cutout, self.options.catalogue is not None)}",
            flux=flux,
            variance=variance,
            valid=valid,
            xy_pix=xy_pix - origin,
            psf=cutout.psf,
            fwhm=np.asarray(cutout.psf_fwhm_arcsec if cutout.psf.size else self.fwhm, float),
            sky_sigma=seen.found.sky_sigma,
            composite=seen.composite,
        )


def _box_mean(mask: BoolArray, size: int) -> FloatArray:
    """Share of true pixels in a square of `size` about each pixel; what is beyond the edge counts as false."""
    padded = np.pad(mask.astype(float), ((size // 2 + 1, size), (size // 2 + 1, size)))
    total = padded.cumsum(0).cumsum(1)
    height, width = mask.shape
    high, low = slice(size, size + height), slice(0, height)
    right, left = slice(size, size + width), slice(0, width)
    return np.asarray((total[high, right] - total[low, right] - total[high, left] + total[low, left]) / size**2)
