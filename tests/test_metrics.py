"""Metrics against plain NumPy and SciPy."""

import warnings

import numpy as np
import pandas as pd
import pytest

from lrmf import metrics


def test_a_benchmark_that_tells_no_models_apart_has_no_reliability():
    items = pd.DataFrame({"benchmark": ["same", "same", "some", "some", "alone"]})
    rng = np.random.default_rng(0)
    some = np.repeat(rng.integers(0, 2, size=(30, 1)), 2, axis=1)
    answers = np.column_stack([np.ones((30, 2)), some, some[:, 0]]).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ceiling = metrics.split_half_ceiling(answers, items, n_splits=3)
    assert ceiling["same"] == 0
    assert ceiling["some"] == pytest.approx(1)
    assert np.isnan(ceiling["alone"])
