"""Real and simulated cutouts made comparable: same bands, size, centring, brightness and masks, no trace of the file.

What depends on how a file was written (its error map, invalid pixels, where the catalogue put the centre, 8-bit steps)
is taken out of both or refused, since a classifier would find it before it looked at the sky.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sim.generate import load_survey
from sim.likeness.features import brightness, centre, form, neighbours_mask
from stages.dataset import read_shards
from stages.ingest import IngestOptions, Survey
from stages.records import Cutout, FloatArray
from stages.survey import SurveyFacts

_MATCH_DEX = 0.1  # a pair's brightness over noise differs by less
_MAX_PER_REAL = 4
_KEPT = 0.95  # share of the pairs that a further simulated partner each may not cost
_MIN_REACH_PIX = 12
_SCALE_TOLERANCE = 0.05
_STEPS_RATIO = 2.0  # the shares of distinct pixel values may differ by this factor
_SAME_SKY_ARCSEC = 60.0

IntArray = npt.NDArray[np.intp]


class RealismError(ValueError):
    """Samples that cannot be compared; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Sample:
    """N cutouts, their groups (never split between folds), their kinds, and the form of their files by column."""

    cutouts: tuple[Cutout, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    form: pd.DataFrame

    def take(self, index: Sequence[int] | IntArray) -> Sample:
        """Some of the cutouts."""
        return Sample(
            tuple(self.cutouts[k] for k in index), tuple(self.groups[k] for k in index),
            tuple(self.kinds[k] for k in index), self.form.iloc[list(index)].reset_index(drop=True),
        )  # fmt: skip


def read_samples(options: argparse.Namespace, pool: Executor) -> tuple[Sample, Sample, pd.DataFrame]:
    """Real and simulated cutouts of equal size, bands and centring, and the truth of the whole simulated data set."""
    survey = None if options.survey is None else load_survey(options.survey)
    ingest = IngestOptions(catalogue=options.catalogue, survey=survey, workers=options.workers)
    real = [named(c, survey) for batch in Survey(options.real, ingest).batches() for c in batch.cutouts]
    group_of = sky_groups(real)
    if options.where is not None:
        if options.catalogue is None:
            raise RealismError("--where selects rows of a catalogue. Give --catalogue as well.")
        chosen = set(_query(pd.read_csv(options.catalogue, dtype={"id": str}), options.where, "--where")["id"])
        real = [c for c in real if c.id in chosen]
    sim, truth = [], []
    for shard in read_shards(options.sim):
        wanted = shard.truth if options.sim_where is None else _query(shard.truth, options.sim_where, "--sim-where")
        sim += [shard.cutouts[k] for k in shard.truth.index.get_indexer(wanted.index)]
        truth.append(shard.truth)
    held = pd.concat(truth).set_index("id", drop=False)
    if not real or not sim:
        raise RealismError(f"{len(real)} real and {len(sim)} simulated cutouts chosen. Widen --where or --sim-where.")
    check_scale(real, sim)
    forms = [pd.DataFrame(list(pool.map(form, s, chunksize=16))) for s in (real, sim)]
    check_form(*forms)
    kept = [np.flatnonzero(f["invalid"] <= options.max_invalid) for f in forms]
    if not len(kept[0]) or not len(kept[1]):
        raise RealismError(
            f"{len(kept[0])} real and {len(kept[1])} simulated cutouts have at most a share of {options.max_invalid} "
            "invalid pixels. Raise --max-invalid."
        )
    sides = []
    for cutouts, file_form, index in zip((real, sim), forms, kept, strict=True):
        chosen_cutouts = [cutouts[k] for k in index]
        middle = list(pool.map(centre, chosen_cutouts, chunksize=16))
        moved = [replace(c, xy_pix=xy) for c, xy in zip(chosen_cutouts, middle, strict=True)]
        sides.append((moved, file_form.iloc[index].reset_index(drop=True)))
    kinds = [tuple("real" for _ in sides[0][0]), tuple(held.loc[[c.id for c in sides[1][0]], "kind"])]
    groups = [tuple(group_of[c.source] for c in sides[0][0]), tuple(held.loc[[c.id for c in sides[1][0]], "system"])]
    if options.mask_neighbours is not None:
        hide = partial(without_neighbours, beyond_arcsec=options.mask_neighbours)
        sides = [(list(pool.map(hide, cutouts, chunksize=16)), file_form) for cutouts, file_form in sides]
    bands, reach = common(sides[0][0], sides[1][0])
    samples = []
    for (cutouts, file_form), kind, group in zip(sides, kinds, groups, strict=True):
        index = np.array([k for k, c in enumerate(cutouts) if _reach(c) >= reach], dtype=np.intp)
        whole = Sample(tuple(cutouts), group, kind, file_form).take(index)
        samples.append(replace(whole, cutouts=tuple(cut(c, bands, reach) for c in whole.cutouts)))
    return samples[0], samples[1], held


def named(cutout: Cutout, survey: SurveyFacts | None) -> Cutout:
    """The cutout with the survey's band names where its file gives none."""
    if survey is None or any(cutout.bands) or len(cutout.bands) != len(survey.bands):
        return cutout
    return replace(cutout, bands=survey.bands)


def _query(table: pd.DataFrame, condition: str, name: str) -> pd.DataFrame:
    try:
        return table.query(condition)
    except Exception as error:  # pandas raises whatever the expression raises
        raise RealismError(f"{name} {condition!r}: {error}. Use the columns {list(table.columns)}.") from error


def sky_groups(cutouts: Sequence[Cutout]) -> dict[str, str]:
    """A group for each source file; files less than an arcminute apart share one, because tiles overlap."""
    names = sorted({c.source for c in cutouts})
    place: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for c in cutouts:
        if np.isfinite([c.ra_deg, c.dec_deg]).all():
            place[c.source].append((c.ra_deg, c.dec_deg))
    known = [name for name in names if place[name]]
    sky = np.radians([np.median(place[name], axis=0) for name in known]).reshape(-1, 2)
    unit = np.column_stack(
        [np.cos(sky[:, 1]) * np.cos(sky[:, 0]), np.cos(sky[:, 1]) * np.sin(sky[:, 0]), np.sin(sky[:, 1])]
    )
    near = unit @ unit.T > np.cos(np.radians(_SAME_SKY_ARCSEC / 3600.0))
    _, part = connected_components(csr_array(near), directed=False)
    return dict(zip(names, names, strict=True)) | {name: f"sky {k}" for name, k in zip(known, part, strict=True)}


def check_scale(real: Sequence[Cutout], sim: Sequence[Cutout]) -> None:
    """Refuse to compare pixels of different size."""
    ours, theirs = (float(np.median([c.pixel_scale_arcsec for c in s])) for s in (sim, real))
    if not np.isfinite(theirs):
        raise RealismError("the real cutouts carry no pixel scale. Give --survey with a name or a survey file.")
    if abs(ours / theirs - 1) > _SCALE_TOLERANCE:
        raise RealismError(
            f"real pixels are {theirs:.4g} arcsec, simulated ones {ours:.4g}. "
            "Simulate with the survey's own facts (sim/match.py measures them)."
        )


def check_form(real: pd.DataFrame, sim: pd.DataFrame) -> None:
    """Refuse to compare 8-bit pictures with calibrated fluxes: the steps alone would tell them apart."""
    steps = [float(f["distinct"].median()) for f in (real, sim)]
    if max(steps) > _STEPS_RATIO * max(min(steps), 1e-6):
        coarse = "real" if steps[0] < steps[1] else "simulated"
        raise RealismError(
            f"the {coarse} pixels come in coarse steps and the others do not (distinct values: real {steps[0]:.2f}, "
            f"simulated {steps[1]:.2f} of the pixels). Simulate the format that the survey delivers "
            "(composite_fraction in configs/sim.yaml), or give --survey for the real pictures."
        )


def common(real: Sequence[Cutout], sim: Sequence[Cutout]) -> tuple[tuple[str, ...], int]:
    """The bands that all share, and the half side of the largest square about the object that nearly all hold."""
    bands = tuple(b for b in sim[0].bands if all(b in c.bands for c in real))
    if not bands:
        raise RealismError(f"no band in common: real {real[0].bands}, simulated {sim[0].bands}. Give --survey.")
    reach = int(min(np.percentile([_reach(c) for c in group], 10) for group in (real, sim)))
    if reach < _MIN_REACH_PIX:
        raise RealismError(
            f"the cutouts reach only {reach} pixels from their objects; {_MIN_REACH_PIX} are needed. Cut them larger."
        )
    return bands, reach


def _reach(cutout: Cutout) -> int:
    (rows, columns), (x, y) = cutout.flux.shape[1:], np.round(cutout.xy_pix)
    return int(min(x, y, columns - 1 - x, rows - 1 - y))


def cut(cutout: Cutout, bands: tuple[str, ...], reach: int) -> Cutout:
    """A square about the object in some bands, without the file's error map and PSF, which only one side may have."""
    x, y = np.round(cutout.xy_pix).astype(int)
    planes = [cutout.bands.index(b) for b in bands]
    part = (planes, slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1))
    return replace(
        cutout, flux=cutout.flux[part], variance=np.full_like(cutout.flux[part], np.nan), valid=cutout.valid[part],
        bands=bands, psf_fwhm_arcsec=np.full(len(bands), np.nan), psf=np.zeros((0, 0, 0), np.float32),
        xy_pix=cutout.xy_pix - (x - reach, y - reach),
    )  # fmt: skip


