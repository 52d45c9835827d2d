"""The graph Fourier transform: signals whose spectrum is known, and a dense reference."""

import numpy as np
import pandas as pd
import pytest
from builders import simulated_scores
from scipy.sparse.csgraph import connected_components

from lrmf import Lineage
from lrmf.analysis.spectrum import spectral_energy


def star(n_children, *, is_hub_scored=True):
    children = [f"child{number}" for number in range(n_children)]
    edges = [("hub", child, "finetune") for child in children]
    return Lineage.from_edges(edges, [*children, "hub"] if is_hub_scored else children)


def energy(spectrum, part="all frequencies", benchmark="all"):
    own = spectrum[(spectrum["part"] == part) & (spectrum["benchmark"] == benchmark)]
    return own.set_index("frequencies")["energy"]


def test_scores_constant_within_families_are_all_low_frequency():
    edges = [(f"p{f}", f"c{f}{i}", "finetune") for f in range(4) for i in range(4)]
    lineage = Lineage.from_edges(edges, [child for _, child, _ in edges])
    scores = pd.DataFrame({"x": np.repeat([0.1, 0.3, 0.6, 0.9], 4)})
    curve = energy(spectral_energy(lineage, scores, seed=0))
    assert curve[0.25] == pytest.approx(1)  # 4 families among 16 models


def test_opposite_siblings_are_high_frequency():
    scores = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0, 0.5]})
    curve = energy(spectral_energy(star(4), scores, seed=0))
    # The star over 5 nodes has eigenvalues 0, 1, 1, 1, 5; this signal lives at 1.
    assert curve[0.2] == pytest.approx(0)
    assert curve[0.5] == pytest.approx(0.5)  # repeated eigenvalues share their energy
    assert curve[0.8] == pytest.approx(1)


def test_siblings_of_an_unscored_parent_stay_connected():
    scores = pd.DataFrame({"x": [0.1, 0.2, 0.8]})
    spectrum = spectral_energy(star(3, is_hub_scored=False), scores, seed=0)
    assert spectrum["n_models"].eq(3).all()
    # One family: its mean is the overall mean, and holds nothing.
    assert energy(spectrum)[0.33] == pytest.approx(0)


def test_energy_is_that_of_a_dense_transform():
    lineage, scores = simulated_scores()
    benchmark = scores.columns[0]
    spectrum = spectral_energy(lineage, scores[[benchmark]], seed=0, n_shuffles=3)
    kept = np.zeros(lineage.n_nodes, dtype=bool)
    kept[: lineage.n_models] = scores[benchmark].notna()
    full = lineage.laplacian.toarray()
    inner = np.linalg.pinv(full[np.ix_(~kept, ~kept)])
    reduced = (
        full[np.ix_(kept, kept)] - full[np.ix_(kept, ~kept)] @ inner @ full[np.ix_(~kept, kept)]
    )
    _, group = connected_components(np.abs(reduced) > 1e-9)
    has_relative = np.bincount(group)[group] > 1
    reduced = reduced[np.ix_(has_relative, has_relative)]
    values = scores[benchmark].dropna().to_numpy()[has_relative]
    frequencies, vectors = np.linalg.eigh(reduced)
    expected = np.cumsum((vectors.T @ (values - values.mean())) ** 2)
    expected /= expected[-1]
    ends = np.flatnonzero(np.append(np.diff(frequencies) > 1e-8, True))
    grid = energy(spectrum).index
    share = np.concatenate([[0], (ends + 1) / len(values)])
    reference = np.interp(grid, share, np.concatenate([[0], expected[ends]]))
    np.testing.assert_allclose(energy(spectrum), reference, atol=1e-8)


def test_curves_rise_from_0_to_1_and_shuffles_are_uniform():
    lineage, scores = simulated_scores()
    spectrum = spectral_energy(lineage, scores, seed=0, n_shuffles=50)
    for _, curve in spectrum.groupby(["part", "benchmark"]):
        assert (np.diff(curve["energy"]) >= -1e-12).all()
        assert curve["energy"].iloc[[0, -1]].tolist() == pytest.approx([0, 1])
        assert (curve["lower"] <= curve["shuffled"] + 1e-12).all()
    overall = spectrum[spectrum["benchmark"] == "all"]
    assert np.abs(overall["shuffled"] - overall["frequencies"]).max() < 0.06


def test_large_families_and_no_lineage_give_no_spectrum():
    scores = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0, 0.5]})
    assert spectral_energy(star(4), scores, seed=0, max_family=4).empty
    assert spectral_energy(Lineage.from_edges([], list("abcde")), scores, seed=0).empty
