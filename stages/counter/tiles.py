"""What the detector learns from: parts of labelled cutouts as network input, with boxes of points and deflectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from stages.counter.detector import BOX_FWHM, PSF_PIX, CounterConfig
from stages.dataset import data_sets, native_positions, parts_of, read_manifest, read_shard
from stages.records import Cutout, FloatArray
from stages.scaling import N_CHANNELS, N_SLOTS, SHARP_ARCSEC, Frame, network_inputs, resolution_arcsec

PARTS = ("train", "validation")
_BLEND_FWHM = 0.6  # points closer than this are one
_FINER, _COARSER = 0.85, 1.25  # limits of a tile's pixel against the nominal

Half = npt.NDArray[np.float16]
Boxes = npt.NDArray[np.float32]  # (n, 4): class, x, y, side in pixels, pixel centres at integers
_Made = dict[tuple[str, int], tuple[Half, list[Boxes]]]


@dataclass(frozen=True, eq=False)
class Tiles:
    """N tiles of one size: `pixels` (N, 6, S, S) and the boxes of each."""

    pixels: Half
    boxes: list[Boxes]

    def batch(self, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Pixels (n, 6, S, S) of some rows, and their boxes (m, 5) with the index in the batch first."""
        boxes = [np.column_stack([np.full(len(self.boxes[k]), j), self.boxes[k]]) for j, k in enumerate(rows)]
        return np.asarray(self.pixels[rows], np.float32), np.concatenate(boxes).astype(np.float32).reshape(-1, 5)


