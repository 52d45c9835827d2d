"""Name-similarity neighbours: the mean of their values never holds a model's own."""

import numpy as np
import pytest

from lrmf.data.names import similar_names

IDS = ["a/llama-chat", "b/llama-chat-v2", "c/gemma-base", "a/gemma-base-it", "d/unrelated"]


def near(values, known=None, ids=IDS):
    known = np.arange(len(ids)) if known is None else np.array(known)
    return similar_names(ids, np.asarray(values, float).reshape(len(known), -1), known)


def test_the_most_similar_name_counts_most():
    means = near([1.0, 0.0, 0.5, 0.4, 0.2])[:, 0]
    assert means[1] > 0.85 and means[0] < 0.15
    assert means[2] == pytest.approx(0.4, abs=0.02)


def test_a_name_like_no_other_gets_the_mean_of_all():
    assert near([1.0, 0.0, 0.5, 0.4, 0.2])[4, 0] == pytest.approx(
        np.mean([1, 0, 0.5, 0.4, 0.2]), abs=0.02
    )


def test_no_models_own_value_has_a_way_in():
    values = np.linspace(0, 1, 5)
    for row in range(5):
        other = values.copy()
        other[row] += 1
        through_mean_of_all = near(np.eye(5)[row])[row, 0]
        assert near(other)[row, 0] - near(values)[row, 0] == pytest.approx(through_mean_of_all)
        assert through_mean_of_all <= 1 / 5 and (row == 4 or through_mean_of_all < 0.05)


def test_within_one_organization_means_do_not_tell_the_models_own_value():
    """The sum over an organization is the same for all: mean and own value would be one line."""
    rng = np.random.default_rng(0)
    words = ["llama", "qwen", "gemma", "chat", "base", "math", "code", "instruct", "v2", "v3"]
    ids = ["lab/" + "-".join(rng.choice(words, 4)) + f"-{number}" for number in range(200)]
    values = rng.standard_normal(200)
    assert abs(np.corrcoef(near(values, ids=ids)[:, 0], values)[0, 1]) < 0.2


def test_hidden_models_say_nothing():
    means = near([0.3, 0.7], known=[2, 3])
    assert means[0, 1] < 0.5 and means[1, 0] == pytest.approx(0.5, abs=0.05)
    assert np.expm1(means[0, 2]) == pytest.approx(1)  # a/gemma-base-it
    assert means[3, 2] == 0  # a/llama-chat is hidden


def test_the_organization_decides_between_equal_names():
    ids = ["a/model-one", "a/model-two", "b/model-two", "c/other"]
    assert near([0.0, 1.0, 0.0, 0.0], ids=ids)[0, 0] > 0.7


def test_a_value_that_is_missing_counts_for_nothing():
    values = np.array([[1.0, np.nan], [0.0, 0.0], [0.5, 0.5], [0.4, 0.4], [0.2, 0.2]])
    assert near(values)[1, 1] < 0.35  # the most similar name has no value
    np.testing.assert_array_equal(near(values)[:, 0], near(values[:, :1])[:, 0])


def test_names_without_an_organization_or_a_name_are_legal():
    for ids in (["x"], ["x", "lab/"], ["llama", "llama"]):
        assert np.isfinite(near(np.ones(len(ids)), ids=ids)).all()
