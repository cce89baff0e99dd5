"""A survey's places on the sky, and their split into parts that share none and do not touch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sim.real_sky.cutouts import BackgroundError, BackgroundOptions, place_of
from stages.dataset import PARTS
from stages.ingest import IngestOptions, Survey
from stages.records import FloatArray

APART_ARCSEC = 45.0  # two cutouts nearer than this may show the same object
_SHARES = {"test": 0.25, "validation": 0.15, "train": 0.6}
_MIN_GROUPS = 10
_CELL_DEG = 0.05


def read_places(o: BackgroundOptions) -> pd.DataFrame:
    """One row per object of a survey: place (see `place_of`), ra_deg and dec_deg (NaN where the files do not say)."""
    listed = Survey(o.folder, IngestOptions(o.catalogue, o.survey, o.survey.cutout_arcsec, workers=0))
    rows = [
        (place_of(c, o.catalogue is not None), c.ra_deg, c.dec_deg) for batch in listed.batches() for c in batch.cutouts
    ]
    return pd.DataFrame(rows, columns=["place", "ra_deg", "dec_deg"])


def split(places: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Columns place and part: train, validation, test, or "" for places left out between parts.

    Places with objects within 45 arcsec of each other go to the same part. Where that ties most of a survey together,
    it is cut into cells of 0.05 deg instead, and places that touch another part's are left out, those of training
    first. Raises BackgroundError for fewer than 10 places apart.
    """
    names, owner = np.unique(places["place"].to_numpy(str), return_inverse=True)
    sky = _unit_vectors(places)
    near = _near(sky, owner)
    graph = coo_matrix((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(names), len(names)))
    n_groups, group = connected_components(graph, directed=False) if len(names) else (0, np.empty(0, int))
    if n_groups and np.bincount(group).max() > 0.4 * len(names):
        group = _cells(places, owner, len(names))
        n_groups = int(group.max()) + 1
    if n_groups < _MIN_GROUPS:
        raise BackgroundError(
            f"only {n_groups} places of {len(names)} images lie apart from each other, of {_MIN_GROUPS} that training "
            "and check need. Give more images, or cut a mosaic into tiles of a few arcmin."
        )
    part = _parts(group, names.tolist(), seed)
    for first in ("train", "validation"):  # gives way to what comes after it
        for a, b in near:
            if first in (part[a], part[b]) and part[a] != part[b] and "" not in (part[a], part[b]):
                part[a if part[a] == first else b] = ""
    lacking = [name for name in PARTS if name not in part]
    if lacking:
        raise BackgroundError(f"the images lie too close together for a part for {lacking[0]}. Give more images.")
    return pd.DataFrame({"place": names, "part": part})


def _parts(group: npt.NDArray[np.intp], names: Sequence[str], seed: int) -> npt.NDArray[np.object_]:
    """Groups in the order of a hash of their first name, dealt to the parts until each has its share of the places."""
    size = np.bincount(group)
    first = [names[int(np.flatnonzero(group == k)[0])] for k in range(len(size))]
    order = sorted(range(len(size)), key=lambda k: hashlib.sha256(f"{seed}:{first[k]}".encode()).hexdigest())
    edges = np.cumsum(list(_SHARES.values())) * len(names)
    middle = np.cumsum(size[order]) - 0.5 * size[order]
    part = np.empty(len(size), object)
    part[order] = np.array(list(_SHARES), object)[np.minimum(np.searchsorted(edges, middle), len(_SHARES) - 1)]
    return np.asarray(part[group])


def _unit_vectors(places: pd.DataFrame) -> FloatArray:
    ra, dec = (np.radians(places[name].to_numpy(float)) for name in ("ra_deg", "dec_deg"))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _near(sky: FloatArray, owner: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Pairs (n, 2) of different places with objects within 45 arcsec."""
    known = np.flatnonzero(np.isfinite(sky).all(axis=1))
    if not len(known):
        return np.empty((0, 2), np.intp)
    pairs = cKDTree(sky[known]).query_pairs(np.radians(APART_ARCSEC / 3600), output_type="ndarray")
    between = np.sort(owner[known[pairs]], axis=1)
    return np.unique(between[between[:, 0] != between[:, 1]], axis=0).astype(np.intp)


def _cells(places: pd.DataFrame, owner: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.intp]:
    """Number of the cell (n,) that each place's first object is in; one of its own where its position is not known."""
    first = places.iloc[np.unique(owner, return_index=True)[1]]
    dec = first["dec_deg"].to_numpy(float)
    x = np.floor(first["ra_deg"].to_numpy(float) * np.cos(np.radians(np.round(dec))) / _CELL_DEG)
    cell = [f"{a:.0f} {b:.0f}" if np.isfinite(a) else f"own {k}" for k, (a, b) in enumerate(zip(
        x, np.floor(dec / _CELL_DEG), strict=True))]  # fmt: skip
    assert len(cell) == n
    return np.unique(cell, return_inverse=True)[1].astype(np.intp)
