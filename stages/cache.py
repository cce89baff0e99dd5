"""A labelled data set transformed once for a network: float16 memory maps that training reads at random."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from stages.dataset import Shard, data_sets, parts_of, read_manifest, read_shard
from stages.records import FloatArray
from stages.scaling import N_CHANNELS, Frame, network_inputs, resample

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Cached:
    """Network input of N labelled cutouts.

    pixels : (N, 6, S, S) float16; conditions : (N, 2); mask : (N, S, S) float16 share of each grid pixel that is lensed
    extended light; truth : the data set's rows with `survey`, `part` (train, validation or test) and the deflector's
    position on the grid (`deflector_x`, `deflector_y`).
    """

    pixels: Half
    conditions: npt.NDArray[np.float32]
    mask: Half
    truth: pd.DataFrame

    def where(self, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Row numbers for which `keep` (N,) holds."""
        return np.flatnonzero(keep)


def cached(data_dir: Path, frame: Frame, cache_dir: Path, workers: int = 2) -> Cached:
    """The data sets below `data_dir` on a frame, from the cache or made anew when the data or the frame differ."""
    jobs = [
        (folder, entry["name"], frame) for folder in data_sets(data_dir) for entry in read_manifest(folder)["shards"]
    ]
    sizes = [entry["n"] for folder in data_sets(data_dir) for entry in read_manifest(folder)["shards"]]
    stamp = json.dumps([asdict(frame), [str(j[:2]) for j in jobs], _hashes(data_dir)])
    key = hashlib.sha256(stamp.encode()).hexdigest()[:16]
    folder = cache_dir / key
    if not (folder / "truth.parquet").is_file():
        _fill(folder, jobs, sizes, frame, workers)
    n = sum(sizes)
    shape = (n, N_CHANNELS, frame.size_pix, frame.size_pix)
    return Cached(
        np.memmap(folder / "pixels.f16", np.float16, "r", shape=shape),
        np.load(folder / "conditions.npy"),
        np.memmap(folder / "mask.f16", np.float16, "r", shape=(n, *shape[2:])),
        pd.read_parquet(folder / "truth.parquet"),
    )


def transform(shard: Shard, frame: Frame) -> tuple[Half, npt.NDArray[np.float32], Half, FloatArray]:
    """One shard for a network: pixels, conditions, lensed mask and deflector positions (N, 2) on the grid."""
    seen = network_inputs(shard.cutouts, frame)
    mask = np.zeros((len(shard.cutouts), frame.size_pix, frame.size_pix), np.float16)
    for k, truth_mask in enumerate(shard.arc_mask):
        if truth_mask.any():
            whole = np.ones((1, *truth_mask.shape), bool)
            plane, _ = resample(
                truth_mask[None].astype(np.float32),
                whole,
                frame.size_pix,
                seen.origin_xy_pix[k],
                float(seen.step_pix[k]),
            )
            mask[k] = plane[0]
    native = shard.truth[["deflector_x_pix", "deflector_y_pix"]].to_numpy(float)
    return seen.pixels.astype(np.float16), seen.conditions, mask, (native - seen.origin_xy_pix) / seen.step_pix[:, None]


def batches(rows: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    """Row numbers in order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _hashes(data_dir: Path) -> list[str]:
    return [hashlib.sha256((f / "manifest.json").read_bytes()).hexdigest() for f in data_sets(data_dir)]


def _fill(folder: Path, jobs: list[tuple[Path, str, Frame]], sizes: list[int], frame: Frame, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    n, size = sum(sizes), frame.size_pix
    pixels = np.memmap(folder / "pixels.f16", np.float16, "w+", shape=(n, N_CHANNELS, size, size))
    mask = np.memmap(folder / "mask.f16", np.float16, "w+", shape=(n, size, size))
    conditions, truths, at = [], [], 0
    with tqdm(total=n, unit="cutout", desc="transform") as bar:
        for got_pixels, got_conditions, got_mask, truth in _map(_job, jobs, workers):
            pixels[at : at + len(truth)], mask[at : at + len(truth)] = got_pixels, got_mask
            conditions.append(got_conditions)
            truths.append(truth)
            at += len(truth)
            bar.update(len(truth))
    pixels.flush()
    mask.flush()
    np.save(folder / "conditions.npy", np.concatenate(conditions))
    table = pd.concat(truths, ignore_index=True)
    table["part"] = parts_of(table)
    table.to_parquet(folder / "truth.parquet")


def _job(job: tuple[Path, str, Frame]) -> tuple[Half, npt.NDArray[np.float32], Half, pd.DataFrame]:
    folder, name, frame = job
    shard = read_shard(folder, name)
    pixels, conditions, mask, deflector = transform(shard, frame)
    truth = shard.truth.assign(survey=shard.cutouts[0].survey, deflector_x=deflector[:, 0], deflector_y=deflector[:, 1])
    return pixels, conditions, mask, truth


_Made = tuple[Half, npt.NDArray[np.float32], Half, pd.DataFrame]


def _map(
    work: Callable[[tuple[Path, str, Frame]], _Made], jobs: list[tuple[Path, str, Frame]], workers: int
) -> Iterator[_Made]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(work, jobs)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, jobs)
