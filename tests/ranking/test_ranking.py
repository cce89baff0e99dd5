"""The ranking: fitted on what it should use, calm about what no stage measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import metrics
from stages.ranking import model
from stages.weights import WeightsError


def table(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)

    def probability(strength: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(strength * (2 * label - 1) + rng.normal(size=n))))

    verdict = np.where(rng.random(n) < 0.3 * label, "supports", "no_images")
    return pd.DataFrame(
        {
            "p_lens": probability(1.0), "arc_score": probability(0.8),
            "arc_coverage_deg": 100 * label + 20 * rng.random(n),
            "n_images": np.where(verdict == "supports", 4.0, 0.0), "theorem_verdict": verdict,
        }
    ), label  # fmt: skip


def test_all_stages_together_beat_the_first_alone_on_other_rows() -> None:
    ranker = model.fit(*table(2000, 0))
    rows, label = table(2000, 1)
    score, first = ranker.score(rows), rows["p_lens"].to_numpy()
    fused = metrics.auroc(score[label == 1], score[label == 0])
    assert fused > metrics.auroc(first[label == 1], first[label == 0]) + 0.05
    assert metrics.calibration_error(score, label) < 0.05


def test_rows_that_later_stages_skipped_are_ranked_by_the_first() -> None:
    ranker = model.fit(*table(500, 0))
    rows, _ = table(50, 1)
    gated = rows.assign(arc_score=np.nan, arc_coverage_deg=np.nan, n_images=np.nan, theorem_verdict="not_run")
    score = ranker.score(gated)
    np.testing.assert_array_equal(np.argsort(score), np.argsort(rows["p_lens"]))


def test_round_trip_and_other_features(tmp_path: Path) -> None:
    rows, label = table(300, 0)
    ranker = model.fit(rows, label)
    path = tmp_path / "ranking.json"
    model.save(ranker, path, {})
    np.testing.assert_allclose(model.load(path).score(rows), ranker.score(rows))
    path.write_text(path.read_text().replace("n_images", "n_stars"))
    with pytest.raises(WeightsError, match="other features"):
        model.load(path)
