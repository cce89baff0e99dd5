"""Joint fit, in the pixels, of all detected points and the deflector: positions, fluxes and their errors.

Points are PSFs; what is smooth - the deflector, the hosts' light under each point, the sky - is a sum of wide
Gaussians and a plane. Places move by Gauss-Newton, everything else is linear. A point whose pixels ask for two becomes
two. What is left over can be asked for a point anywhere (`Leftover.look`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate
from skimage.feature import peak_local_max

from stages.psf import Psf, psf_of
from stages.records import Cutout, FloatArray

_ROUNDS = 8
_WINDOW_FWHM, _SMALLEST_WINDOW_PIX = 1.0, 3.0
_MAX_MOVE_FWHM = 0.6  # a fit that leaves the detection further behind has found something else
_DEFLECTOR_FWHM = (0.5, 1.0, 2.0)  # widths (sigma) of the Gaussians that make the deflector, in units of the FWHM
_HOST_FWHM = 1.2  # width (sigma) of the smooth light under a point
_PSF_ERROR = 0.03  # part of a pixel's light that the PSF model leaves unexplained
_FAINTEST = 1e-12
_PEAK_SNR = 10.0  # of what a matched filter proposes as a point
# A merged pair against a PSF of another shape than ours: simulated round and elongated stars, seen with a Moffat, look
# like pairs at most 0.5 FWHM apart or of at most 0.15 of the light, with gains to 280; real pairs gain about 1000.
_SPLIT_GAIN, _SPLIT_FWHM, _SPLIT_RATIO = 150.0, 0.55, 0.15  # fall of chi2 per unexplained unit; separation; light
_SPLIT_START_FWHM = 0.35  # half the separation to begin with
_SPLIT_MISFIT = 1.5  # reduced chi2 below which none is tried
_SPLIT_ROUNDS = 2  # that tell which way a pair lies
_SPLIT_MOST = 12  # points beyond which none is tried: a crowd of stars would take minutes


@dataclass(frozen=True, eq=False)
class Leftover:
    """One band's pixels less everything fitted, and their noise."""

    residual: FloatArray
    sigma: FloatArray
    valid: npt.NDArray[np.bool_]
    psf: Psf

    def look(self, places_xy_pix: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Flux (k,) and error of a point at each place (k, 2), on a local plane; NaN where no pixel is valid."""
        radius = max(1.5 * _WINDOW_FWHM * self.psf.fwhm_pix, _SMALLEST_WINDOW_PIX)
        dx, dy, residual, weight = self.about(places_xy_pix, radius)
        shape = self.psf.value(dx.ravel(), dy.ravel()).reshape(dx.shape)
        design = np.stack([shape, np.ones(dx.shape), dx / radius, dy / radius], -1) * weight[..., None]
        value = residual * weight
        covariance = np.linalg.pinv(design.transpose(0, 2, 1) @ design, hermitian=True)
        answer = (covariance @ (design.transpose(0, 2, 1) @ value[..., None]))[..., 0]
        chi2 = ((value - (design @ answer[..., None])[..., 0]) ** 2).sum(1)
        free = (weight > 0).sum(1) - 4
        enough = free >= 4
        error = np.sqrt(covariance[:, 0, 0] * np.maximum(1.0, chi2 / np.maximum(free, 1)))
        return np.where(enough, answer[:, 0], np.nan), np.where(enough, error, np.nan)

    def about(self, places_xy_pix: FloatArray, radius: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Of the pixels within a radius of each place (k, 2): offsets x and y, what is left, 1 / noise, each (k, n).

        The last is 0 outside the radius and where a pixel is not valid.
        """
        y, x = (a.ravel() for a in np.mgrid[: 2 * int(radius) + 3, : 2 * int(radius) + 3])
        corner = np.floor(places_xy_pix).astype(int) - int(radius) - 1
        columns, rows = corner[:, :1] + x, corner[:, 1:] + y  # (k, pixels of a square about each place)
        dx, dy = columns - places_xy_pix[:, :1], rows - places_xy_pix[:, 1:]
        height, width = self.valid.shape
        used = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height) & (dx**2 + dy**2 <= radius**2)
        rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
        used &= self.valid[rows, columns]
        return dx, dy, self.residual[rows, columns], np.where(used, 1 / self.sigma[rows, columns], 0.0)

    def peaks(self, known_xy_pix: FloatArray, radius_pix: float, apart_pix: float) -> FloatArray:
        """Places (k, 2) where what is left looks most like a point, the clearest first, as a matched filter finds them.

        Within `radius_pix` of the middle of known places (n, 2) and no nearer to any of these than `apart_pix`.
        """
        if not self.valid.any():
            return np.empty((0, 2))
        half = int(np.ceil(1.5 * self.psf.fwhm_pix))
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
        shape = self.psf.value(x.ravel(), y.ravel()).reshape(x.shape)
        weight = np.where(self.valid, self.sigma**-2.0, 0.0)
        light = np.where(self.valid, self.residual - np.median(self.residual[self.valid]), 0.0)
        own = correlate(weight, shape**2, mode="constant")
        snr = correlate(light * weight, shape, mode="constant") / np.sqrt(np.maximum(own, _FAINTEST))
        xy = peak_local_max(snr, min_distance=max(1, int(apart_pix)), threshold_abs=_PEAK_SNR)[:, ::-1].astype(float)
        inside = np.hypot(*(xy - known_xy_pix.mean(0)).T) <= radius_pix
        clear = (np.hypot(*(xy[:, None] - known_xy_pix[None]).transpose(2, 0, 1)) > apart_pix).all(1)
        return np.asarray(xy[inside & clear])