def tiles(data_dir: Path, out_dir: Path, config: CounterConfig) -> dict[str, list[Tiles]]:
    """The tiles of every data set below `data_dir`, a list of sizes for each of `PARTS`; kept in `out_dir`."""
    sizes = (config.train_pix, config.train_pix // 2)
    if not (out_dir / "complete").is_file():
        _write(data_dir, out_dir, config, sizes)
    found = {part: [_read(out_dir, part, size) for size in sizes] for part in PARTS}
    return {part: [t for t in some if len(t.boxes)] for part, some in found.items()}


def true_boxes(row: pd.Series, cutout: Cutout, min_snr: float) -> tuple[FloatArray, FloatArray]:
    """Positions (n, 2) in cutout pixels of the points that can be told apart, brightest first, and of the deflector.

    A deflector under one of the points is none that can be told from it: a star's or a quasar's own place.
    """
    fwhm_pix = resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    points = native_positions(row["point_x_pix"], row["point_y_pix"])
    snr = np.asarray(row["point_snr"], float)
    kept: list[FloatArray] = []
    for k in np.argsort(-snr, kind="stable"):
        apart = all(np.hypot(*(points[k] - other)) > _BLEND_FWHM * fwhm_pix for other in kept)
        if snr[k] >= min_snr and apart:
            kept.append(points[k])
    deflector = np.array([row["deflector_x_pix"], row["deflector_y_pix"]], float)
    seen = np.isfinite(deflector).all() and all(np.hypot(*(deflector - p)) > _BLEND_FWHM * fwhm_pix for p in kept)
    return np.array(kept).reshape(-1, 2), deflector[None] if seen else np.empty((0, 2))


def _write(data_dir: Path, out_dir: Path, config: CounterConfig, sizes: tuple[int, ...]) -> None:
    out_dir.mkdir(parents=True, exist_ok=True)
    jobs = [
        (folder, entry["name"], config, k)
        for folder in data_sets(data_dir)
        for k, entry in enumerate(read_manifest(folder)["shards"])
    ]
    boxes: dict[tuple[str, int], list[Boxes]] = {(part, size): [] for part in PARTS for size in sizes}
    for part, size in boxes:
        _pixels(out_dir, part, size).unlink(missing_ok=True)
    with get_context("spawn").Pool(config.workers) as pool:
        for made in tqdm(pool.imap(_tiles_of, jobs), total=len(jobs), unit="shard", desc="tiles"):
            for (part, size), (pixels, some) in made.items():
                boxes[part, size] += some
                with _pixels(out_dir, part, size).open("ab") as file:
                    file.write(pixels.tobytes())
    for (part, size), some in boxes.items():
        rows = [np.column_stack([np.full(len(b), k), b]) for k, b in enumerate(some)]
        np.savez(_boxes(out_dir, part, size), n=len(some), rows=np.concatenate([np.empty((0, 5)), *rows]))
    (out_dir / "complete").touch()


def _read(out_dir: Path, part: str, size: int) -> Tiles:
    with np.load(_boxes(out_dir, part, size)) as saved:
        n, rows = int(saved["n"]), saved["rows"]
    if n == 0:
        return Tiles(np.empty((0, N_CHANNELS, size, size), np.float16), [])
    pixels = np.memmap(_pixels(out_dir, part, size), np.float16, "r", shape=(n, N_CHANNELS, size, size))
    starts = np.searchsorted(rows[:, 0], np.arange(1, n))
    return Tiles(pixels, [b[:, 1:].astype(np.float32) for b in np.split(rows, starts)])


def _pixels(out_dir: Path, part: str, size: int) -> Path:
    return out_dir / f"{part}-{size}.f16"


def _boxes(out_dir: Path, part: str, size: int) -> Path:
    return out_dir / f"{part}-{size}.npz"


def _tiles_of(job: tuple[Path, str, CounterConfig, int]) -> _Made:
    """Tiles of a shard by part and size; those with several points twice in the training part."""
    folder, name, config, index = job
    shard = read_shard(folder, name)
    rng = np.random.default_rng([config.seed, index])
    pixels: dict[tuple[str, int], list[Half]] = {}
    boxes: dict[tuple[str, int], list[Boxes]] = {}
    for k, (cutout, part) in enumerate(zip(shard.cutouts, parts_of(shard.truth), strict=True)):
        row = shard.truth.iloc[k]
        n_points = int((np.asarray(row["point_snr"], float) >= config.min_snr).sum())
        if part not in PARTS or not (n_points or rng.random() < config.plain_share):
            continue
        for _ in range(2 if n_points > 1 and part == "train" else 1):
            shown, some = _tile(cutout, row, config, rng)
            key = (str(part), shown.shape[-1])
            pixels.setdefault(key, []).append(shown)
            boxes.setdefault(key, []).append(some)
    return {key: (np.stack(pixels[key]), boxes[key]) for key in pixels}


def _tile(cutout: Cutout, row: pd.Series, config: CounterConfig, rng: np.random.Generator) -> tuple[Half, Boxes]:
    """A random part of a cutout, at a random resolution near the nominal, with its boxes."""
    points, deflector = true_boxes(row, cutout, config.min_snr)
    resolution = resolution_arcsec(cutout)
    size = config.train_pix // (1 if resolution < SHARP_ARCSEC else 2)
    pixel = resolution / PSF_PIX * rng.uniform(_FINER, _COARSER)
    room = 0.12 * size * pixel / cutout.pixel_scale_arcsec
    cutout = replace(cutout, xy_pix=cutout.xy_pix + rng.uniform(-room, room, 2))
    if rng.random() < 0.25:
        cutout = _cropped(cutout, rng.uniform(0.55, 0.95) * size * pixel / cutout.pixel_scale_arcsec)
    seen = network_inputs([cutout], Frame(size, pixel))
    centres = (np.concatenate([points, deflector]) - seen.origin_xy_pix[0]) / seen.step_pix[0]
    kinds = np.repeat([0.0, 1.0], [len(points), len(deflector)])
    sides = np.repeat(BOX_FWHM, [len(points), len(deflector)]) * resolution / pixel
    boxes = np.column_stack([kinds, centres, sides]).astype(np.float32)
    return seen.pixels[0].astype(np.float16), boxes[is_seen(boxes[:, 1:3], seen.pixels[0, N_SLOTS:])]


def is_seen(xy: npt.NDArray[np.float32], valid: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which positions (n, 2) = (x, y) lie on a pixel that some plane of `valid` (3, S, S) has."""
    size = valid.shape[-1]
    inside = ((xy > 1) & (xy < size - 2)).all(axis=1)
    x, y = np.clip(np.round(xy).astype(int), 0, size - 1).T
    return np.asarray(inside & (valid[:, y, x] > 0).any(axis=0))


def _cropped(cutout: Cutout, side_pix: float) -> Cutout:
    """A cutout whose pixels further than half a side from the object are invalid, as in a smaller file."""
    offset = [np.abs(np.arange(n) - c) for n, c in zip(cutout.flux.shape[1:], cutout.xy_pix[::-1], strict=True)]
    near = (offset[0] <= side_pix / 2)[:, None] & (offset[1] <= side_pix / 2)[None]
    return replace(cutout, valid=cutout.valid & near)
