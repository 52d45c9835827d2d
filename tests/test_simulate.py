"""The simulated Hub: valid at any size, reproducible, and as real as its table of targets says."""

import numpy as np
import pandas as pd
import pytest

from lrmf.data.lineage import Lineage
from lrmf.data.responses import MISSING, benchmark_scores
from lrmf.data.schema import find_problems
from lrmf.data.snapshot import Snapshot, load_snapshot
from lrmf.simulation.items import ItemConfig
from lrmf.simulation.population import grow_population, recorded_edges
from lrmf.simulation.simulate import (
    MIN_ITEMS,
    MIN_MODELS,
    AnswerConfig,
    _draw_retention,
    _inherited_noise,
    simulate,
    write_simulated,
)
from lrmf.simulation.targets import BENCHMARKS, SCORE_SD, TARGETS, simulation_check


@pytest.fixture(scope="module")
def paper_scale() -> Snapshot:
    return simulate()


@pytest.fixture(scope="module")
def small() -> Snapshot:
    return simulate(n_models=300, n_items=600, seed=5)


def problems_of(snapshot: Snapshot) -> list[str]:
    return find_problems(snapshot.models, snapshot.items, snapshot.lineage, snapshot.responses)


# Realism


@pytest.mark.slow
def test_all_statistics_are_within_tolerance_at_paper_scale(paper_scale):
    table = simulation_check(paper_scale)
    assert list(table.columns) == ["statistic", "target", "tolerance", "simulated", "within"]
    assert table["statistic"].tolist() == TARGETS.index.tolist()
    assert table["within"].all(), table[~table["within"]].to_string()


@pytest.mark.slow
def test_another_seed_is_about_as_real():
    table = simulation_check(simulate(seed=11))
    assert table["within"].sum() >= len(table) - 4, table[~table["within"]].to_string()


@pytest.mark.slow
def test_counts_per_benchmark_and_subtask_are_the_real_ones(paper_scale):
    items = paper_scale.items
    assert paper_scale.responses.shape == (2934, 21606)
    counts = items.groupby("benchmark").size()
    assert counts.to_dict() == {
        "ifeval": 541,
        "bbh": 5761,
        "math": 1324,
        "gpqa": 1192,
        "musr": 756,
        "mmlu_pro": 12032,
    }
    subtasks = items.groupby("benchmark")["subtask"].nunique()
    assert subtasks[["ifeval", "bbh", "math", "gpqa", "musr"]].tolist() == [1, 24, 7, 3, 3]
    assert (items["subtask"] == "snarks").sum() == 178
    assert paper_scale.benchmarks == list(BENCHMARKS)


@pytest.mark.slow
def test_paper_scale_is_a_valid_snapshot(paper_scale):
    assert problems_of(paper_scale) == []
    assert paper_scale.responses.dtype == np.uint8


@pytest.mark.slow
def test_scores_have_the_means_and_sds_solved_for(paper_scale):
    scores = benchmark_scores(paper_scale.responses, paper_scale.items)
    np.testing.assert_allclose(scores.mean(), ItemConfig().score_mean, atol=0.02)
    np.testing.assert_allclose(scores.std(), SCORE_SD, rtol=0.12)


# Any size


@pytest.mark.parametrize("seed", range(12))
def test_small_hubs_are_valid_and_have_merges(seed):
    n_models, n_items = MIN_MODELS + 3 * seed, MIN_ITEMS + 11 * seed
    snapshot = simulate(n_models=n_models, n_items=n_items, seed=seed)
    assert problems_of(snapshot) == []
    assert snapshot.responses.shape == (n_models, n_items)
    assert snapshot.benchmarks == list(BENCHMARKS)
    merges = snapshot.lineage[snapshot.lineage["relation"] == "merge"]
    assert (merges.groupby("child").size() >= 2).any()
    assert len(simulation_check(snapshot)) == len(TARGETS)


def test_benchmarks_are_observed_as_a_whole_or_not_at_all(small):
    seen = small.responses != MISSING
    benchmark = small.items["benchmark"].to_numpy()
    for name in BENCHMARKS:
        own = seen[:, benchmark == name]
        assert (own.all(axis=1) == own.any(axis=1)).all()
    assert seen.any(axis=1).all()
    assert 0.5 < seen.mean() < 0.8


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_models", MIN_MODELS - 1),
        ("n_models", 10**9),
        ("n_models", 50.0),
        ("n_models", True),
        ("n_items", MIN_ITEMS - 1),
        ("n_items", "100"),
        ("seed", -1),
        ("seed", None),
    ],
)
def test_a_bad_parameter_is_named_with_its_value_and_range(parameter, value):
    with pytest.raises(ValueError, match=rf"^{parameter} .* from \d+ to \d+, got {value!r}$"):
        simulate(**{parameter: value})


# Reproducible


def test_a_seed_determines_every_byte(small):
    again = simulate(n_models=300, n_items=600, seed=5)
    for table in ("models", "items", "lineage"):
        pd.testing.assert_frame_equal(getattr(small, table), getattr(again, table))
    assert small.responses.tobytes() == again.responses.tobytes()
    other = simulate(n_models=300, n_items=600, seed=6)
    assert small.responses.tobytes() != other.responses.tobytes()