@dataclass(frozen=True, eq=False)
class Photometry:
    """Points measured in one cutout.

    xy_pix : (n, 2); xy_err_pix : (n,) per axis, NaN where the fit failed and the detection's place was kept.
    flux, flux_err : (n, B) in each band's unit, the band with the clearest points first; NaN where not measured.
    bands : (B,) the cutout's band of each column.
    under_snr : signal to noise of a point at the deflector's place, fitted with all else; NaN without a deflector. A
        nucleus has it as well as a lens's central image.
    detection : (n,) row of the detection that each point began as; twice the same for the halves of a merged pair.
    flux_limit : 5 sigma of a point on the sky, in that band; leftover : that band without what was fitted, or None.
    """

    xy_pix: FloatArray
    xy_err_pix: FloatArray
    flux: FloatArray
    flux_err: FloatArray
    detection: npt.NDArray[np.intp]
    flux_limit: float
    leftover: Leftover | None
    bands: tuple[int, ...] = ()
    under_snr: float = float("nan")

    def only(self, rows: npt.NDArray[np.intp]) -> Photometry:
        """Keep some points; the leftover stays that of all."""
        names = ("xy_pix", "xy_err_pix", "flux", "flux_err", "detection")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True, eq=False)
class _Band:
    """One band's pixels and PSF."""

    image: FloatArray
    sigma: FloatArray
    valid: npt.NDArray[np.bool_]
    psf: Psf
    limit: float


@dataclass(frozen=True, eq=False)
class _Points:
    """A fit in one band; chi2 counts PSF errors as noise, `excess` is the factor by which errors were raised."""

    xy: FloatArray
    xy_err: FloatArray
    flux: FloatArray
    flux_err: FloatArray
    chi2: float = np.inf
    excess: float = 1.0
    smooth: FloatArray | None = None  # amplitudes of the Gaussians in `_wide`


def measure(cutout: Cutout, xy_pix: FloatArray, deflector_xy_pix: FloatArray) -> Photometry:
    """Fit points near `xy_pix` (n, 2) with the deflector, NaN where there is none."""
    start, n_bands = np.asarray(xy_pix, float).reshape(-1, 2), len(cutout.bands)
    if not len(start):
        none = np.empty((0, n_bands))
        return Photometry(start, np.empty(0), none, none, np.empty(0, np.intp), np.nan, None)
    bands = [_band(cutout, b) for b in range(n_bands)]
    tries = [_fit(band, start, deflector_xy_pix) for band in bands]
    limits = [max(band.limit, 1e-30) for band in bands]  # a picture's dark sky may have no noise
    worth = [float(np.nansum(np.clip(t.flux / limit, 0, 1e3))) for t, limit in zip(tries, limits, strict=True)]
    first = int(np.argmax(worth))
    best, origin = _split_pairs(bands[first], tries[first], deflector_xy_pix)
    order = (first, *(b for b in range(n_bands) if b != first))
    others = [_fit(bands[b], best.xy, deflector_xy_pix, rounds=1) for b in order[1:]]
    flux = np.column_stack([best.flux, *(o.flux for o in others)])
    flux_err = np.column_stack([best.flux_err, *(o.flux_err for o in others)])
    left = _leftover(bands[first], best, deflector_xy_pix)
    under = _under(bands[first], best, deflector_xy_pix)
    return Photometry(best.xy, best.xy_err, flux, flux_err, origin, bands[first].limit, left, order, under)


