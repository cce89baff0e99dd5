"""A run in the making: one part per batch on disk, so that memory stays flat and a stopped run can be resumed."""

from __future__ import annotations

import heapq
import json
import math
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.records import Candidate, Problem
from stages.report.arc_maps import ArcMap
from stages.report.stamp import Stamp
from stages.report.tables import candidates_schema, to_table


class Parts:
    """The parts of one run; a part's candidates are written last, so their presence means that it is whole."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / "parts"

    def path(self, index: int, suffix: str) -> Path:
        """File of one part."""
        return self.folder / f"part-{index:06d}{suffix}"

    def done(self, index: int) -> bool:
        """Whether a part is whole."""
        return self.path(index, ".parquet").is_file()

    def count(self) -> int:
        """How many parts are whole, from the first without a gap."""
        index = 0
        while self.done(index):
            index += 1
        return index

    def write(
        self, index: int, rows: Sequence[Candidate], problems: Sequence[Problem], stamps: dict[str, Stamp],
        maps: Sequence[ArcMap] = (),
    ) -> None:  # fmt: skip
        """Write one part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path(index, ".problems.json").write_text(json.dumps([asdict(p) for p in problems]))
        self.path(index, ".stamps.pkl").write_bytes(pickle.dumps(stamps))
        if maps:
            self.path(index, ".maps.pkl").write_bytes(pickle.dumps(list(maps)))
        partial = self.path(index, ".tmp")
        pq.write_table(to_table(rows), partial)
        partial.replace(self.path(index, ".parquet"))

    def candidates(self) -> pa.Table:
        """Candidates of all whole parts, in reading order, without ranks."""
        tables = [pq.read_table(self.path(k, ".parquet"), schema=candidates_schema()) for k in range(self.count())]
        return pa.concat_tables(tables) if tables else to_table([])

    def problems(self) -> Iterable[Problem]:
        """Problems of all whole parts, in reading order."""
        for k in range(self.count()):
            yield from (Problem(**p) for p in json.loads(self.path(k, ".problems.json").read_text()))

    def stamps(self, ids: set[str]) -> dict[str, Stamp]:
        """Pictures of the given objects."""
        found: dict[str, Stamp] = {}
        for k in range(self.count()):
            part: dict[str, Stamp] = pickle.loads(self.path(k, ".stamps.pkl").read_bytes())
            found |= {ident: stamp for ident, stamp in part.items() if ident in ids}
        return found

    def maps(self) -> Iterable[ArcMap]:
        """The arcs' maps of all whole parts, in reading order."""
        for k in range(self.count()):
            if (path := self.path(k, ".maps.pkl")).is_file():
                yield from pickle.loads(path.read_bytes())

    def clear(self) -> None:
        """Remove the parts of a finished run."""
        for path in sorted(self.folder.glob("part-*")):
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()


def could_be_shown(rows: Sequence[Candidate], highest: list[float], n: int) -> set[str]:
    """Ids of rows that may be among the n best of the run: not those below n scores that this process has seen.

    highest : the n highest scores of this process so far, brought up to date here.
    """
    highest[:] = heapq.nlargest(n, [*highest, *(row.score for row in rows if math.isfinite(row.score))])
    lowest = highest[-1] if 0 < n == len(highest) else -math.inf
    return {row.id for row in rows if not row.score < lowest}
