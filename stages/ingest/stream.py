"""A survey on disk as a stream of batches, read and worked on by processes; memory does not grow with the survey."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

from stages.ingest.listing import Entry, entries, repeated_names, unique
from stages.ingest.options import IngestOptions, InputError
from stages.ingest.reading import read_batch
from stages.ingest.survey_psf import check
from stages.records import CutoutBatch

Result = TypeVar("Result")
Work = Callable[[Callable[[], CutoutBatch]], Result]  # given a function that reads a batch
_AHEAD = 2  # batches in flight per worker
_own: dict[str, Any] = {}  # a working process's own: what it does, and whether all is stopped


class Survey:
    """A survey that has been listed; `len` is its number of objects, as far as the listing tells."""

    def __init__(self, path: Path, options: IngestOptions) -> None:
        """List a folder or file; raises InputError where there is nothing to scan."""
        self.path, self.options = path.absolute(), options
        if not path.exists():
            raise InputError(f"{path}: no such file or folder. Check --input.")
        if options.catalogue is not None:
            self.options = replace(options, catalogue=options.catalogue.absolute())
        if options.survey_psf and options.survey is not None:
            check(options.survey)
        n, self._repeated = repeated_names(entries(self.path, self.options))
        self._n = n if options.limit is None else min(n, options.limit)
        if self._n == 0:
            raise InputError(f"{path}: holds no image. Give a folder with FITS, PNG, JPEG, npy, npz or HDF5 files.")

    def __len__(self) -> int:
        return self._n

    def batches(self, first: int = 0) -> Iterator[CutoutBatch]:
        """Batches in a fixed order from number `first` on; what is in a batch does not depend on the workers."""
        return self.mapped(_reader, first)

    def mapped(self, make: Callable[[], Work[Result]], first: int = 0) -> Iterator[Result]:
        """What `make()`, called once in each process, makes of each batch, in the order of `batches`.

        It is given a function that reads the batch. Where there are several batches and workers, these read and work.
        """
        plan = islice(self._plan(), first, None)
        workers = self.options.workers if self._n > self.options.batch_size else 0
        if workers == 0:
            work = make()
            yield from (work(partial(read_batch, part, self.options)) for part in plan)
            return
        spawn = get_context("spawn")
        stopped = spawn.Event()
        with ProcessPoolExecutor(workers, spawn, _begin, (make, stopped)) as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for part in plan:
                    waiting.append(pool.submit(_work_on, part, self.options))
                    if len(waiting) >= _AHEAD * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise InputError(
                    f"{self.path}: a working process was killed, most likely for memory. "
                    "Lower --batch-size or --workers, then run again with --resume."
                ) from error
            finally:  # what is under way ends first: one killed while it hands over its batch leaves the rest waiting
                stopped.set()

    def _plan(self) -> Iterator[list[Entry]]:
        """Entries in groups of about `batch_size` objects."""
        part: list[Entry] = []
        size, left = 0, self._n
        for entry in unique(entries(self.path, self.options), self._repeated):
            if left <= 0:
                break
            part.append(entry)
            size += len(entry.ids)
            left -= len(entry.ids)
            if size >= self.options.batch_size:
                yield part
                part, size = [], 0
        if part:
            yield part


def _reader() -> Work[CutoutBatch]:
    return _read


def _read(read: Callable[[], CutoutBatch]) -> CutoutBatch:
    return read()


def _begin(make: Callable[[], Work[Any]], stopped: Event) -> None:
    """In a process of its own: make what works on every batch given to it until all is stopped."""
    leave_ctrl_c()
    _own["work"], _own["stopped"] = make(), stopped


def _work_on(part: list[Entry], options: IngestOptions) -> Any:
    return None if _own["stopped"].is_set() else _own["work"](partial(read_batch, part, options))


def leave_ctrl_c() -> None:
    """Leave Ctrl-C to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
