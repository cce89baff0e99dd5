"""Which non-lenses a network learns from: all of them at first, then more and more those that it takes for lenses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from stages.cache import Cached, batches
from stages.classifier.model import ClassifierConfig
from stages.classifier.networks import Classifier
from stages.scaling import N_SLOTS
from stages.training import dihedral

Rows = npt.NDArray[np.intp]
_REAL_KINDS = ("sky", "real_field")  # unlabelled real objects: assumed no lenses
_SHOWN, _COLUMNS = 48, 8  # mined objects on a contact sheet
_WHITE = 3.5  # scaled flux that is shown white
_MAYBE_LENSES = 0.02  # of these, the part that looks most like lenses teaches nothing: some may be lenses


class Negatives:
    """The non-lenses of a data set and the rounds in which hard ones are mined from them.

    Each round is kept beside the checkpoint, in `PREFIX-mined-STEP.csv`: id, survey, kind and logit, hardest first, and
    the hardest as a picture, `PREFIX-mined-STEP.png`.
    """

    def __init__(self, data: Cached, rows: Rows, config: ClassifierConfig, prefix: Path) -> None:
        self._data, self._rows, self._config, self._prefix = data, rows, config, prefix
        self._hard: tuple[int, Rows] = (0, rows)

    def draw(self, rng: np.random.Generator, n: int, step: int) -> Rows:
        """Rows (n,) for one batch of a step: a share from the hardest of the last round before it."""
        hard = self._hardest(step)
        n_hard = round(self._config.hard_share * n) if hard is not None else 0
        picked = rng.choice(self._rows, n - n_hard)
        return picked if hard is None else np.concatenate([rng.choice(hard, n_hard), picked])

    def mine(self, net: Classifier, step: int) -> dict[str, float]:
        """Score all non-lenses and keep the hardest; returns the share of all that a lens is more likely than not."""
        logit = logits_of(net, self._data, self._rows, 1)
        truth = self._data.truth.iloc[self._rows]
        order = np.argsort(-logit, kind="stable")
        real = truth["kind"].isin(_REAL_KINDS).to_numpy()
        suspect = np.zeros(len(logit), bool)
        suspect[order[real[order]][: int(_MAYBE_LENSES * real.sum())]] = True
        order = order[~suspect[order]][: max(1, int(self._config.hard_part * len(logit)))]
        table = truth.iloc[order][["id", "survey", "kind"]].assign(logit=logit[order].round(4), row=self._rows[order])
        table.to_csv(self._path(step), index=False)
        contact_sheet(self._data.pixels[self._rows[order[:_SHOWN]]], self._path(step).with_suffix(".png"))
        return {"mistaken": round(float((logit > 0).mean()), 4)}

    def _hardest(self, step: int) -> Rows | None:
        """The rows mined last before a step; the same whether the training was interrupted or not."""
        last, rows = self._hard
        check = step - step % self._config.schedule.check_steps
        if check == 0 or not self._config.hard_share:
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


def logits_of(net: Classifier, data: Cached, rows: Rows, n_views: int | None = None) -> npt.NDArray[np.float64]:
    """Logits (n,) of rows, averaged over the first rotations and reflections; all that the network wants by default."""
    n_views = n_views or net.n_views
    net.eval()
    out = [np.empty(0)]
    with torch.inference_mode():
        for part in batches(rows, 256):
            pixels = torch.from_numpy(np.asarray(data.pixels[part], np.float32))
            conditions = torch.from_numpy(data.conditions[part])
            out.append(sum(net(dihedral(pixels, k), conditions) for k in range(n_views)).numpy() / n_views)
    return np.concatenate(out).astype(np.float64)
