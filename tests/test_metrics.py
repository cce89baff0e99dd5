"""Scoring functions against scikit-learn and hand counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from stages import metrics

SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=30)


@given(SCORES, SCORES)
def test_auroc_is_scikit_learns(positive: list[int], negative: list[int]) -> None:
    label = [1] * len(positive) + [0] * len(negative)
    expected = roc_auc_score(label, positive + negative)
    assert metrics.auroc(np.array(positive, float), np.array(negative, float)) == pytest.approx(expected)


def test_recall_at_a_false_positive_rate_by_hand() -> None:
    negative = np.arange(100.0)
    positive = np.array([200.0, 98.5, 97.5, 10.0])
    assert metrics.tpr_at_fpr(positive, negative, 0.0) == 0.25
    assert metrics.tpr_at_fpr(positive, negative, 0.01) == 0.5
    assert metrics.tpr_at_fpr(positive, negative, 0.02) == 0.75
    assert metrics.tpr10(positive, negative) == 0.75


@given(SCORES, SCORES, st.sampled_from([0.0, 0.07, 0.1, 0.29, 0.5, 1.0]))
def test_recall_is_the_best_cut_on_scikit_learns_curve(positive: list[int], negative: list[int], fpr: float) -> None:
    label = [1] * len(positive) + [0] * len(negative)
    curve, recall, _ = roc_curve(label, positive + negative, drop_intermediate=False)
    expected = recall[curve <= fpr + 1e-9].max()
    found = metrics.tpr_at_fpr(np.array(positive, float), np.array(negative, float), fpr)
    assert found <= expected + 1e-12
    if len(set(negative)) == len(negative) and fpr < 1:  # without ties the cut can be the curve's own
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("n", [10, 519, 1038, 1065, 5000])
def test_tpr10_lets_nine_through_and_not_ten(n: int) -> None:
    negative = np.arange(float(n))
    for k in (8, 9, 10):  # negatives above the lens
        assert metrics.tpr10(np.array([n - k - 0.5]), negative) == float(k <= 9)


def test_a_share_that_is_not_exact_in_binary_counts_whole() -> None:
    assert metrics.tpr_at_fpr(np.array([70.5]), np.arange(100.0), 0.29) == 1.0


def test_ties_with_the_cut_do_not_count() -> None:
    assert metrics.tpr_at_fpr(np.array([1.0, 1.0]), np.array([1.0, 0.0]), 0.0) == 0.0


def test_empty_sides_are_nan() -> None:
    assert np.isnan(metrics.auroc(np.empty(0), np.ones(3)))
    assert np.isnan(metrics.tpr_at_fpr(np.ones(3), np.empty(0), 0.1))


def test_calibration_error_of_a_perfect_and_a_boasting_forecast() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20000)
    label = (rng.random(20000) < p).astype(float)
    assert metrics.calibration_error(p, label) < 0.02
    assert metrics.calibration_error(np.full(100, 0.9), np.zeros(100)) == pytest.approx(0.9)


def test_a_sample_can_stand_for_another_share_of_lenses() -> None:
    rng = np.random.default_rng(2)
    label = (rng.random(40000) < 0.5).astype(float)
    p = 1 / (1 + np.exp(-(rng.normal(label * 2, 1) * 2 - 2)))  # calibrated at equal numbers
    weight = np.where(label == 1, 0.02, 1.98)
    assert metrics.calibration_error(p, label, weight) > 0.1
    assert metrics.calibration_error(0.01 * p / (0.01 * p + 0.99 * (1 - p)), label, weight) < 0.003


def test_bootstrap_interval_holds_the_figure() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.normal(1, 1, 80), rng.normal(0, 1, 90)
    low, high = metrics.bootstrap(metrics.auroc, positive, negative, rng, 200)
    assert low < metrics.auroc(positive, negative) < high
    assert 0.05 < high - low < 0.3


def test_calibration_error_of_nothing_is_nan() -> None:
    assert np.isnan(metrics.calibration_error(np.empty(0), np.empty(0)))
