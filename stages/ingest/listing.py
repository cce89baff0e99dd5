"""Walk a survey: which objects there are and which files each needs, in a fixed order; only array shapes are read."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from stages.ingest import arrays, catalogue
from stages.ingest.field import ReadError
from stages.ingest.names import (
    ARRAY_SUFFIXES,
    FITS_SUFFIXES,
    PICTURE_SUFFIXES,
    SIDE_SUFFIXES,
    Name,
    parse,
    stem_of,
    suffix_of,
)
from stages.ingest.options import IngestOptions, InputError

Files = tuple[tuple[tuple[str, str], tuple[Path, ...]], ...]  # ((band, role), paths)


@dataclass(frozen=True, eq=False)
class Entry:
    """What is read at one go: an object, a run of rows of an array, the objects of a tile, or a file that is none.

    kind : "fits", "bands", "picture", "array", "tile", "side" (a text file: no object) or "bad".
    ids : names of the objects, one per object (one for a FITS file of several).
    files : by (band, role) for "bands"; else under ("", ""). rows : of an array.
    xy_pix, radec_deg : (n, 2) of a tile's objects, NaN where not given; whole : the tile, if it is not a single file.
    """

    kind: str
    ids: tuple[str, ...]
    source: str
    files: Files = ()
    expected_bands: tuple[str, ...] = ()
    rows: tuple[int, int] | None = None
    xy_pix: np.ndarray | None = None
    radec_deg: np.ndarray | None = None
    reason: str = ""
    message: str = ""

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0][1][0]


def entries(root: Path, options: IngestOptions) -> Iterator[Entry]:
    """Every entry of a survey, always in the same order."""
    if options.catalogue is not None:
        yield from _tiles(root, options)
    elif root.is_file():
        yield from _files([root], root.parent, options, alone=True)
    else:
        alone = _is_single_array(root)
        for folder, names in _walk(root):
            paths = [folder / n for n in names if options.catalogue is None or folder / n != options.catalogue]
            yield from _files(paths, root, options, alone)


def unique(found: Iterable[Entry], repeated: frozenset[int]) -> Iterator[Entry]:
    """Entries whose names are taken already become bad ones; `repeated` has the hashes of names that occur twice."""
    seen: set[str] = set()
    for entry in found:
        if entry.kind in ("side", "bad"):
            yield entry
            continue
        again: list[int] = []
        for k, name in enumerate(entry.ids):
            if name_hash(name) in repeated:
                again += [k] if name in seen else []
                seen.add(name)
        if not again:
            yield entry
            continue
        for k in again:
            yield Entry(
                "bad", (entry.ids[k],), entry.source, reason="duplicate_id",
                message="Another object of this survey has the same id. Rename one of the two.",
            )  # fmt: skip
        rest = [k for k in range(len(entry.ids)) if k not in set(again)]
        if rest:
            yield from _subset(entry, rest)


def repeated_names(found: Iterable[Entry]) -> tuple[int, frozenset[int]]:
    """Number of objects, and hashes of names that occur more than once."""
    hashes = array("Q")
    n = 0
    for entry in found:
        n += len(entry.ids)
        if entry.kind not in ("side", "bad"):
            hashes.extend(name_hash(name) for name in entry.ids)
    values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    return n, frozenset(values[counts > 1].tolist())


def name_hash(name: str) -> int:
    """64 bits of a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}). Check the permissions.")

    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith("."))
        yield Path(folder), sorted(n for n in names if not n.startswith("."))


def _is_single_array(root: Path) -> bool:
    n = sum(name.lower().endswith(ARRAY_SUFFIXES) for _, names in _walk(root) for name in names)
    return n == 1


def _files(paths: list[Path], root: Path, options: IngestOptions, alone: bool) -> Iterator[Entry]:
    """Entries of one folder: band files joined first, then every other file by itself."""
    groups: dict[str, dict[tuple[str, str], list[Path]]] = {}
    rest: list[Path] = []
    for path in paths:
        name = parse(path) if suffix_of(path) in FITS_SUFFIXES else Name("", "", "")
        if name.band or name.role:
            groups.setdefault(name.object, {}).setdefault((name.band, name.role), []).append(path)
        else:
            rest.append(path)
    usual = _usual_bands(groups)
    for name_of, files in sorted(groups.items()):
        yield from _group(name_of, files, usual, root)
    for path in rest:
        yield from _single(path, root, options, alone)


def _group(name: str, files: dict[tuple[str, str], list[Path]], usual: set[str], root: Path) -> Iterator[Entry]:
    """A group of band files; a lone file that only looks like one is an object under its whole name."""
    bands = {band for band, role in files if role in ("", "image")}
    paths = [p for some in files.values() for p in some]
    if len(bands) == 1 and not any(role for _, role in files) and len(paths) == 1:
        yield _entry("fits", stem_of(paths[0]), paths[0], root)
    elif not bands:
        for path in paths:
            yield Entry(
                "bad", (stem_of(path),), _relative(path, root), reason="no_image",
                message="Noise, PSF or mask without the image it belongs to. Add the image beside it.",
            )  # fmt: skip
    else:
        ordered = tuple((key, tuple(sorted(files[key]))) for key in sorted(files))
        source = _relative(next(p for key, some in ordered if key[1] in ("", "image") for p in some), root)
        yield Entry("bands", (name,), source, ordered, tuple(sorted(usual | bands)))


