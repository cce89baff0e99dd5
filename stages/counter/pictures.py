"""Labelled pictures for the detector: cutouts and the boxes of their points and deflectors, in ultralytics' layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from tqdm import tqdm

from stages.counter.detector import BOX_FWHM, CLASSES, PSF_PIX, CounterConfig, picture
from stages.dataset import data_sets, native_positions, read_manifest, read_shard, split_of
from stages.records import Cutout, FloatArray
from stages.scaling import Frame, resolution_arcsec

_BLEND_FWHM = 0.6  # points closer than this are one

Boxes = npt.NDArray[np.float64]  # (n, 5): class, x, y, width, height in picture pixels, pixel centres at integers


def write_pictures(data_dir: Path, out_dir: Path, config: CounterConfig) -> Path:
    """Write training and validation pictures with boxes below `out_dir`; returns ultralytics' data file."""
    data_yaml = out_dir / "data.yaml"
    if data_yaml.is_file():
        return data_yaml
    for part in ("train", "validation"):
        (out_dir / "images" / part).mkdir(parents=True, exist_ok=True)
        (out_dir / "labels" / part).mkdir(parents=True, exist_ok=True)
    jobs = [
        (folder, entry["name"], out_dir, config, k)
        for folder in data_sets(data_dir)
        for k, entry in enumerate(read_manifest(folder)["shards"])
    ]
    if config.workers > 1 and len(jobs) > 1:
        with get_context("spawn").Pool(config.workers) as pool:
            list(tqdm(pool.imap_unordered(_write_shard, jobs), total=len(jobs), unit="shard", desc="pictures"))
    else:
        list(map(_write_shard, tqdm(jobs, unit="shard", desc="pictures")))
    layout = {"path": str(out_dir.resolve()), "train": "images/train", "val": "images/validation"}
    data_yaml.write_text(yaml.safe_dump(layout | {"names": dict(enumerate(CLASSES))}))
    return data_yaml


def true_boxes(row: pd.Series, cutout: Cutout, min_snr: float) -> tuple[FloatArray, FloatArray]:
    """Positions (n, 2) in cutout pixels of the points that can be told apart, brightest first, and of the deflector."""
    fwhm_pix = resolution_arcsec(cutout) / cutout.pixel_scale_arcsec
    points = native_positions(row["point_x_pix"], row["point_y_pix"])
    snr = np.asarray(row["point_snr"], float)
    kept: list[FloatArray] = []
    for k in np.argsort(-snr, kind="stable"):
        apart = all(np.hypot(*(points[k] - other)) > _BLEND_FWHM * fwhm_pix for other in kept)
        if snr[k] >= min_snr and apart:
            kept.append(points[k])
    deflector = np.array([[row["deflector_x_pix"], row["deflector_y_pix"]]], float)
    return np.array(kept).reshape(-1, 2), deflector[np.isfinite(deflector).all(axis=1)]


def _write_shard(job: tuple[Path, str, Path, CounterConfig, int]) -> None:
    folder, name, out_dir, config, index = job
    shard = read_shard(folder, name)
    rng = np.random.default_rng([config.seed, index])
    part = split_of(shard.truth["system"].tolist())
    for chosen in ("train", "validation"):
        tiles: list[tuple[npt.NDArray[np.uint8], Boxes]] = []
        for k in np.flatnonzero(part == chosen):
            row, cutout = shard.truth.iloc[k], shard.cutouts[k]
            n_points = int((np.asarray(row["point_snr"], float) >= config.min_snr).sum())
            copies = 2 if n_points > 1 and chosen == "train" else 1
            if n_points or rng.random() < config.plain_share:
                tiles += [_tile(cutout, row, config, rng) for _ in range(copies)]
        for number, (shown, boxes) in enumerate(_mosaics(tiles, config.train_pix)):
            stem = f"{folder.name}-{name}-{number:04d}"
            cv2.imwrite(str(out_dir / "images" / chosen / f"{stem}.png"), shown[..., ::-1])
            size = shown.shape[0]
            lines = [
                f"{int(b[0])} " + " ".join(f"{v / size:.6f}" for v in (b[1] + 0.5, b[2] + 0.5, b[3], b[4]))
                for b in boxes
            ]
            (out_dir / "labels" / chosen / f"{stem}.txt").write_text("\n".join(lines))


def _tile(
    cutout: Cutout, row: pd.Series, config: CounterConfig, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], Boxes]:
    """A picture of a random part of a cutout, at a random resolution near the nominal, with its boxes."""
    points, deflector = true_boxes(row, cutout, config.min_snr)
    resolution = resolution_arcsec(cutout)
    size = config.train_pix // (1 if resolution < 0.3 else 2)
    pixel = resolution / PSF_PIX * rng.uniform(0.85, 1.25)
    room = 0.12 * size * pixel / cutout.pixel_scale_arcsec
    cutout = replace(cutout, xy_pix=cutout.xy_pix + rng.uniform(-room, room, 2))
    if rng.random() < 0.25:
        cutout = _cropped(cutout, rng.uniform(0.55, 0.95) * size * pixel / cutout.pixel_scale_arcsec)
    shown, origin, step = picture(cutout, Frame(size, pixel))
    if cutout.flux.shape[0] == 3 and rng.random() < 0.15:  # one band shown as three
        shown = np.repeat(shown[..., 1:2], 3, axis=2)
    sides = [BOX_FWHM[0]] * len(points) + [BOX_FWHM[1]] * len(deflector)
    kinds = [0.0] * len(points) + [1.0] * len(deflector)
    centres = (np.concatenate([points, deflector]) - origin) / step
    side = np.array(sides) * resolution / pixel
    boxes = np.column_stack([kinds, centres, side, side]).reshape(-1, 5)
    inside = ((centres > 1) & (centres < size - 2)).all(axis=1)
    nearest = np.clip(np.round(centres).astype(int), 0, size - 1)
    seen = (shown[nearest[:, 1], nearest[:, 0]] > 0).any(axis=1)
    return shown, boxes[inside & seen]


def _cropped(cutout: Cutout, side_pix: float) -> Cutout:
    """A cutout whose pixels further than half a side from the object are invalid, as in a smaller file."""
    offset = [np.abs(np.arange(n) - c) for n, c in zip(cutout.flux.shape[1:], cutout.xy_pix[::-1], strict=True)]
    near = (offset[0] <= side_pix / 2)[:, None] & (offset[1] <= side_pix / 2)[None]
    return replace(cutout, valid=cutout.valid & near)


def _mosaics(
    tiles: list[tuple[npt.NDArray[np.uint8], Boxes]], size: int
) -> Iterator[tuple[npt.NDArray[np.uint8], Boxes]]:
    """Whole pictures as they are; half-size ones four to a picture."""
    yield from ((s, b) for s, b in tiles if s.shape[0] == size)
    small = [(s, b) for s, b in tiles if s.shape[0] < size]
    half = size // 2
    for start in range(0, len(small), 4):
        whole, boxes = np.zeros((size, size, 3), np.uint8), []
        for place, (shown, some) in enumerate(small[start : start + 4]):
            y, x = half * (place // 2), half * (place % 2)
            whole[y : y + half, x : x + half] = shown
            boxes.append(some + np.array([0, x, y, 0, 0]))
        yield whole, np.concatenate(boxes)
