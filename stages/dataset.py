"""Labelled data sets on disk: shards of cutouts with their truth, and a manifest; split by system, never by file.

A data set is a folder with `manifest.json`, and for each shard `shard-00000.npz` (pixels) and `shard-00000.parquet`
(truth, one row per cutout, see `TRUTH_COLUMNS`; a column `part` where the data set states its split, see `parts_of`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages.records import BoolArray, Cutout, FloatArray

TRUTH_COLUMNS: dict[str, str] = {
    "id": "unique name of the cutout",
    "system": "what is shared by a lens and its twin, or by every use of a real background: the unit of every split",
    "label": "1 lens, 0 not",
    "kind": "lens_galaxy, lens_quasar, lens_supernova, twin, or the name of the impostor",
    "boost": "how many times more often than in nature the object is drawn; weigh by its inverse for true proportions",
    "theta_e_arcsec": "Einstein radius of the main deflector (NaN: no lens)",
    "slope": "its three-dimensional density slope",
    "q": "axis ratio of the deflector's mass",
    "pa_deg": "position angle of the deflector's mass, from +x to +y",
    "core_arcsec": "radius of its uniform core",
    "gamma1": "external shear",
    "gamma2": "external shear",
    "z_deflector": "redshift",
    "z_source": "redshift",
    "velocity_dispersion_km_s": "of the main deflector",
    "deflector_kind": "early, disc, group or pair",
    "n_satellites": "galaxies beside the main deflector that have mass",
    "n_subhaloes": "dark subhaloes",
    "source_magnitude": "unlensed, AB i",
    "n_sources": "sources that are lensed",
    "source_x_arcsec": "position of the first source relative to the deflector",
    "source_y_arcsec": "position of the first source relative to the deflector",
    "deflector_x_pix": "deflector position in the cutout",
    "deflector_y_pix": "deflector position in the cutout",
    "image_x_pix": "list, in order of arrival: images of the first source's point, or of its centre",
    "image_y_pix": "list",
    "image_magnification": "list: signed magnification (the sign is the parity)",
    "image_parity": "list: +1 or -1",
    "image_kind": "list: minimum, saddle or maximum of the arrival time; the maximum is the central image",
    "image_delay_arcsec2": "list: Fermat potential above that of the first image",
    "image_magnitude": "list: AB, in the band where the images stand highest above the noise",
    "image_seen": "list: above 5 sigma as a point",
    "image_resolved": "list: further than one FWHM from every brighter image",
    "n_images": "number of images without the centre",
    "n_images_with_centre": "number of images, centre included (odd)",
    "n_images_seen": "number of images that are both seen and resolved",
    "parity_sum": "sum of all parities (1)",
    "point_x_pix": "list: every point-like source, lensed or not, that stands above the noise",
    "point_y_pix": "list",
    "point_snr": "list: its signal to noise in the best band",
    "point_share": "list: its part of the light that the PSF takes in at its place, in its best band",
    "arc_snr": "signal to noise of the lensed extended light within the arc mask, best band",
    "arc_contrast": "lensed light over deflector light within the arc mask, best band",
    "coverage_deg": "part of 360 deg about the deflector in which lensed light stands above the noise",
    "n_arcs": "number of unbroken arcs",
    "stretch": "length over width of the longest arc",
    "magnification": "lensed over unlensed extended light",
    "seeing_arcsec": "median seeing of the bands",
    "drawn": "JSON: everything that was drawn",
}


PARTS = ("train", "validation", "test")


class DatasetError(ValueError):
    """A data set that cannot be read; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Cutouts with truth; bit k of source_mask (N, H, W) uint8 marks where source k is seen lensed."""

    cutouts: tuple[Cutout, ...]
    truth: pd.DataFrame
    source_mask: npt.NDArray[np.uint8]

    @property
    def arc_mask(self) -> BoolArray:
        """Where (N, H, W) lensed extended light of any source is seen."""
        return np.asarray(self.source_mask > 0)


def write_shard(folder: Path, index: int, shard: Shard) -> str:
    """Write one shard; the same shard gives the same bytes. Returns its name."""
    name = f"shard-{index:05d}"
    first = shard.cutouts[0]
    partial = folder / f".{name}.npz"
    with partial.open("wb") as file:
        np.savez(  # not compressed: read as fast as the disk gives
            file,
            flux=np.stack([c.flux for c in shard.cutouts]).astype(np.float32),
            sigma=np.sqrt(np.stack([c.variance for c in shard.cutouts])).astype(np.float32),
            valid=np.stack([c.valid for c in shard.cutouts]),
            psf_fwhm_arcsec=np.stack([c.psf_fwhm_arcsec for c in shard.cutouts]).astype(np.float32),
            psf=np.stack([c.psf for c in shard.cutouts]).astype(np.float16),
            xy_pix=np.stack([c.xy_pix for c in shard.cutouts]).astype(np.float32),
            source_mask=shard.source_mask,
            bands=np.array(first.bands),
            pixel_scale_arcsec=np.array(first.pixel_scale_arcsec),
            survey=np.array(first.survey),
        )
    shard.truth.to_parquet(folder / f"{name}.parquet", index=False)
    partial.replace(folder / f"{name}.npz")
    return name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a data set; raises DatasetError if the folder is none or is unfinished."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{folder}: no data set ({error}). Make one with `python sim/generate.py`.") from error
    if manifest["status"] != "complete":
        raise DatasetError(f"{folder}: unfinished. Run the same `python sim/generate.py` command again to complete it.")
    return manifest


def data_sets(folder: Path) -> list[Path]:
    """The data sets in a folder: itself, or every folder below it that has a manifest, in name order."""
    found = (
        [folder] if (folder / "manifest.json").is_file() else sorted(p.parent for p in folder.glob("*/manifest.json"))
    )
    if not found:
        raise DatasetError(f"{folder}: holds no data set. Make one with `python sim/generate.py --out {folder}/NAME`.")
    return found


def fingerprint(folder: Path) -> dict[str, Any]:
    """Survey, count, seed and manifest hash of each data set in a folder, for a weight card."""
    prints: dict[str, Any] = {}
    for path in data_sets(folder):
        manifest = read_manifest(path)
        digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        prints[path.name] = {key: manifest[key] for key in ("survey", "n", "seed")} | {"manifest_sha256": digest}
    return prints


def read_shards(folder: Path) -> Iterator[Shard]:
    """Stream the shards of every data set in a folder, one in memory at a time."""
    for path in data_sets(folder):
        for entry in read_manifest(path)["shards"]:
            yield read_shard(path, entry["name"])


def shards_to_test(folder: Path, learned: Mapping[str, Any]) -> Iterator[tuple[Shard, npt.NDArray[np.intp]]]:
    """Each shard with the rows that weights can be tested on.

    These are the test systems of data sets that they learned from (`learned`, a card's `data`; same survey and seed)
    and all of other data sets.
    """
    known = {(entry["survey"], entry["seed"]) for entry in learned.values() if "seed" in entry}
    for path in data_sets(folder):
        manifest = read_manifest(path)
        seen = (manifest["survey"], manifest["seed"]) in known
        for entry in manifest["shards"]:
            shard = read_shard(path, entry["name"])
            yield shard, np.flatnonzero((parts_of(shard.truth) == "test") | (not seen))


def read_shard(folder: Path, name: str) -> Shard:
    """Read one shard."""
    truth = pd.read_parquet(folder / f"{name}.parquet")
    with np.load(folder / f"{name}.npz") as data:
        arrays = {key: data[key] for key in data.files}
    bands = tuple(str(b) for b in arrays["bands"])
    cutouts = tuple(
        Cutout(
            id=str(truth["id"].iloc[k]),
            source=name,
            flux=arrays["flux"][k],
            variance=arrays["sigma"][k] ** 2,
            valid=arrays["valid"][k],
            bands=bands,
            pixel_scale_arcsec=float(arrays["pixel_scale_arcsec"]),
            psf_fwhm_arcsec=arrays["psf_fwhm_arcsec"][k].astype(float),
            psf=arrays["psf"][k].astype(np.float32) if "psf" in arrays else np.zeros((0, 0, 0), np.float32),
            xy_pix=arrays["xy_pix"][k].astype(float),
            origin_xy_pix=np.zeros(2),
            survey=str(arrays["survey"]),
        )
        for k in range(len(truth))
    )
    return Shard(cutouts, truth, arrays["source_mask"])


def split_of(systems: Sequence[str], seed: int = 0) -> npt.NDArray[np.str_]:
    """Each system's part: "train" (80%), "validation" (10%) or "test" (10%), by a hash of its name alone."""
    digest = [int(hashlib.sha256(f"{seed}:{s}".encode()).hexdigest()[:8], 16) / 2**32 for s in systems]
    return np.select([np.array(digest) < 0.8, np.array(digest) < 0.9], ["train", "validation"], "test").astype(np.str_)


def parts_of(truth: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Each row's part: as the data set says in a column `part`, else by its system."""
    parts = split_of(truth["system"].tolist())
    if "part" not in truth:
        return parts
    return np.where(truth["part"].isin(PARTS), truth["part"], parts).astype(np.str_)


def unclear_lenses(
    truth: pd.DataFrame, *, min_arc_snr: float = 0.0, min_arc_contrast: float = 0.0, max_arc_contrast: float = np.inf,
    min_theta_e_seeing: float = 0.0,
) -> BoolArray:  # fmt: skip
    """Lenses (n,) that cannot be told from a lone galaxy, star or smudge.

    The arc of a lensed galaxy has less than `min_arc_snr` or is less than `min_arc_contrast` or more than
    `max_arc_contrast` times as bright as its deflector; or the Einstein radius, whatever the source, is below
    `min_theta_e_seeing` times the seeing.
    """
    contrast = truth["arc_contrast"]
    hidden = (truth["arc_snr"] < min_arc_snr) | (contrast < min_arc_contrast) | (contrast > max_arc_contrast)
    small = truth["theta_e_arcsec"] < min_theta_e_seeing * truth["seeing_arcsec"]
    lens = truth["label"] == 1
    return np.asarray(lens & (small | (hidden & (truth["kind"] == "lens_galaxy"))))


def native_positions(xs: Sequence[float], ys: Sequence[float]) -> FloatArray:
    """List columns as an (n, 2) array of positions."""
    return np.column_stack([np.asarray(xs, float), np.asarray(ys, float)]).reshape(-1, 2)
