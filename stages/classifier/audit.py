"""Does the classifier look at arcs? Lenses against their own twins, what shortcuts could tell, and occlusion maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import Tensor

from stages import metrics
from stages.classifier.model import FRAME, unclear
from stages.classifier.predict import Predictor, load
from stages.classifier.stability import shifts
from stages.classifier.strange import unlike
from stages.dataset import shards_to_test
from stages.records import BoolArray, Cutout, FloatArray
from stages.scaling import N_SLOTS, SOFTENING_SIGMA, NetworkInput, network_inputs, resample
from stages.weights import load_card

matplotlib.use("Agg")
_CORE_ARCSEC = 3.0
_PATCH_PIX, _STRIDE_PIX = 8, 4
_MAPPED, _SHOWN = 48, 12
_SHIFTED_PER_SHARD = 100
_FOLDS = 5
_N_BOOT = 300
FAMILIES: dict[str, tuple[str, ...]] = {
    "brightness": ("core_0", "core_1", "core_2"),
    "colour": ("colour_01", "colour_12"),
    "noise": ("noise_0", "noise_1", "noise_2", "lag_0", "lag_1", "lag_2"),
    "centring": ("offset",),
}


def audit(weights: Path, data_dir: Path, out_dir: Path, device: str = "cpu") -> dict[str, float]:
    """Figures on the systems of labelled data sets that can test the weights (`stages.dataset.shards_to_test`);
    pictures of occlusion maps in `out_dir/occlusion.png`.

    Lenses that the weights were not trained on, as none could tell them from lone objects, are left out. pair_*: logit
    of a lens less that of its own twin. auroc_NAME: of boosted trees that see brightness, colour, noise or centring,
    in cross-validation by system; auroc_network: of the network on the same cutouts. drop_*: how much the logit of a
    lens falls where its arcs are covered, against places elsewhere that are as large, with the standard error of their
    difference. shift_* : how much p_lens changes when the same cutouts are turned, at another pixel scale, with a band
    less or masked. unlike_* : share out of domain of cutouts as they are, and of strange ones made of them. AUROCs
    and shares come with 95% intervals.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    predictor, card = load(weights, device), load_card(weights)
    limits = card.config
    tables, lenses, some = [], list[tuple[Cutout, BoolArray]](), list[Cutout]()
    for shard, tested in shards_to_test(data_dir, card.data):
        keep = tested[~unclear(shard.truth.iloc[tested], limits)]
        if not len(keep):
            continue
        cutouts = [shard.cutouts[k] for k in keep]
        truth = shard.truth.iloc[keep][["id", "system", "kind", "label"]].reset_index(drop=True)
        truth["pair"] = truth["system"] + " " + truth["id"].str.rpartition("-")[0]  # on real sky a system has many
        p = predictor.predict(cutouts).p_lens
        table = truth.assign(logit=np.log(p / (1 - p)), **shortcuts(network_inputs(cutouts, FRAME)))
        tables.append(table)
        arcs = np.flatnonzero((truth["kind"] == "lens_galaxy").to_numpy())
        some += cutouts[:_SHIFTED_PER_SHARD]
        lenses += [(cutouts[k], shard.arc_mask[keep[k]]) for k in arcs[np.argsort(-p[arcs])][: _MAPPED // 4]]
    table = pd.concat(tables, ignore_index=True)
    figures = pair_figures(table) | shortcut_figures(table)
    figures |= shifts(predictor, some) | unlike(predictor, some)
    return figures | _occlusion(predictor, lenses[:: max(1, len(lenses) // _MAPPED)][:_MAPPED], out_dir)


def shortcuts(seen: NetworkInput) -> dict[str, FloatArray]:
    """What of N network inputs could give a label away without morphology: NAME in `FAMILIES` to values (N,)."""
    flux = np.sinh(seen.pixels[:, :N_SLOTS] * SOFTENING_SIGMA)
    y, x = np.indices(flux.shape[2:]) - (FRAME.size_pix - 1) / 2
    radius = np.hypot(x, y) * FRAME.pixel_arcsec
    core = flux[..., radius < _CORE_ARCSEC].mean(axis=-1)
    out = {f"core_{k}": core[:, k] for k in range(N_SLOTS)}
    size = np.maximum(np.abs(core), 1e-3)
    out |= {f"colour_{a}{b}": np.log(size[:, a] / size[:, b]) for a, b in ((0, 1), (1, 2))}
    border = np.ones(flux.shape[2:], bool)
    border[6:-6, 6:-6] = False
    for k in range(N_SLOTS):
        sky = np.clip(flux[:, k], -3, 3)
        out[f"noise_{k}"] = sky[:, border].std(axis=1)
        beside = border[:, 1:] & border[:, :-1]
        product = (sky[:, :, 1:] * sky[:, :, :-1])[:, beside].mean(axis=1)
        out[f"lag_{k}"] = product / np.maximum(out[f"noise_{k}"] ** 2, 1e-6)
    bright = np.where(radius < _CORE_ARCSEC, flux.mean(axis=1), -np.inf).reshape(len(flux), -1).argmax(axis=1)
    out["offset"] = radius.ravel()[bright]
    return out


def pair_figures(table: pd.DataFrame) -> dict[str, float]:
    """How a lens scores beside its own twin, from columns pair, label, kind, logit."""
    lens = table[table["label"] == 1].set_index("pair")["logit"]
    twin = table[table["kind"].isin(("twin", "real_field"))].groupby("pair")["logit"].mean()
    difference = (lens - twin.reindex(lens.index)).dropna().to_numpy()
    if not len(difference):
        return {"n_pairs": 0}
    rng = np.random.default_rng(0)
    above = [float((rng.choice(difference, len(difference)) > 0).mean()) for _ in range(_N_BOOT)]
    low, high = np.percentile(above, (2.5, 97.5))
    return {
        "n_pairs": len(difference),
        "pair_median": float(np.median(difference)),
        "pair_share_above": float((difference > 0).mean()),
        "pair_share_above_low": float(low),
        "pair_share_above_high": float(high),
    }


def shortcut_figures(table: pd.DataFrame) -> dict[str, float]:
    """AUROC of each family of shortcuts alone, of all together, and of the network."""
    label = table["label"].to_numpy()
    n_systems = table["system"].nunique()
    if len(np.unique(label)) < 2 or n_systems < 2 * _FOLDS:
        return {}
    out = ranked("auroc_network", table["logit"].to_numpy(), label)
    for name, columns in (*FAMILIES.items(), ("all_shortcuts", tuple(c for f in FAMILIES.values() for c in f))):
        forest = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=0)
        score = cross_val_predict(
            forest, table[list(columns)].to_numpy(), label, groups=table["system"], cv=GroupKFold(_FOLDS),
            method="predict_proba",
        )[:, 1]  # fmt: skip
        out |= ranked(f"auroc_{name}", score, label)
    return out


def ranked(name: str, score: FloatArray, label: npt.NDArray[np.int64]) -> dict[str, float]:
    """AUROC of a score with its interval."""
    lens, other = score[label == 1], score[label == 0]
    low, high = metrics.bootstrap(metrics.auroc, lens, other, np.random.default_rng(0), _N_BOOT)
    return {name: metrics.auroc(lens, other), f"{name}_low": low, f"{name}_high": high}


def occlusion(predictor: Predictor, pixels: Tensor, conditions: Tensor) -> FloatArray:
    """By how much the logit (S, S) of one input falls when a patch about each place is filled with its surroundings."""
    size = pixels.shape[-1]
    starts = range(0, size - _PATCH_PIX + 1, _STRIDE_PIX)
    covered = []
    for y in starts:
        for x in starts:
            one = pixels.clone()
            patch = (slice(None, N_SLOTS), slice(y, y + _PATCH_PIX), slice(x, x + _PATCH_PIX))
            ring = pixels[:N_SLOTS, max(y - 2, 0) : y + _PATCH_PIX + 2, max(x - 2, 0) : x + _PATCH_PIX + 2]
            one[patch] = ring.flatten(1).median(1).values[:, None, None]
            covered.append(one)
    batch = torch.stack([pixels, *covered])
    logit = predictor.logits(batch, conditions.expand(len(batch), -1)).mean(axis=0)
    drop, count = np.zeros((size, size)), np.zeros((size, size))
    for value, (y, x) in zip(logit[0] - logit[1:], ((y, x) for y in starts for x in starts), strict=True):
        drop[y : y + _PATCH_PIX, x : x + _PATCH_PIX] += value
        count[y : y + _PATCH_PIX, x : x + _PATCH_PIX] += 1
    return np.asarray(drop / np.maximum(count, 1))


def _occlusion(predictor: Predictor, lenses: Sequence[tuple[Cutout, BoolArray]], out_dir: Path) -> dict[str, float]:
    """Maps of some lenses as a picture, and the mean fall on and off their arcs."""
    import matplotlib.pyplot as plt

    if not lenses:
        return {}
    seen = network_inputs([cutout for cutout, _ in lenses], FRAME)
    n_shown = min(_SHOWN, len(lenses))
    figure, axes = plt.subplots(2, n_shown, figsize=(1.6 * n_shown, 3.4), squeeze=False)
    on, off = [], []
    for k, (_, arc) in enumerate(lenses):
        drop = occlusion(predictor, torch.from_numpy(seen.pixels[k]), torch.from_numpy(seen.conditions[k : k + 1]))
        whole = np.ones((1, *arc.shape), bool)
        place = seen.origin_xy_pix[k], float(seen.step_pix[k])
        mask = resample(arc[None].astype(np.float32), whole, FRAME.size_pix, *place)[0][0] > 0.3
        on.append(drop[mask].mean() if mask.any() else np.nan)
        off.append(drop[~mask].mean())
        if k >= n_shown:
            continue
        colour = np.clip(seen.pixels[k, [2, 1, 0]].transpose(1, 2, 0) / 3.5, 0, 1)
        axes[0, k].imshow(colour, origin="lower")
        axes[1, k].imshow(drop, origin="lower", cmap="RdBu_r", vmin=-np.abs(drop).max(), vmax=np.abs(drop).max())
        axes[1, k].contour(mask, levels=[0.5], colors="k", linewidths=0.7)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    figure.savefig(out_dir / "occlusion.png", dpi=100)
    plt.close(figure)
    more = np.subtract(on, off)[np.isfinite(on)]
    return {
        "n_maps": len(lenses), "drop_on_arcs": float(np.nanmean(on)), "drop_elsewhere": float(np.nanmean(off)),
        "drop_difference_error": float(more.std(ddof=1) / np.sqrt(len(more))) if len(more) > 1 else float("nan"),
    }  # fmt: skip