def _under(band: _Band, points: _Points, deflector: FloatArray) -> float:
    """Signal to noise of a point where the deflector is; NaN where there is none, or a detection is there already."""
    if not np.isfinite(deflector).all() or np.hypot(*(points.xy - deflector).T).min() < _SPLIT_FWHM * band.psf.fwhm_pix:
        return float("nan")
    whole = _fit(band, np.vstack([points.xy, deflector]), deflector, rounds=1)
    return float(np.nan_to_num(whole.flux[-1] / whole.flux_err[-1]))  # below 2 there is no flux


def _band(cutout: Cutout, band: int) -> _Band:
    """Pixels with their noise: the file's variance where it gives one, else what neighbouring pixels differ by."""
    image, psf = cutout.flux[band].astype(float), psf_of(cutout, band)
    valid = cutout.valid[band] & np.isfinite(image)
    sky = sky_noise(image, valid)
    known = np.isfinite(cutout.variance[band]) & (cutout.variance[band] > 0)
    sigma = np.where(known, np.sqrt(np.where(known, cutout.variance[band], 1.0)), sky)
    floor = max(0.3 * sky, _FAINTEST) if np.isfinite(sky) else _FAINTEST
    return _Band(np.where(valid, image, 0.0), np.maximum(sigma, floor), valid, psf, 5 * sky * psf.noise_area_pix**0.5)


def sky_noise(image: FloatArray, valid: npt.NDArray[np.bool_]) -> float:
    """Noise of a band from what neighbouring valid pixels differ by, which slopes do not reach; NaN without any."""
    step = np.diff(image, axis=1)[valid[:, 1:] & valid[:, :-1]]
    return float(1.4826 * np.median(np.abs(step)) / np.sqrt(2)) if step.size else float("nan")


def _fit(band: _Band, start: FloatArray, deflector: FloatArray, rounds: int = _ROUNDS) -> _Points:
    """Fit points that begin at `start` (n, 2); with one round the positions stay."""
    n, fwhm, xy = len(start), band.psf.fwhm_pix, start.copy()
    flux, flux_err, xy_err = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    places = np.vstack([start, deflector[None]]) if np.isfinite(deflector).all() else start
    rows, columns = _discs(band.valid, places, max(_WINDOW_FWHM * fwhm, _SMALLEST_WINDOW_PIX))
    if len(rows) < 3 * n + 6:
        return _Points(start, xy_err, flux, flux_err)
    value, noise = band.image[rows, columns], band.sigma[rows, columns]
    plane = [np.ones(len(rows)), (columns - columns.mean()) / fwhm, (rows - rows.mean()) / fwhm]
    wide = _wide(start, deflector, fwhm)
    smooth = np.column_stack([*plane, *(_gauss(rows, columns, w) for w in wide)])
    weight, chi2, excess = 1 / noise, np.inf, 1.0
    for turn in range(rounds):
        shapes = band.psf.with_gradient((columns - xy[:, :1]).ravel(), (rows - xy[:, 1:]).ravel())
        shapes = shapes.reshape(n, len(rows), 3).transpose(1, 0, 2)
        point = shapes[..., 0]
        slopes = (shapes[..., 1:] * flux[:, None]).reshape(len(rows), -1)[:, : 2 * n if turn else 0]
        design = np.hstack([point, slopes, smooth])
        weighted = design * weight[:, None]
        scale = np.sqrt((weighted**2).sum(0)) + _FAINTEST
        weighted /= scale
        normal = weighted.T @ weighted
        normal[np.diag_indices_from(normal)] += 1e-9  # wide Gaussians may nearly repeat each other
        covariance = np.linalg.inv(normal)
        answer = covariance @ (weighted.T @ (value * weight)) / scale
        error = np.sqrt(np.maximum(np.diag(covariance), 0)) / scale
        flux, flux_err = np.maximum(answer[:n], _FAINTEST), error[:n]
        if turn:
            xy = xy + np.clip(answer[n : 3 * n].reshape(n, 2), -0.15 * fwhm, 0.15 * fwhm)
            xy_err = np.sqrt((error[n : 3 * n].reshape(n, 2) ** 2).mean(1))
        chi2 = float((((value - design @ answer) * weight) ** 2).sum())
        excess = max(1.0, float(np.sqrt(chi2 / max(len(rows) - design.shape[1], 1))))
        weight = 1 / np.hypot(noise, _PSF_ERROR * (point @ flux))
    xy_err, flux_err = xy_err * excess, flux_err * excess  # what the model leaves unexplained counts as noise
    lost = (np.hypot(*(xy - start).T) > _MAX_MOVE_FWHM * fwhm) | (flux < 2 * flux_err) | ~np.isfinite(flux)
    xy_err, flux, flux_err = (np.where(lost, np.nan, part) for part in (xy_err, flux, flux_err))
    amplitudes = answer[-len(wide) :] if len(wide) else np.empty(0)
    return _Points(np.where(lost[:, None], start, xy), xy_err, flux, flux_err, chi2, excess, amplitudes)


