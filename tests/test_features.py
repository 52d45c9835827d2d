import numpy as np
import pandas as pd
import pytest
from builders import EDGES, tiny_lineage, tiny_tables

from lrmf.data.features import model_features
from lrmf.data.lineage import Lineage
from lrmf.data.snapshot import load_snapshot


def tiny_models():
    return tiny_tables()["models"]


def test_features_of_models():
    features = model_features(tiny_models())
    assert features.shape[0] == 12
    assert (features.dtypes == np.float64).all()
    assert features.index.tolist() == tiny_models()["model_id"].tolist()
    assert not features.isna().any().any()
    assert list(features.filter(like="architecture")) == [
        "architecture=LlamaForCausalLM",
        "architecture=MistralForCausalLM",
        "architecture=other",
        "architecture=unknown",
    ]
    assert not list(features.filter(like="moe"))
    for category in ("architecture", "type", "precision", "chat_template", "merged"):
        assert (features.filter(like=f"{category}=").sum(axis=1) == 1).all()


def test_log_size_is_standardised_and_unknown_sizes_are_average():
    models = tiny_models()
    features = model_features(models)
    is_known = models["params_b"].notna().to_numpy()
    known = features["log_size"][is_known]
    assert known.mean() == pytest.approx(0)
    assert known.std(ddof=0) == pytest.approx(1)
    assert features.loc["user/alpha-lora", "log_size"] == 0
    np.testing.assert_array_equal(features["log_size=unknown"], ~is_known)
    ratio = np.log(70 / 7.2) / np.log(13 / 7.2)
    step = features["log_size"] - features.loc["lab/alpha-chat", "log_size"]
    assert step["solo/gamma"] / step["lab/beta-chat"] == pytest.approx(ratio)
    guess = models.assign(params_b=models["params_b"].fillna(-1))
    pd.testing.assert_frame_equal(model_features(guess), features)


def test_unknown_has_a_level_and_rare_levels_are_pooled():
    models = pd.DataFrame({"model_id": [f"m{number}" for number in range(8)]})
    models["type"] = ["a", "a", "a", "b", "b", "c", "d", None]
    features = model_features(models)
    levels = ["type=a", "type=b", "type=other", "type=unknown"]
    assert features.columns.tolist() == levels
    assert features.sum().tolist() == [3, 2, 2, 1]
    models["type"] = ["a", "a", "?", "", " a", np.nan, "a", "a"]
    assert model_features(models).sum().to_dict() == {"type=a": 5, "type=unknown": 3}


def test_nothing_known_gives_no_feature():
    models = tiny_models()[["model_id"]]
    assert model_features(models).shape == (12, 0)
    assert model_features(models.assign(params_b=None, merged=None, moe=False)).shape == (12, 0)
    lineage = tiny_lineage()
    assert model_features(models, lineage).shape == (14, 0)


def test_unscored_nodes_take_the_average_of_their_neighbours():
    models = tiny_models()
    lineage = tiny_lineage()
    features = model_features(models, lineage)
    assert features.index.tolist() == lineage.node_ids.tolist()
    pd.testing.assert_frame_equal(features.iloc[:12], model_features(models), check_names=False)
    for unscored in lineage.node_ids[12:]:
        expected = features.loc[lineage.children(unscored)].mean()
        pd.testing.assert_series_equal(features.loc[unscored], expected, check_names=False)


def test_averages_spread_outwards_and_the_unreachable_get_the_mean():
    models = tiny_models()
    edges = [
        *EDGES,
        ("deep/root", "base/alpha", "finetune"),
        ("deep/older", "deep/root", "finetune"),
        ("far/a", "far/b", "finetune"),
    ]
    features = model_features(models, Lineage.from_edges(edges, models["model_id"]))
    for node_id in ("deep/root", "deep/older"):
        np.testing.assert_allclose(features.loc[node_id], features.loc["base/alpha"])
    np.testing.assert_allclose(features.loc["far/a"], features.iloc[:12].mean())


def test_permuting_models_only_permutes_rows():
    models = tiny_models()
    features = model_features(models, tiny_lineage())
    mixed = models.iloc[np.random.default_rng(0).permutation(12)]
    again = model_features(mixed, Lineage.from_edges(EDGES, mixed["model_id"]))
    pd.testing.assert_frame_equal(again.loc[features.index], features)


def test_bad_arguments_are_named():
    models = tiny_models()
    lineage = tiny_lineage()
    for other in (models.iloc[::-1], models.iloc[1:]):
        with pytest.raises(ValueError, match="not the 12 of the lineage"):
            model_features(other, lineage)


@pytest.mark.parametrize("name", ["openllm-v1-items", "openllm-v2"])
def test_real_models_have_features(real_data, name):
    snapshot = load_snapshot(real_data / name)
    lineage = Lineage.from_edges(snapshot.lineage, snapshot.models["model_id"])
    features = model_features(snapshot.models, lineage)
    assert len(features) == lineage.n_nodes
    assert np.isfinite(features.to_numpy()).all()
    assert 10 < features.shape[1] < 50
