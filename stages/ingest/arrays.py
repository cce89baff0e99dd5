"""numpy and HDF5 files: (N, C, H, W), (N, H, W), (C, H, W) or (H, W), channels first or last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stages.ingest.field import ASSUMED_BANDS, ASSUMED_FIELD_ARCSEC, Field, ReadError, checked
from stages.records import FloatArray
from stages.survey import SurveyFacts

_MOST_BANDS = 6
_IMAGE_KEYS = ("images", "image", "cutouts", "flux", "data", "x", "x_train", "x_test", "arr_0")
_ID_KEYS = ("id", "ids", "name", "names", "object_id")


@dataclass(frozen=True)
class Layout:
    """How an array holds objects: number of them, None for a single one; and whether bands come last."""

    n: int | None
    bands_last: bool


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Read a shape; a first axis of up to six before two long ones is bands, as is a last one."""
    if len(shape) == 2:
        return Layout(None, False)
    if len(shape) == 3:
        if shape[2] <= _MOST_BANDS < min(shape[:2]):
            return Layout(None, True)
        return Layout(None if shape[0] <= _MOST_BANDS else shape[0], False)
    if len(shape) == 4:
        return Layout(shape[0], shape[3] <= _MOST_BANDS < shape[1])
    raise ReadError("wrong_shape", f"An array of shape {shape}. Expected (N, C, H, W), (N, H, W), (C, H, W) or (H, W).")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, list[str] | None]]:
    """The image array of a file, not yet read into memory where the format allows, and the objects' names if given."""
    try:
        if path.suffix.lower() == ".npy":
            yield np.load(path, mmap_mode="r", allow_pickle=False), None
        elif path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as data:
                yield _chosen({k: data[k] for k in data.files}, path)
        else:
            with h5py.File(path, "r") as data:
                yield _chosen({k: v for k, v in data.items() if isinstance(v, h5py.Dataset)}, path)
    except ReadError:
        raise
    except (OSError, ValueError, EOFError, KeyError, RuntimeError) as error:
        pickled = "pickle" in str(error).lower()
        advice = "It holds Python objects: save the numbers alone." if pickled else "Copy or make the file anew."
        raise ReadError("unreadable", f"{error}. {advice}") from error
    except Exception as error:  # zipfile and zlib raise errors of their own
        raise ReadError("unreadable", f"{type(error).__name__}: {error}. Copy or make the file anew.") from error


def read(path: Path, rows: tuple[int, int] | None, facts: SurveyFacts | None) -> list[Field | ReadError]:
    """Objects `rows` of an array file (all of a single-object one); one answer for each."""
    with opened(path) as (array, _):
        kind = layout_of(tuple(array.shape))
        block = np.asarray(array[slice(*rows)] if rows is not None and kind.n is not None else array)
        if not np.issubdtype(block.dtype, np.number) or np.issubdtype(block.dtype, np.complexfloating):
            raise ReadError("wrong_type", f"An array of {block.dtype}. Expected numbers.")
    integers = np.issubdtype(block.dtype, np.integer)
    if kind.n is None:
        block = block[None]
    if block.ndim == 3:
        block = block[:, None]
    if kind.bands_last:
        block = np.moveaxis(block, -1, 1)
    out: list[Field | ReadError] = []
    for planes in block:
        try:
            out.append(checked(_field(planes.astype(np.float32), facts), zeros_are_data=bool(integers)))
        except ReadError as error:
            out.append(error)
    return out


def _field(flux: FloatArray, facts: SurveyFacts | None) -> Field:
    n, reasons = len(flux), []
    if facts is not None and len(facts.bands) == n:
        bands = facts.bands
    else:
        bands = ASSUMED_BANDS.get(n, tuple(f"band{k}" for k in range(n)))
        reasons += ["assumed_bands"] if n > 1 else []
    scale = facts.pixel_scale_arcsec if facts is not None else ASSUMED_FIELD_ARCSEC / max(max(flux.shape[1:]), 1)
    reasons += ["assumed_pixel_scale"] if facts is None else []
    fwhm = np.array([facts.psf_fwhm_arcsec.get(b, np.nan) if facts is not None else np.nan for b in bands])
    return Field(
        flux, np.full(flux.shape, np.nan, np.float32), np.ones(flux.shape, bool), bands, scale, fwhm,
        np.zeros((0, 0, 0), np.float32), survey=facts.name if facts is not None else "", reasons=tuple(reasons),
    )  # fmt: skip


def _chosen(arrays: dict[str, Any], path: Path) -> tuple[Any, list[str] | None]:
    by_name = {key.lower(): value for key, value in arrays.items()}
    images = [by_name[k] for k in _IMAGE_KEYS if k in by_name and len(by_name[k].shape) >= 2]
    images += [v for v in arrays.values() if len(v.shape) >= 2 and v.dtype.kind in "fiu"]
    if not images:
        raise ReadError("no_image", f"{path.name} holds {sorted(arrays)}, none an image array. Name it 'images'.")
    ids = next((by_name[k] for k in _ID_KEYS if k in by_name), None)
    n = images[0].shape[0]
    if ids is None or ids.shape != (n,):
        return images[0], None
    return images[0], [v.decode() if isinstance(v, bytes) else str(v) for v in ids[()]]