def _usual_bands(groups: dict[str, dict[tuple[str, str], list[Path]]]) -> set[str]:
    """Bands that at least half of a folder's objects have."""
    counts: dict[str, int] = {}
    for files in groups.values():
        for band in {b for b, role in files if role in ("", "image")}:
            counts[band] = counts.get(band, 0) + 1
    return {band for band, n in counts.items() if 2 * n >= len(groups)}


def _single(path: Path, root: Path, options: IngestOptions, alone: bool) -> Iterator[Entry]:
    suffix = suffix_of(path)
    if suffix in FITS_SUFFIXES:
        yield _entry("fits", stem_of(path), path, root)
    elif suffix in PICTURE_SUFFIXES:
        yield _entry("picture", stem_of(path), path, root)
    elif suffix in ARRAY_SUFFIXES:
        yield from _array(path, root, options, alone)
    elif suffix in SIDE_SUFFIXES:
        yield Entry(
            "side", (), _relative(path, root), reason="not_an_image", message="No object: a text or table file."
        )
    else:
        yield Entry(
            "bad", (stem_of(path) or path.name,), _relative(path, root), reason="wrong_type",
            message=f"'{suffix}' is no image format that is read. Give FITS, PNG, JPEG, npy, npz or HDF5.",
        )  # fmt: skip


def _array(path: Path, root: Path, options: IngestOptions, alone: bool) -> Iterator[Entry]:
    source, files = _relative(path, root), ((("", ""), (path,)),)
    try:
        with arrays.opened(path) as (data, names):
            n = arrays.layout_of(tuple(data.shape)).n
    except ReadError as error:
        yield Entry("bad", (stem_of(path),), source, reason=error.reason, message=str(error))
        return
    if n is None:
        yield Entry("array", (stem_of(path),), source, files)
        return
    if n == 0:
        yield Entry("bad", (stem_of(path),), source, reason="zero_size", message="The array has no objects.")
    for start in range(0, n, options.batch_size):
        stop = min(start + options.batch_size, n)
        ids = names[start:stop] if names else [str(k) if alone else f"{path.stem}-{k}" for k in range(start, stop)]
        yield Entry("array", tuple(ids), source, files, rows=(start, stop))


def _tiles(root: Path, options: IngestOptions) -> Iterator[Entry]:
    assert options.catalogue is not None  # the caller looked
    table = catalogue.read(options.catalogue)
    base = root if root.is_dir() else root.parent
    if "tile" not in table:
        whole = list(entries(root, replace(options, catalogue=None)))
        whole = [e for e in whole if e.kind in ("fits", "bands", "picture")]
        if len(whole) != 1:
            raise InputError(
                f"{options.catalogue}: has no column 'tile' and {root} holds {len(whole)} images. "
                "Name each row's tile, relative to --input or to the catalogue."
            )
        table, known = table.assign(tile=""), {"": whole[0]}
    else:
        known = _resolve(sorted(set(table["tile"])), base, options)
    for name, rows in table.groupby("tile", sort=True):
        tile = known[str(name)]
        for start in range(0, len(rows), options.batch_size):
            part = rows.iloc[start : start + options.batch_size]
            yield replace(
                tile,
                kind="tile",
                ids=tuple(part["id"]),
                xy_pix=_columns(part, "x", "y"),
                radec_deg=_columns(part, "ra_deg", "dec_deg"),
            )


def _resolve(names: list[str], base: Path, options: IngestOptions) -> dict[str, Entry]:
    """Each tile's name to the image it means; raises InputError that lists those that are not there."""
    assert options.catalogue is not None  # the caller looked
    known: dict[str, Entry] = {}
    for name in names:
        for path in (base / name, options.catalogue.parent / name):
            if path.is_file():
                kind = "picture" if suffix_of(path) in PICTURE_SUFFIXES else "fits"
                known[name] = _entry(kind, stem_of(path), path, base)
                break
    if len(known) < len(names) and base.is_dir():  # names without folder or ending, or of a group of band files
        by_name = {
            e.ids[0]: e
            for e in entries(base, replace(options, catalogue=None))
            if e.kind in ("fits", "bands", "picture")
        }
        known |= {name: by_name[name] for name in names if name not in known and name in by_name}
    absent = [name for name in names if name not in known]
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise InputError(
            f"{options.catalogue}: {len(absent)} of {len(names)} tiles are not there ({shown}). "
            f"Tiles are looked for below {base} and beside the catalogue."
        )
    return known


def _columns(rows: pd.DataFrame, first: str, second: str) -> np.ndarray:
    if first not in rows or second not in rows:
        return np.full((len(rows), 2), np.nan)
    return rows[[first, second]].to_numpy(float)


def _subset(entry: Entry, keep: list[int]) -> Iterator[Entry]:
    """The entry with some of its objects."""
    if entry.kind == "tile" and entry.xy_pix is not None and entry.radec_deg is not None:
        ids = tuple(entry.ids[k] for k in keep)
        yield replace(entry, ids=ids, xy_pix=entry.xy_pix[keep], radec_deg=entry.radec_deg[keep])
    elif entry.rows is not None:
        for k in keep:
            yield replace(entry, ids=(entry.ids[k],), rows=(entry.rows[0] + k, entry.rows[0] + k + 1))


def _entry(kind: str, name: str, path: Path, root: Path) -> Entry:
    return Entry(kind, (name,), _relative(path, root), ((("", ""), (path,)),))


def _relative(path: Path, root: Path) -> str:
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)