def _split_pairs(band: _Band, whole: _Points, deflector: FloatArray) -> tuple[_Points, npt.NDArray[np.intp]]:
    """Make a point two where its pixels are far better described so; also the row each point began as."""
    origin = np.arange(len(whole.xy))
    if whole.excess**2 < _SPLIT_MISFIT or whole.chi2 < _SPLIT_GAIN or len(origin) > _SPLIT_MOST:
        return whole, origin  # there is not so much to gain
    for k in np.argsort(-np.nan_to_num(whole.flux[origin]), kind="stable"):
        at = int(np.flatnonzero(origin == k)[0])
        rough = {a: _pair(band, whole, at, a, deflector, _SPLIT_ROUNDS).chi2 for a in np.deg2rad((0, 45, 90, 135))}
        best = _pair(band, whole, at, min(rough, key=lambda a: rough[a]), deflector)
        half = best.flux[[at, -1]]
        apart = np.hypot(*(best.xy[at] - best.xy[-1]))
        gain = (whole.chi2 - best.chi2) / best.excess**2
        if gain > _SPLIT_GAIN and apart > _SPLIT_FWHM * band.psf.fwhm_pix and half.min() > _SPLIT_RATIO * half.sum():
            whole, origin = best, np.append(origin, k)
    return whole, origin


def _pair(band: _Band, whole: _Points, k: int, angle: float, deflector: FloatArray, rounds: int = _ROUNDS) -> _Points:
    step = _SPLIT_START_FWHM * band.psf.fwhm_pix * np.array([np.cos(angle), np.sin(angle)])
    start = np.vstack([whole.xy, whole.xy[k] + step])
    start[k] -= step
    return _fit(band, start, deflector, rounds)


def _leftover(band: _Band, points: _Points, deflector: FloatArray) -> Leftover:
    """The whole band less the fitted points and Gaussians; the plane stays, for `look` has its own."""
    rows, columns = (a.ravel() for a in np.mgrid[: band.image.shape[0], : band.image.shape[1]])
    model = np.zeros(len(rows))
    for (x, y), flux in zip(points.xy, np.nan_to_num(points.flux), strict=True):
        model += flux * band.psf.with_gradient(columns - x, rows - y)[:, 0]
    sigma = np.hypot(band.sigma.ravel(), _PSF_ERROR * model)
    if points.smooth is not None:
        for wide, amplitude in zip(_wide(points.xy, deflector, band.psf.fwhm_pix), points.smooth, strict=True):
            model += amplitude * _gauss(rows, columns, wide)
    shape = band.image.shape
    return Leftover(band.image - model.reshape(shape), sigma.reshape(shape), band.valid, band.psf)


def _wide(points: FloatArray, deflector: FloatArray, fwhm: float) -> list[tuple[float, float, float]]:
    """Centre and sigma of every Gaussian in the smooth light."""
    out = [(float(x), float(y), _HOST_FWHM * fwhm) for x, y in points]
    if np.isfinite(deflector).all():
        out += [(float(deflector[0]), float(deflector[1]), w * fwhm) for w in _DEFLECTOR_FWHM]
    return out


def _gauss(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], wide: tuple[float, float, float]) -> FloatArray:
    return np.asarray(np.exp(-0.5 * ((columns - wide[0]) ** 2 + (rows - wide[1]) ** 2) / wide[2] ** 2))


def _discs(
    valid: npt.NDArray[np.bool_], places: FloatArray, radius: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the valid pixels within a radius of any of the places."""
    height, width = valid.shape
    x0, y0 = np.maximum(np.floor(places.min(0) - radius).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(places.max(0) + radius).astype(int) + 1, (width, height))
    if x1 <= x0 or y1 <= y0:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    y, x = np.mgrid[y0:y1, x0:x1]
    near = np.zeros(y.shape, bool)
    for a, b in places:
        near |= (x - a) ** 2 + (y - b) ** 2 <= radius**2
    near &= valid[y0:y1, x0:x1]
    return y[near], x[near]