def without_neighbours(cutout: Cutout, beyond_arcsec: float) -> Cutout:
    """The cutout with the objects masked whose centres lie further from its own than that."""
    y, x = np.indices(cutout.flux.shape[1:])
    far = np.hypot(x - cutout.xy_pix[0], y - cutout.xy_pix[1]) * cutout.pixel_scale_arcsec > beyond_arcsec
    hidden = neighbours_mask(cutout, beyond_arcsec / cutout.pixel_scale_arcsec) & far
    return replace(cutout, valid=cutout.valid & ~hidden)


def paired(
    real: Sample, sim: Sample, rng: np.random.Generator, limit: int, pool: Executor
) -> tuple[Sample, Sample, int]:
    """Pairs of equal brightness that share their masks: real (N), simulated (N k); how many real ones there were."""
    bright, other = (np.array(list(pool.map(brightness, s.cutouts, chunksize=16)), float) for s in (real, sim))
    left, right = match(bright, other, rng, limit)
    chosen_real, chosen_sim = real.take(left), sim.take(right)
    masks = [np.stack([c.valid for c in s.cutouts]) if s.cutouts else None for s in (chosen_real, chosen_sim)]
    if masks[0] is not None and masks[1] is not None:
        shared = np.concatenate([masks[0]] * (len(right) // len(left))) & masks[1]
        chosen_real = _masked(chosen_real, shared[: len(left)])
        chosen_sim = _masked(chosen_sim, shared)
    return chosen_real, chosen_sim, min(int(np.isfinite(bright).sum()), limit)


def match(real: FloatArray, sim: FloatArray, rng: np.random.Generator, limit: int) -> tuple[IntArray, IntArray]:
    """Indices of real (N,) and simulated (N k,) cutouts of equal brightness (log10), each simulated one used once.

    All real cutouts have the same number k of partners, so that brightness tells nothing; partner j of i is i + N j.
    """
    left, right = np.flatnonzero(np.isfinite(real)), np.flatnonzero(np.isfinite(sim))
    left = rng.permutation(left)[:limit]
    right = rng.permutation(right)[: _MAX_PER_REAL * 3 * limit]
    rounds: list[IntArray] = []
    for _ in range(_MAX_PER_REAL):
        gap = np.abs(real[left][:, None] - sim[right][None, :])
        rows, columns = linear_sum_assignment(np.minimum(gap, 10 * _MATCH_DEX))
        near = gap[rows, columns] < _MATCH_DEX
        rows, columns = rows[near], columns[near]
        if rounds and len(rows) < _KEPT * len(left):
            break
        rounds = [r[rows] for r in rounds] + [right[columns]]
        left, right = left[rows], np.delete(right, columns)
    return left, np.concatenate(rounds) if rounds else np.empty(0, np.intp)


def _masked(sample: Sample, valid: npt.NDArray[np.bool_]) -> Sample:
    return replace(sample, cutouts=tuple(replace(c, valid=v) for c, v in zip(sample.cutouts, valid, strict=True)))


def halves(sample: Sample, rng: np.random.Generator) -> tuple[Sample, Sample]:
    """A sample cut in two by group, at random: nothing but chance tells the halves apart."""
    names = rng.permutation(sorted(set(sample.groups)))
    first = set(names[: len(names) // 2].tolist())
    inside = np.array([g in first for g in sample.groups], bool)
    return sample.take(np.flatnonzero(inside)), sample.take(np.flatnonzero(~inside))
