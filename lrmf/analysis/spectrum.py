"""The graph spectrum: how smooth performance is on the lineage."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..data.lineage import Lineage

_GRID = np.linspace(0, 1, 101)
_TOLERANCE = 1e-8  # eigenvalues closer than that are equal


def spectral_energy(
    lineage: Lineage,
    scores: pd.DataFrame,
    *,
    seed: int,
    n_shuffles: int = 20,
    max_family: int = 4000,
) -> pd.DataFrame:
    """Share of the models' performance in the low frequencies of the lineage.

    With ``L = U diag(l) U^T`` the Laplacian over the models evaluated on a benchmark and x their
    centred scores, the energy at frequency l_k is ``(u_k . x)^2 / |x|^2`` (graph Fourier transform:
    Shuman et al., 2013). Models without evaluated relatives are left out; all other nodes are
    eliminated, ``L = L_ss - L_su L_uu^-1 L_us``, which keeps siblings connected through a parent
    that nobody evaluated. Repeated eigenvalues share their energy equally, as their eigenvectors
    are arbitrary.

    Parameters
    ----------
    lineage : Lineage
    scores : DataFrame (n_models, n_benchmarks)
    seed : int
        Of the shuffles, which permute the scores over the models of the transform.
    n_shuffles : int
    max_family : int
        Larger families are left out: the eigenvectors of a family are a dense matrix.

    Returns
    -------
    DataFrame
        ``part, benchmark, n_models, frequencies, energy, shuffled, lower, upper``: the cumulative
        share ``energy`` in the lowest share ``frequencies``, and the mean and range over shuffles.
        Part "all frequencies", or "within families": without the zero frequencies, which are the
        families' means. Benchmark "all" is the mean of the benchmarks.

    Examples
    --------
    Scores that differ between the families but not within are all in the zero frequencies:

    >>> edges = [("a", "b", "finetune"), ("b", "c", "finetune"), ("d", "e", "merge")]
    >>> lineage = Lineage.from_edges(edges, list("abcde"))
    >>> scores = pd.DataFrame({"math": [0.2, 0.2, 0.2, 0.7, 0.7]})
    >>> energy = spectral_energy(lineage, scores, seed=0)
    >>> is_low = (energy["part"] == "all frequencies") & (energy["frequencies"] == 0.4)
    >>> energy.loc[is_low & (energy["benchmark"] == "math"), "energy"].round(6).tolist()
    [1.0]
    """
    rng = np.random.default_rng(seed)
    places = rng.random((lineage.n_models, n_shuffles))
    curves, n_members, known_modes = {}, {}, {}
    for benchmark in scores.columns:
        values = scores[benchmark].to_numpy()
        key = np.isfinite(values).tobytes()
        if key not in known_modes:
            known_modes[key] = list(_family_modes(lineage, np.isfinite(values), max_family))
        if modes := known_modes[key]:
            members = np.concatenate([models for models, *_ in modes])
            signal = values[members] - values[members].mean()
            shuffled = signal[np.argsort(places[members], axis=0)]
            n_members[benchmark] = len(members)
            for part, part_curves in _energy_curves(modes, np.column_stack([signal, shuffled])):
                curves[part, benchmark] = part_curves
    return _spectrum_frame(curves, n_members)


def _family_modes(lineage, is_evaluated, max_family) -> Iterator[tuple]:
    """Models, frequencies and eigenvectors of every family with two evaluated models or more."""
    evaluated = np.zeros(lineage.n_nodes, dtype=bool)
    evaluated[: lineage.n_models] = is_evaluated
    sizes = np.bincount(lineage.families)
    n_evaluated = np.bincount(lineage.families, weights=evaluated)
    by_family = np.split(np.argsort(lineage.families, kind="stable"), np.cumsum(sizes)[:-1])
    for family in np.flatnonzero((n_evaluated >= 2) & (sizes <= max_family)):
        nodes = by_family[family]
        kept = evaluated[nodes]
        laplacian = lineage.laplacian[nodes][:, nodes].toarray()
        frequencies, vectors = np.linalg.eigh(_eliminate(laplacian, kept))
        yield nodes[kept], frequencies, vectors


def _eliminate(laplacian, kept):
    """Laplacian between the kept nodes when the others take the values of least energy."""
    cross = laplacian[np.ix_(~kept, kept)]
    inner = np.linalg.solve(laplacian[np.ix_(~kept, ~kept)], cross)
    return laplacian[np.ix_(kept, kept)] - cross.T @ inner


def _energy_curves(modes, signals):
    """Cumulative energies (n_grid, n_signals), over all frequencies and without the zero ones."""
    frequencies = np.concatenate([values for _, values, _ in modes])
    ends = np.cumsum([len(models) for models, *_ in modes])[:-1]
    blocks = zip(modes, np.split(signals, ends), strict=True)
    energies = np.concatenate([(vectors.T @ block) ** 2 for (*_, vectors), block in blocks])
    parts = {
        "all frequencies": np.ones(len(frequencies), dtype=bool),
        "within families": frequencies > _TOLERANCE,
    }
    for part, chosen in parts.items():
        if chosen.any() and (energies[chosen].sum(axis=0) > 0).all():
            yield part, _cumulative(frequencies[chosen], energies[chosen])


def _cumulative(frequencies, energies):
    """Cumulative share of energy (n_grid, n_signals), level within repeated frequencies."""
    order = np.argsort(frequencies, kind="stable")
    is_last = np.append(np.diff(frequencies[order]) > _TOLERANCE, True)
    share = np.concatenate([[0], (np.flatnonzero(is_last) + 1) / len(order)])
    total = np.cumsum(energies[order], axis=0)[is_last]
    total = np.vstack([np.zeros(energies.shape[1]), total / total[-1]])
    return np.column_stack([np.interp(_GRID, share, column) for column in total.T])


def _spectrum_frame(curves, n_members):
    for part in dict.fromkeys(part for part, _ in curves):
        of_part = [curve for (name, _), curve in curves.items() if name == part]
        curves[part, "all"] = np.mean(of_part, axis=0)
    n_members = n_members | {"all": max(n_members.values(), default=0)}
    columns = ["part", "benchmark", "n_models", "frequencies"]
    frames = [pd.DataFrame(columns=[*columns, "energy", "shuffled", "lower", "upper"])]
    for (part, benchmark), curve in curves.items():
        shuffled = curve[:, 1:]
        frame = {"part": part, "benchmark": benchmark, "n_models": n_members[benchmark]}
        frame |= {"frequencies": _GRID, "energy": curve[:, 0], "shuffled": shuffled.mean(axis=1)}
        frame |= {"lower": shuffled.min(axis=1), "upper": shuffled.max(axis=1)}
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames[1:] or frames, ignore_index=True)
