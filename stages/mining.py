"""Which non-lenses a network learns from: all of them at first, then more and more those that it takes for lenses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.cache import Cached
from stages.records import FloatArray
from stages.scaling import N_SLOTS

Rows = npt.NDArray[np.intp]
_REAL_KINDS = ("sky", "real_field")  # unlabelled real objects: assumed no lenses
_SHOWN, _COLUMNS = 48, 8  # mined objects on a contact sheet
_WHITE = 3.5  # scaled flux that is shown white
_MAYBE_LENSES = 0.02  # of these, the part that looks most like lenses teaches nothing: some may be lenses


class Negatives:
    """The non-lenses of a data set and the rounds, one every check_steps, in which hard ones are mined from them.

    hard_share of a batch comes from the hard_part of all that the network takes most for lenses (0: none is mined).
    Each round is kept beside the checkpoint, in `PREFIX-mined-STEP.csv`: id, survey, kind and logit, hardest first, and
    the hardest as a picture, `PREFIX-mined-STEP.png`.
    """

    def __init__(
        self, data: Cached, rows: Rows, hard_share: float, hard_part: float, check_steps: int, prefix: Path
    ) -> None:
        self._data, self._rows, self._prefix = data, rows, prefix
        self._hard_share, self._hard_part, self._check_steps = hard_share, hard_part, check_steps
        self._hard: tuple[int, Rows] = (0, rows)

    def draw(self, rng: np.random.Generator, n: int, step: int) -> Rows:
        """Rows (n,) for one batch of a step: a share from the hardest of the last round before it."""
        hard = self._hardest(step)
        n_hard = round(self._hard_share * n) if hard is not None else 0
        picked = rng.choice(self._rows, n - n_hard)
        return picked if hard is None else np.concatenate([rng.choice(hard, n_hard), picked])

    def mine(self, logits: Callable[[Rows], FloatArray], step: int) -> dict[str, float]:
        """Score all non-lenses and keep the hardest; returns the share of all that a lens is more likely than not."""
        logit = logits(self._rows)
        truth = self._data.truth.iloc[self._rows]
        order = np.argsort(-logit, kind="stable")
        real = truth["kind"].isin(_REAL_KINDS).to_numpy()
        suspect = np.zeros(len(logit), bool)
        suspect[order[real[order]][: int(_MAYBE_LENSES * real.sum())]] = True
        order = order[~suspect[order]][: max(1, int(self._hard_part * len(logit)))]
        table = truth.iloc[order][["id", "survey", "kind"]].assign(logit=logit[order].round(4), row=self._rows[order])
        table.to_csv(self._path(step), index=False)
        contact_sheet(self._data.pixels[self._rows[order[:_SHOWN]]], self._path(step).with_suffix(".png"))
        return {"mistaken": round(float((logit > 0).mean()), 4)}

    def _hardest(self, step: int) -> Rows | None:
        """The rows mined last before a step; the same whether the training was interrupted or not."""
        last, rows = self._hard
        check = step - step % self._check_steps
        if check == 0 or not self._hard_share:
            return None
        if check != last:
            rows = np.loadtxt(self._path(check), delimiter=",", skiprows=1, usecols=4, dtype=np.intp, ndmin=1)
            self._hard = (check, rows)
        return rows

    def _path(self, step: int) -> Path:
        return self._prefix.with_name(f"{self._prefix.name}-mined-{step}.csv")


def contact_sheet(pixels: npt.NDArray[np.float16], path: Path) -> None:
    """Network inputs (N, 6, S, S) in rows of `_COLUMNS`, in colour where there are colours."""
    tiles = np.clip(np.asarray(pixels[:, N_SLOTS - 1 :: -1], np.float32) / _WHITE, 0, 1)
    blank = np.zeros((-len(tiles) % _COLUMNS, *tiles.shape[1:]), np.float32)
    grid = np.concatenate([tiles, blank]).reshape(-1, _COLUMNS, *tiles.shape[1:])
    whole = grid[..., ::-1, :].transpose(0, 3, 1, 4, 2)  # row of tiles, y upwards, column of tiles, x, colour
    rows, height, columns, width, _ = whole.shape
    picture = (255 * whole).astype(np.uint8).reshape(rows * height, columns * width, N_SLOTS)
    Image.fromarray(picture).resize((2 * columns * width, 2 * rows * height)).save(path)