def test_written_snapshot_is_the_one_in_memory(small, tmp_path):
    write_simulated(tmp_path / "hub", n_models=300, n_items=600, seed=5)
    loaded = load_snapshot(tmp_path / "hub")
    assert (loaded.name, loaded.source) == ("simulated", "simulated")
    assert loaded.note.startswith("Simulated data")
    assert loaded.provenance["simulation"] == {"n_models": 300, "n_items": 600, "seed": 5}
    np.testing.assert_array_equal(loaded.responses, small.responses)
    assert loaded.models["model_id"].tolist() == small.models["model_id"].tolist()
    pd.testing.assert_frame_equal(simulation_check(loaded), simulation_check(small))


# Models and lineage


def test_no_name_can_be_taken_for_a_real_model(small):
    names = pd.concat(
        [small.models["model_id"], *(small.lineage[end] for end in ("parent", "child"))]
    )
    assert names.str.fullmatch(
        r"sim-org-\d+/family-\d+-[\d.]+b-(base|ft|merge|lora|quant)-\d+"
    ).all()


def test_models_say_what_real_cards_say(small):
    models = small.models
    assert models["revision"].isna().all()
    assert 0 < models["license"].isna().mean() < 0.5
    assert 0 < models["created_at"].isna().mean() < 0.2
    assert (models["params_b"].dropna() > 0).all()
    is_merge_type = models["type"] == "base merges and moerges"
    assert models.loc[is_merge_type, "merged"].all()
    assert not models.loc[models["type"] == "pretrained", "merged"].any()


@pytest.mark.slow
def test_children_follow_their_parents_in_time(paper_scale):
    models = paper_scale.models.set_index("model_id")
    created = pd.to_datetime(models["created_at"])
    evaluated = pd.to_datetime(models["evaluated_at"])
    both = evaluated.notna() & created.notna()
    assert (evaluated[both] >= created[both]).all()
    lineage = paper_scale.lineage
    parent, child = created.reindex(lineage["parent"]), created.reindex(lineage["child"])
    known = parent.notna().to_numpy() & child.notna().to_numpy()
    assert known.sum() > 100
    assert (child.to_numpy()[known] > parent.to_numpy()[known]).all()


def test_lineage_has_nothing_to_drop(small):
    lineage = Lineage.from_edges(small.lineage, small.models["model_id"])
    assert len(lineage.dropped) == 0
    assert lineage.n_nodes > lineage.n_models


def test_recorded_edges_are_true_descent_seen_from_scored_models():
    population = grow_population(400, np.random.default_rng(2))
    edges = recorded_edges(population)
    parents = population.parents
    for parent, child in zip(edges["parent"], edges["child"], strict=True):
        grandparents = {q for p in parents[child] for q in parents[p]}
        assert parent in set(parents[child]) | grandparents
    leaves = set(edges["child"]) - set(edges["parent"])
    assert population.scored[list(leaves)].all()
    assert not edges.duplicated(["parent", "child"]).any()


def test_true_parents_come_first_and_only_roots_have_none():
    population = grow_population(200, np.random.default_rng(4))
    for node, parents in enumerate(population.parents):
        assert (parents < node).all()
        assert len(set(parents)) == len(parents)
        assert (len(parents) == 0) == (node in population.family_birth)


# Answers


def test_noise_is_standard_normal_and_kept_from_one_parent_as_the_retention_says():
    rng = np.random.default_rng(0)
    population = grow_population(60, rng)
    retention = _draw_retention(population.kind, rng, AnswerConfig())
    noise = np.hstack(
        [block.copy() for _, block in _inherited_noise(population, retention, 4000, rng)]
    )
    assert noise.shape == (population.n_nodes, 4000)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.08)
    np.testing.assert_allclose(noise.std(axis=1), 1, atol=0.06)
    for node, parents in enumerate(population.parents):
        if len(parents) == 1:
            r = np.corrcoef(noise[node], noise[parents[0]])[0, 1]
            assert r == pytest.approx(retention[node], abs=0.08)


def test_check_refuses_other_benchmarks_and_proportions(small):
    renamed = Snapshot(
        **{**vars(small), "items": small.items.assign(benchmark="arc"), "name": "other"}
    )
    with pytest.raises(ValueError, match="snapshot 'other' cannot be compared"):
        simulation_check(renamed)
    proportions = Snapshot(**{**vars(small), "responses": small.responses.astype(np.float32)})
    with pytest.raises(ValueError, match="needs answers"):
        simulation_check(proportions)


def test_check_of_a_snapshot_without_lineage_leaves_its_rows_empty(small):
    alone = Snapshot(**{**vars(small), "lineage": small.lineage.iloc[:0]})
    table = simulation_check(alone).set_index("statistic")
    empty = table["simulated"].isna()
    assert empty["lineage: families"] and empty["parent-child r, merge: average score"]
    assert not table.loc[empty, "within"].any()
    assert not empty["size: median, billions"]
