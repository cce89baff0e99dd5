"""Instrument facts of a survey, read from `configs/surveys/NAME.yaml`: the one home of each number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages import config as configuration

# What `SurveyFacts.artefact_rates` may name; `sim/instrument/artefacts.py` draws them.
ARTEFACTS = (
    "satellite_trail", "moving_object", "cosmic_rays", "unmasked_cosmic_rays", "masked_column", "chip_edge", "ghost",
)  # fmt: skip

_RANGES = {  # least, greatest and unit of each single number
    "pixel_scale_arcsec": (0.001, 10.0, "arcsec per pixel"),
    "cutout_arcsec": (0.1, 600.0, "arcsec"),
    "psf_fwhm_scatter": (0.0, 1.0, "a fraction of the FWHM"),
    "psf_beta": (1.1, 10.0, "a Moffat index"),
    "psf_ellipticity": (0.0, 0.3, "(a - b) / (a + b)"),
    "band_offset_arcsec": (0.0, 1.0, "arcsec"),
    "noise_correlation_pix": (0.0, 5.0, "pixels"),
    "resampled_exposures": (0, 1000, "a number of exposures"),
    "noise_variation": (0.0, 1.0, "rms of the local variance over its mean"),
    "noise_pattern": (0.0, 1.0, "amplitude over the mean variance"),
    "noise_pattern_pix": (2.0, 1000.0, "a period in pixels"),
    "sky_residual": (0.0, 5.0, "a multiple of sky_sigma"),
    "density_per_arcmin2": (0.0, 2000.0, "galaxies per square arcmin"),
    "star_density_per_arcmin2": (0.0, 2000.0, "stars per square arcmin"),
    "spikes": (0, 16, "a number of spikes"),
    "halo_fraction": (0.0, 0.3, "a fraction of the light"),
    "depth_sigmas": (1.0, 100.0, "a signal-to-noise ratio"),
    "depth_aperture_arcsec": (0.0, 10.0, "arcsec"),
}
_PER_BAND = {  # unit of each mapping by band
    "psf_fwhm_arcsec": "FWHM in arcsec",
    "zero_point": "AB magnitude of one flux unit",
    "sky_sigma": "flux units",
    "gain": "electrons per flux unit",
    "saturation": "flux units",
    "depth_mag": "AB magnitude",
    "sky_level": "a multiple of sky_sigma",
}


@dataclass(frozen=True)
class Stretch:
    """How a colour composite was made from flux (Lupton et al. 2004).

    bands : the filters shown as red, green and blue; scales : their factors.
    zero_point : AB magnitude of one flux unit; alpha, q : softening of the asinh stretch.
    kind : "lupton", or "linear" for scales alone; truncated : levels had their fraction cut off, not rounded.
    """

    bands: tuple[str, ...]
    scales: tuple[float, ...]
    zero_point: float
    alpha: float
    q: float
    kind: str = "lupton"
    truncated: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("lupton", "linear"):
            raise ValueError(f"stretch kind {self.kind!r}: expected lupton or linear")
        if len(self.bands) != 3 or len(self.scales) != 3:
            raise ValueError("stretch: expected three bands and three scales, red first")


@dataclass(frozen=True)
class SurveyFacts:
    """What is known of a survey's images; mappings are by band.

    bands : blue to red, the order of a cutout's planes; filters : each band's transmission curve, "sedpy:NAME" or
    "speclite:NAME"; pixel_scale_arcsec : arcsec per pixel; cutout_arcsec : side of a cutout.

    psf_fwhm_arcsec : median seeing; psf_fwhm_scatter : its fractional scatter (lognormal); psf_beta : Moffat index
    (ground); psf_ellipticity : rms of (a - b) / (a + b); psf_files : measured PSFs, FITS kernels with the pixels of the
    survey, relative to the survey's file, in place of the model; band_offset_arcsec : rms error of a band's
    registration, per axis.

    zero_point : AB magnitude of one flux unit; sky_sigma : background rms per pixel in flux units; gain : effective
    electrons per flux unit; saturation : flux units at which a pixel is full; bleeds : a full pixel spills along its
    column. noise_correlation_pix : Gaussian sigma in pixels of the kernel that the noise is smoothed with;
    noise_correlation : measured autocorrelation [dy][dx] of the noise, lag (0, 0) = 1, in place of that Gaussian;
    resampled_exposures : exposures of a stack, each resampled by Lanczos-3 interpolation at a phase of its own, which
    moves the correlation from field to field; 0: it does not vary.
    noise_variation : rms of the variance from pixel to pixel over its mean, as exposures lost to cosmic rays leave it.
    noise_pattern, noise_pattern_pix : amplitude and period of the beat that resampling leaves in the variance, cos(2 pi
    x / period) cos(2 pi y / period) (Fruchter & Hook 2002, section 7).
    sky_residual, sky_level : rms of the large-scale sky that the reduction left, and its mean by band, in units of
    sky_sigma.

    density_per_arcmin2 : galaxies to about the depth; star_density_per_arcmin2 : stars brighter than i = 23.
    spikes : diffraction spikes of a bright star (0: none); spike_angle_deg : of the first, from x towards y; left out
    where the field rotates; halo_fraction : part of a star's light in the aureole beyond its PSF.
    artefact_rates : chance per cutout of each name in `ARTEFACTS`.

    depth_mag : published AB depth of a point source at `depth_sigmas`, in an aperture of diameter
    `depth_aperture_arcsec` (0: the best a point source allows). A check of sky_sigma; nothing else reads it.

    stretch, composite_shift_pix : how a colour composite was made, and (x, y) by how much of a pixel it was moved
    after that by linear interpolation: neighbouring pixels averaged with weights 1 - shift and shift, and rounded up.
    measured : what `sim/match.py` found, with errors; the simulator does not read it.
    sources : where each number comes from.
    """

    name: str
    kind: str
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: dict[str, float]
    zero_point: dict[str, float]
    sky_sigma: dict[str, float] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    psf_fwhm_scatter: float = 0.1
    psf_beta: float = 3.0
    psf_ellipticity: float = 0.02
    psf_files: dict[str, str] = field(default_factory=dict)
    band_offset_arcsec: float = 0.0
    bleeds: bool = False
    noise_correlation_pix: float = 0.0
    noise_correlation: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    resampled_exposures: int = 0
    noise_variation: float = 0.0
    noise_pattern: float = 0.0
    noise_pattern_pix: float = 8.0
    sky_residual: float = 0.0
    sky_level: dict[str, float] = field(default_factory=dict)
    composite_shift_pix: tuple[float, float] = (0.0, 0.0)
    cutout_arcsec: float = 12.0
    density_per_arcmin2: float = 40.0
    star_density_per_arcmin2: float = 2.0
    spikes: int = 0
    spike_angle_deg: float | None = None
    halo_fraction: float = 0.0
    artefact_rates: dict[str, float] = field(default_factory=dict)
    depth_mag: dict[str, float] = field(default_factory=dict)
    depth_sigmas: float = 5.0
    depth_aperture_arcsec: float = 0.0
    stretch: Stretch | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [fault for found in (_words, _numbers, _mappings, _tables) for fault in found(self)]
        if faults:
            raise ValueError("; ".join(faults))


def read(path: Path) -> SurveyFacts:
    """The facts in a survey file, with the paths of measured PSFs made absolute; raises ConfigError."""
    facts = configuration.load(SurveyFacts, path)
    folder = path.absolute().parent
    return replace(facts, psf_files={band: str(folder / file) for band, file in facts.psf_files.items()})


def _words(s: SurveyFacts) -> list[str]:
    """Faults of what is not a number."""
    faults = []
    if s.kind not in ("ground", "space"):
        faults.append(f"kind {s.kind!r}: expected ground or space")
    if not s.bands or len(set(s.bands)) < len(s.bands):
        faults.append(f"bands {list(s.bands)}: expected one or more different names")
    wrong = sorted(f for f in s.filters.values() if f.partition(":")[0] not in ("sedpy", "speclite"))
    if wrong:
        faults.append(f"filters {wrong}: expected sedpy:NAME or speclite:NAME")
    unknown = sorted(set(s.artefact_rates) - set(ARTEFACTS))
    if unknown:
        faults.append(f"artefact_rates {unknown}: expected some of {list(ARTEFACTS)}")
    return faults


def _numbers(s: SurveyFacts) -> list[str]:
    """Faults of single numbers."""
    faults = []
    for name, (low, high, unit) in _RANGES.items():
        value = getattr(s, name)
        if not low <= value <= high:
            faults.append(f"{name} {value}: expected {unit} between {low} and {high}")
    if any(not 0 <= part < 1 for part in s.composite_shift_pix):
        faults.append(f"composite_shift_pix {list(s.composite_shift_pix)}: expected pixels between 0 and 1")
    if s.spike_angle_deg is not None and not -360 <= s.spike_angle_deg <= 360:
        faults.append(f"spike_angle_deg {s.spike_angle_deg}: expected degrees")
    faults += [
        f"artefact_rates.{name} {rate}: expected a chance per cutout between 0 and 1"
        for name, rate in s.artefact_rates.items()
        if not 0 <= rate <= 1
    ]
    return faults


def _mappings(s: SurveyFacts) -> list[str]:
    """Faults of the mappings by band: bands left out or not known, values that cannot be."""
    faults = []
    for name, unit in _PER_BAND.items():
        values = getattr(s, name)
        absent = sorted(set(s.bands) - set(values))
        if absent and name in ("psf_fwhm_arcsec", "zero_point"):
            faults.append(f"{name}: no value ({unit}) for bands {absent}")
        for band, value in values.items():
            if not math.isfinite(value) or (value <= 0 and name not in ("zero_point", "depth_mag", "sky_level")):
                faults.append(f"{name}.{band} {value}: expected {unit}")
    for name in (*_PER_BAND, "filters", "psf_files", "noise_correlation"):
        unknown = sorted(set(getattr(s, name)) - set(s.bands))
        if unknown:
            faults.append(f"{name}: {unknown} not among bands {list(s.bands)}")
    return faults


def _tables(s: SurveyFacts) -> list[str]:
    """Faults of the autocorrelation tables."""
    faults = []
    for band, rows in s.noise_correlation.items():
        if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
            faults.append(f"noise_correlation.{band}: expected rows of equal length, lag in pixels [dy][dx]")
        elif abs(rows[0][0] - 1) > 1e-6 or max(abs(value) for row in rows for value in row) > 1 + 1e-6:
            faults.append(f"noise_correlation.{band}: expected 1 at lag (0, 0) and -1 to 1 elsewhere")
    return faults
