"""Point spread functions as optical transfer functions: Moffat (ground), diffraction (space), measured kernels.

A transfer function lives on the real-FFT frequencies of the fine grid, so a PSF is never cut off: what leaves the grid
on one side comes in on the other, and flux is conserved to rounding. FWHMs are those measured on a survey's pixels; the
pixel's own share is taken out, because `Sampling.bin` puts it back.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from scipy import fft
from scipy.special import gamma as gamma_function
from scipy.special import kv

from sim.instrument.pupils import diffraction
from sim.scene import Grid
from stages.config import CONFIG_DIR
from stages.records import FloatArray
from stages.survey import SurveyFacts

ComplexArray = npt.NDArray[np.complexfloating]

PIXEL_FWHM = 0.68  # FWHM of a Gaussian of a pixel's variance, in pixels: 2.355 / sqrt(12)
SPIKE_FRACTION = 0.012  # light in the spikes: the part of the pupil that vanes cover, typically 1-2% (Babinet)
SPIKE_ARCSEC = 1.2  # half width along a spike, wavelength / (pi x vane width), for 3 cm vanes at 600 nm
HALO_ARCSEC = 6.0  # core of the aureole, whose r^-3 wings follow the seeing disc (King 1971; Racine 1996)
_ANGLE_STEP_DEG = 5.0  # of the spikes where the field rotates: wings are kept per direction
_BETA_SCATTER = 0.08  # rms of ln(Moffat index) (assumed; Trujillo et al. 2001 find 2.5-4 in practice)
_OWN_PART = 0.3  # of the scatter of FWHM and ellipticity: what each band has beside what all share (assumed)


def draw_seeing(rng: np.random.Generator, survey: SurveyFacts) -> FloatArray:
    """FWHM (B,) in arcsec of one field: lognormal about the median, mostly a factor that all bands share."""
    median = np.array([survey.psf_fwhm_arcsec[band] for band in survey.bands])
    spread = survey.psf_fwhm_scatter * _correlated(rng, len(median))
    return np.asarray(median * np.clip(np.exp(spread), 0.6, 1.8))


def transfer(
    survey: SurveyFacts,
    fwhm: FloatArray,
    grid: Grid,
    rng: np.random.Generator,
    offset_arcsec: tuple[float, float] = (0.0, 0.0),
) -> ComplexArray:
    """Optical transfer functions (B, size, size // 2 + 1) complex64 of one field's PSFs.

    fwhm : (B,) arcsec; offset_arcsec : (x, y) by which all bands are moved. Drawn here: ellipticity and its direction,
    Moffat index, the spikes' direction, and each band's registration error, which is a phase as the offset is.
    """
    n = len(survey.bands)
    rms = survey.psf_ellipticity / np.sqrt(2)  # per component
    e1, e2 = rms * _correlated(rng, n), rms * _correlated(rng, n)
    beta = round(20 * survey.psf_beta * float(np.exp(_BETA_SCATTER * rng.normal()))) / 20  # steps: tables are kept
    roll = rng.uniform(0, 360)
    angle = (
        round(roll / _ANGLE_STEP_DEG) * _ANGLE_STEP_DEG if survey.spike_angle_deg is None else survey.spike_angle_deg
    )
    shift = np.array(offset_arcsec) + survey.band_offset_arcsec * rng.normal(size=(n, 2))
    pick = int(rng.integers(0, 2**31))
    out = np.empty((n, grid.size, grid.size // 2 + 1), np.complex64)
    wings = _wings(survey.spikes, survey.halo_fraction, grid, angle)
    x, y, _ = frequencies(grid.size, grid.step)
    for k, band in enumerate(survey.bands):
        if band in survey.psf_files:
            scale = float(fwhm[k]) / survey.psf_fwhm_arcsec[band]
            out[k] = kernel_transfer(
                measured_kernel(survey.psf_files[band], pick), survey.pixel_scale_arcsec, grid, scale
            )
            out[k] *= wings if survey.kind == "ground" else np.float32(1)  # a kernel ends where these begin
        elif survey.kind == "space":
            out[k] = diffraction(survey, band, grid, roll) * _extra(survey, band, float(fwhm[k]), grid)
        else:
            pixel = PIXEL_FWHM * survey.pixel_scale_arcsec
            width = np.sqrt(max(float(fwhm[k]) ** 2 - pixel**2, (0.5 * float(fwhm[k])) ** 2))
            out[k] = wings * moffat(grid, float(width), max(beta, 1.5), complex(e1[k], e2[k]))
        if shift[k].any():
            out[k] *= np.exp(-2j * np.pi * shift[k, 0] * x).astype(np.complex64)
            out[k] *= np.exp(-2j * np.pi * shift[k, 1] * y).astype(np.complex64)
    return out


@lru_cache(maxsize=32)
def frequencies(size: int, step: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Frequencies of a real FFT in cycles per arcsec: along x (1, size // 2 + 1), along y (size, 1), and their norm."""
    x = fft.rfftfreq(size, step)[None, :].astype(np.float32)
    y = fft.fftfreq(size, step)[:, None].astype(np.float32)
    return x, y, np.hypot(x, y)


def moffat(grid: Grid, fwhm: float, beta: float, ellipticity: complex = 0j) -> FloatArray:
    """Transfer function of a Moffat (1969) profile of unit flux; real, (size, size // 2 + 1) float32.

    fwhm : arcsec, geometric mean of the axes; ellipticity : (a - b) / (a + b) times exp(2i angle).
    """
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    x, y, k = frequencies(grid.size, grid.step)
    size = min(abs(ellipticity), 0.3)
    if size > 1e-4:
        q, half = (1 - size) / (1 + size), np.angle(ellipticity) / 2
        cos, sin = np.float32(np.cos(half)), np.float32(np.sin(half))
        k = np.sqrt((x * cos + y * sin) ** 2 / np.float32(q) + (y * cos - x * sin) ** 2 * np.float32(q))
    table = _moffat_table(beta)
    place = np.minimum(k * np.float32(2 * np.pi * alpha / _TABLE_STEP), np.float32(len(table) - 2))
    low = place.astype(np.int32)
    value: FloatArray = table[low] + (place - low) * (table[low + 1] - table[low])
    return value


_TABLE_STEP = 0.02


@lru_cache(maxsize=128)
def _moffat_table(beta: float) -> FloatArray:
    """Transform of the unit-flux Moffat profile against u = 2 pi k alpha: 2 (u/2)^(b-1) K_(b-1)(u) / Gamma(b-1)."""
    u = np.arange(0, 40, _TABLE_STEP)
    u[0] = 1e-9
    value = 2 * (u / 2) ** (beta - 1) * kv(beta - 1, u) / gamma_function(beta - 1)
    value[0] = 1.0
    table: FloatArray = value.astype(np.float32)
    return table


@lru_cache(maxsize=64)
def _wings(number: int, halo_fraction: float, grid: Grid, angle_deg: float) -> FloatArray | np.float32:
    """What vanes and aureole do to a core's transfer function: every source has them, only bright stars show them.

    A spike is a Lorentzian along its line, whose transform is an exponential; so is that of (1 + r^2/a^2)^-3/2.
    """
    lines = spike_lines(number, float(np.radians(angle_deg)))
    if not lines and halo_fraction <= 0:
        return np.float32(1)
    x, y, k = frequencies(grid.size, grid.step)
    reach = grid.size * grid.step / 2
    halo = halo_fraction * (1 - 1 / np.hypot(1, reach / HALO_ARCSEC))  # what falls within the grid
    spikes = SPIKE_FRACTION if lines else 0.0
    out = np.full_like(k, 1 - halo - spikes)
    if halo > 0:
        out += np.float32(halo) * np.exp(np.float32(-2 * np.pi * HALO_ARCSEC) * k)
    for cos, sin in lines:
        along = np.abs(x * np.float32(cos) + y * np.float32(sin))
        out += np.float32(spikes / len(lines)) * np.exp(np.float32(-2 * np.pi * SPIKE_ARCSEC) * along)
    return out


def spike_lines(spikes: int, angle: float) -> list[tuple[float, float]]:
    """Directions (cos, sin) of the lines that make this number of spikes; a line makes two, an odd number doubles."""
    lines = spikes // 2 if spikes % 2 == 0 else spikes
    return [(float(np.cos(t)), float(np.sin(t))) for t in angle + np.pi * np.arange(lines) / max(lines, 1)]


def kernel_transfer(kernel: FloatArray, step_arcsec: float, grid: Grid, scale: float = 1.0) -> ComplexArray:
    """Transfer function of a kernel measured on pixels of `step_arcsec`, widened by `scale`; complex64.

    The kernel is taken as band-limited by its pixels, whose own response is divided out up to their Nyquist frequency,
    and is centred on its centroid.
    """
    kernel = np.asarray(kernel, float) / np.sum(kernel)
    x, y, _ = frequencies(grid.size, grid.step)
    rows, columns = (np.arange(n, dtype=float) for n in kernel.shape)
    rows, columns = rows - kernel.sum(axis=1) @ rows, columns - kernel.sum(axis=0) @ columns
    step = step_arcsec * scale
    along_y = np.exp(-2j * np.pi * step * y.astype(float) * rows[None, :])
    along_x = np.exp(-2j * np.pi * step * columns[:, None] * x.astype(float))
    value = along_y @ kernel @ along_x
    inside = (np.abs(x) < 0.5 / step) & (np.abs(y) < 0.5 / step)
    response = np.sinc(step_arcsec * x) * np.sinc(step_arcsec * y)
    return np.asarray(np.where(inside, value / np.where(inside, response, 1), 0), np.complex64)


@lru_cache(maxsize=64)
def _kernels(path: str) -> FloatArray:
    with fits.open(path, memmap=False) as file:
        data = next(hdu.data for hdu in file if hdu.data is not None)
    return np.atleast_3d(np.asarray(data, float)) if data.ndim == 3 else np.asarray(data, float)[None]


def measured_kernel(path: str, pick: int = 0) -> FloatArray:
    """One kernel of a FITS file with a kernel (k, k) or several (n, k, k); paths are absolute or in configs/surveys."""
    kernels = _kernels(str(Path(CONFIG_DIR / "surveys", path)))
    return np.asarray(kernels[pick % len(kernels)])


def _extra(survey: SurveyFacts, band: str, fwhm: float, grid: Grid) -> FloatArray | np.float32:
    """Gaussian that widens a space PSF of median width to this FWHM; a sharper one is not possible."""
    median = survey.psf_fwhm_arcsec[band]
    if fwhm <= median:
        return np.float32(1)
    _, _, k = frequencies(grid.size, grid.step)
    sigma2 = (fwhm**2 - median**2) / 2.355**2
    return np.exp(np.float32(-2 * np.pi**2 * sigma2) * k * k)


def _correlated(rng: np.random.Generator, n: int) -> FloatArray:
    """Unit-variance numbers (n,) that share most of their variance."""
    own = rng.normal(size=n)
    return np.asarray(np.sqrt(1 - _OWN_PART**2) * rng.normal() + _OWN_PART * own)
