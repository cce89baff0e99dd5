"""The ranking: fitted on what it should use, calm about what no stage measured."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import metrics
from stages.dataset import DatasetError
from stages.prior import restated
from stages.ranking import model
from stages.ranking.__main__ import labelled_rows, main
from stages.ranking.model import RankingConfig
from stages.weights import WeightsError


def table(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(float)

    def probability(strength: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(strength * (2 * label - 1) + rng.normal(size=n))))

    tested = rng.random(n) < 0.3
    bayes = np.where(tested, 3 * (2 * label - 1) + rng.normal(size=n), np.nan)
    return pd.DataFrame(
        {
            "p_lens": probability(1.0), "arc_score": probability(0.8),
            "arc_coverage_deg": 100 * label + 20 * rng.random(n),
            "n_images": np.where(tested, 4.0, 0.0), "theorem_log_bayes_factor": bayes,
            "theorem_verdict": np.where(bayes > 3, "supports", "possible"),
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
    gated = rows.assign(arc_score=np.nan, arc_coverage_deg=np.nan, n_images=np.nan, theorem_log_bayes_factor=np.nan)
    score = ranker.score(gated)
    np.testing.assert_array_equal(np.argsort(score), np.argsort(rows["p_lens"]))


def test_round_trip_and_other_features(tmp_path: Path) -> None:
    rows, label = table(300, 0)
    ranker = model.fit(rows, label)
    path = tmp_path / "ranking.json"
    model.save(ranker, path, {})
    np.testing.assert_allclose(model.load(path).score(rows), ranker.score(rows))
    path.write_text(path.read_text().replace("theorem_for", "theorem_width"))
    with pytest.raises(WeightsError, match="other features"):
        model.load(path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", "null"])
def test_an_unreadable_model_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ranking.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match="anew"):
        model.load(path)
    with pytest.raises(WeightsError, match="anew"):
        model.load(tmp_path / "none.json")


def test_the_score_goes_with_the_row_and_not_with_its_company() -> None:
    ranker = model.fit(*table(300, 0))
    rows, _ = table(20, 1)
    rows.loc[::3, ["arc_score", "arc_coverage_deg", "n_images"]] = np.nan
    score = ranker.score(rows)
    np.testing.assert_allclose(ranker.score(rows[::-1])[::-1], score)
    np.testing.assert_allclose(ranker.score(rows.iloc[[5]]), score[[5]])
    assert ranker.score(rows.iloc[:0]).shape == (0,)


def test_without_a_classifier_result_there_is_no_score() -> None:
    ranker = model.fit(*table(300, 0))
    rows, _ = table(6, 1)
    rows.loc[[0, 1], "p_lens"] = np.nan
    rows.loc[[1, 2], "arc_score"] = np.nan
    np.testing.assert_array_equal(np.isnan(ranker.score(rows)), [True, True, False, False, False, False])


def test_certainty_stays_finite() -> None:
    ranker = model.fit(*table(300, 0))
    rows = table(2, 1)[0].assign(p_lens=[0.0, 1.0], arc_score=[0.0, 1.0])
    low, high = ranker.score(rows)
    assert 0 < low < high < 1


def test_the_command_trains_on_labelled_rows_and_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, label = table(400, 0)
    rows.insert(0, "id", [f"{k:03d}" for k in range(400)])
    rows.loc[7, "p_lens"] = np.nan
    stated = rows.assign(p_lens=restated(rows["p_lens"].to_numpy(float), 1e-3))  # as a run with --prior 1e-3 has it
    stated.to_parquet(tmp_path / "candidates.parquet")
    (tmp_path / "run.json").write_text('{"configuration": {"prior": 0.001}}')
    truth = pd.DataFrame({"id": rows["id"], "system": [f"s{k // 2}" for k in range(400)], "label": label})
    truth.iloc[10:].sample(frac=1, random_state=0).to_csv(tmp_path / "truth.csv", index=False)
    read, found = labelled_rows([tmp_path], [tmp_path / "truth.csv"], RankingConfig())
    assert read["id"].tolist() == rows["id"].tolist()[10:]
    np.testing.assert_array_equal(found, label[10:])
    np.testing.assert_allclose(read["p_lens"], rows["p_lens"][10:])
    common = ["--data", str(tmp_path), "--truth", str(tmp_path / "truth.csv")]
    assert main(["train", *common, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["evaluate", *common, "--weights", str(tmp_path / "ranking.json")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["auroc_score"] > shown["auroc_p_lens"] > 0.8


def test_lenses_that_cannot_be_seen_as_such_are_left_out_where_the_truth_says_so(tmp_path: Path) -> None:
    rows, _ = table(4, 0)
    rows.insert(0, "id", list("abcd"))
    rows.to_parquet(tmp_path / "candidates.parquet")
    (tmp_path / "run.json").write_text('{"configuration": {"prior": 0.5}}')
    truth = pd.DataFrame(
        {
            "id": list("abcd"), "label": [1, 1, 1, 0], "kind": [*3 * ["lens_galaxy"], "twin"],
            "arc_snr": [90, 5, 90, 0], "arc_contrast": [1, 1, 1, 0], "theta_e_arcsec": [1.5, 1.5, 0.5, np.nan],
            "seeing_arcsec": 4 * [0.7],
        }
    )  # fmt: skip
    limits = RankingConfig(min_arc_snr=35.0, min_theta_e_seeing=1.0)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    assert labelled_rows([tmp_path], [tmp_path / "truth.csv"], limits)[0]["id"].tolist() == ["a", "d"]
    truth.drop(columns="arc_contrast").to_csv(tmp_path / "truth.csv", index=False)
    with pytest.raises(DatasetError, match="lacks arc_contrast"):
        labelled_rows([tmp_path], [tmp_path / "truth.csv"], limits)
    truth[["id", "label"]].to_csv(tmp_path / "truth.csv", index=False)
    assert labelled_rows([tmp_path], [tmp_path / "truth.csv"], limits)[0]["id"].tolist() == list("abcd")


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_absent_files_are_one_clear_error(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "none")
    assert main([verb, "--data", absent, "--truth", absent, "--out", absent, "--weights", absent]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_score_is_calibrated_at_the_share_that_is_asked_for(share: float) -> None:
    rows, label = table(4000, 0)
    score = model.fit(rows, label, share).score(rows)
    weight = np.where(label == 1, share / label.mean(), (1 - share) / (1 - label.mean()))
    assert np.average(score, weights=weight) == pytest.approx(share, abs=0.02)
    assert metrics.calibration_error(score, label, weight) < 0.02


def test_no_evidence_counts_against_a_lens() -> None:
    """A Bayes factor that happens to speak against the lenses of a sample is left out, not turned round."""
    rows, label = table(800, 0)
    ranker = model.fit(rows.assign(theorem_log_bayes_factor=-rows["theorem_log_bayes_factor"]), label)
    assert ranker.every_stage.coefficient[model.FEATURES.index("theorem_for")] == 0
    assert min(ranker.every_stage.coefficient) >= 0


def test_the_fit_is_a_logistic_regression_where_the_evidence_agrees() -> None:
    from sklearn.linear_model import LogisticRegression

    rows, label = table(800, 3)
    numbers = model.features(rows)
    z = (numbers - numbers.mean(0)) / numbers.std(0)
    want = LogisticRegression(C=1.0, tol=1e-8).fit(z, label)
    np.testing.assert_allclose(model.fit(rows, label).every_stage.coefficient, want.coef_[0], rtol=1e-3)
