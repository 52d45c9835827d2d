"""Merge plans: sets of evaluated models, ranked by the forecast of their merge."""

from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, combinations
from math import comb
from numbers import Real

import numpy as np
import pandas as pd

from ..data.response_kinds import ANSWERS
from ..data.responses import observed
from ..solver.scores import chance_above

COLUMNS = ["parents", "size_b", "score", "lower", "upper", "parents_best", "p_better"]
COLUMNS += ["p_best_of_size", "diversity"]


@dataclass(frozen=True)
class MergeConfig:
    """Constants of merge plans.

    Attributes
    ----------
    same_size : float
        Ratio of sizes up to which models count as having weights of the same shape. Cards differ in
        whether they count a tied embedding once or twice.
    size_class : float
        Ratio of sizes up to which models are of the same class.
    n_exact : int
        Number of sets of parents that are forecast exactly.
    n_candidates : int
        Number of best models that are candidates by default.
    max_sets : int
        Maximum number of sets of parents.
    """

    same_size: float = 1.1
    size_class: float = 1.25
    n_exact: int = 200
    n_candidates: int = 200
    max_sets: int = 5_000_000


def plan_merges(
    forecaster, candidates=None, n_parents=2, *, objective="mean", top=20, size=None, level=0.9
):
    r"""Rank sets of evaluated models by the expected score of their merge.

    The forecast of a plan is that of `Forecaster.fold_in` for a merge of these parents without a
    card. Of more than 200 sets only the 200 best by an approximation are forecast. With g(p) the
    forecast of a child of p only, it is

        f(p, q) ~ (g(p) + g(q)) / 2,

    as the mean of a Gaussian process is linear in the lineage of the merge. (On Open LLM
    Leaderboard v2, the 20 best of thousands of sets are among the 44 best by the approximation.)

    Parameters
    ----------
    forecaster : Forecaster, fitted
    candidates : sequence of ids, or int, optional
        Evaluated models, or the number of best ones (200).
    n_parents : int
        2 or 3.
    objective : str
        "mean" of the benchmarks, or the name of one of them.
    top : int
        Number of plans returned.
    size : float, optional
        Use only models of about this size, in billions of parameters.
    level : float
        Nominal coverage of the interval.

    Returns
    -------
    DataFrame, the best plan first
        parents (tuple of ids), size_b (billions of parameters), score, lower, upper, parents_best
        (score of the best parent), p_better (probability of a higher score than that),
        p_best_of_size (probability of a higher score than all evaluated models of the size class),
        diversity (`EvaluatedModels.diversity`). Its ``attrs`` hold ``n_sets``, the number of sets,
        ``left_out``, the number that cannot be merged, by reason, and ``n_exact``, the number
        forecast exactly.

    Raises
    ------
    ValueError
        If a candidate is not an evaluated model, there are too few, or an argument is out of range.
    """
    config = MergeConfig()
    models = EvaluatedModels(forecaster, objective)
    chosen = models.choose(config.n_candidates if candidates is None else candidates, size, config)
    _check(n_parents, top, len(chosen), config.max_sets, size)
    models.complete(chosen)
    # All sets of parents, and those that can be merged.
    flat = chain.from_iterable(combinations(range(len(chosen)), n_parents))
    sets = np.fromiter(flat, np.intp).reshape(-1, n_parents)
    reasons, why = models.obstacles(chosen, sets, config)
    left_out = {reason: int((why == code).sum()) for code, reason in enumerate(reasons)}
    possible = sets[why < 0]
    # Of many sets keep the best by the mean of g over the parents.
    if len(possible) > config.n_exact:
        child_score = models.forecast(chosen[:, None])["score"].to_numpy()
        order = np.argsort(-child_score[possible].mean(axis=1), kind="stable")
        possible = possible[np.sort(order[: config.n_exact])]
    # Forecast these sets exactly, and rank them.
    plans = models.plans(chosen, possible, level, config)
    plans = plans.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    plans.attrs["left_out"] = {reason: n for reason, n in left_out.items() if n}
    plans.attrs |= {"n_sets": len(sets), "n_exact": len(possible)}
    return plans.head(top)


def _check(n_parents, top, n_candidates, max_sets, size):
    """ValueError if an argument of `plan_merges` is out of range."""
    if n_parents not in (2, 3):
        raise ValueError(f"n_parents must be 2 or 3, got {n_parents!r}")
    if not isinstance(top, int | np.integer) or top < 1:
        raise ValueError(f"top must be a whole number from 1, got {top!r}")
    if n_candidates < n_parents:
        of_size = "" if size is None else f" of about {size:g} B"
        raise ValueError(
            f"a merge of {n_parents} needs at least as many candidates, got {n_candidates}{of_size}"
            f"; name {'another size or ' if of_size else ''}more evaluated models"
        )
    if comb(n_candidates, n_parents) > max_sets:
        raise ValueError(
            f"{n_candidates} candidates have {comb(n_candidates, n_parents):,} sets of "
            f"{n_parents}, more than {max_sets:,}; name fewer candidates"
        )


class EvaluatedModels:
    """The evaluated models of a fit, with the scores and sizes that plans depend on.

    Attributes
    ----------
    ids : object (n,)
    scores : (n,)
        Score of the objective. A benchmark without responses is imputed from the model's other
        benchmarks; `complete` replaces such scores by forecasts.
    lacks : bool (n,), whether a benchmark of the objective has no responses
    size : (n,), billions of parameters, NaN where unknown
    architecture : object (n,), "" where unknown

    Parameters
    ----------
    forecaster : Forecaster
    objective : as in `plan_merges`
    """

    def __init__(self, forecaster, objective="mean"):
        names = forecaster.scores_.names
        if objective != "mean" and objective not in names:
            raise ValueError(
                f"objective must be 'mean' or a benchmark of the fit ({', '.join(names[:8])}"
                f"{', ...' if len(names) > 8 else ''}), got {objective!r}"
            )
        self.forecaster = forecaster
        self.benchmarks = names if objective == "mean" else [objective]
        self.ids, self.responses = forecaster.trained_ids_, forecaster.trained_responses_
        self.scores, self.lacks = self._scores()
        # Sizes and architectures of the fit, which are those of parents where cards lack them.
        describer, n = forecaster.prior_.describer, len(self.ids)
        values, known = describer.values[:n], describer.known[:n]
        self.size = np.where(known[:, 0], np.exp(values[:, 0]), np.nan)
        self.architecture = np.full(n, "", object)
        if levels := describer.levels.get("architecture"):
            column = list(describer.parts).index("architecture")
            best = values[:, describer.parts["architecture"]].argmax(axis=1)
            self.architecture = np.where(known[:, column], np.array(levels, object)[best], "")

    def _scores(self):
        """Scores of the objective (n,), and whether one of its benchmarks lacks responses (n,)."""
        fitted = self.forecaster
        scores = np.ma.masked_invalid(fitted.trained_scores_)
        # Impute a missing benchmark from the mean standardised score of the others.
        mean, scale = scores.mean(axis=0).filled(0.5), scores.std(axis=0).filled(0)
        standard = (scores - mean) / np.where(scale > 0, scale, 1)
        imputed = mean + scale * standard.mean(axis=1).filled(0)[:, None]
        # Mean over the benchmarks of the objective.
        counts = np.isin(fitted.scores_.names, self.benchmarks)
        lacks = np.ma.getmaskarray(scores)[:, counts]
        scores = np.where(lacks, imputed[:, counts], scores.data[:, counts])
        return scores.mean(axis=1), lacks.any(axis=1)

    def complete(self, rows):
        """Replace imputed scores of these models by forecasts from their responses, in place.

        Parameters
        ----------
        rows : int (m,), evaluated models
        """
        fitted = self.forecaster
        row = pd.Series(np.arange(len(fitted.place_)), fitted.place_)
        rows = rows[self.lacks[rows] & np.isin(rows, row.index)]
        if rows.size:
            averages = fitted.predict(row[rows].to_numpy()).average(self.benchmarks)
            self.scores[rows], self.lacks[rows] = averages["score"], False

    def choose(self, candidates, size, config):
        """Rows of the candidates: those named, or the best ones.

        Parameters
        ----------
        candidates, size : as in `plan_merges`
        config : MergeConfig

        Returns
        -------
        int (n_candidates,)

        Raises
        ------
        ValueError
            If a named candidate is not an evaluated model, or the size no positive number.
        """
        is_near = np.ones(len(self.ids), bool)
        if size is not None:
            if not isinstance(size, Real) or not size > 0:
                raise ValueError(f"size must be billions of parameters above 0, got {size!r}")
            is_near = np.maximum(self.size / size, size / self.size) <= config.same_size
        if isinstance(candidates, int | np.integer):
            order = np.argsort(-np.nan_to_num(self.scores), kind="stable")
            return order[is_near[order]][: max(candidates, 0)]
        candidates = [candidates] if isinstance(candidates, str) else candidates
        names = list(dict.fromkeys(map(self.forecaster._relatedness.lineage.id_of, candidates)))
        rows = pd.Index(self.ids).get_indexer(names)
        if (rows < 0).any():
            name = names[int(np.argmin(rows))]
            near = get_close_matches(str(name), self.ids.tolist(), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "; name models of the fit"
            raise ValueError(f"{name!r} is not an evaluated model of the fit{hint}")
        return rows[is_near[rows]]

    def obstacles(self, chosen, sets, config):
        """Why sets of parents cannot be merged.

        Parameters
        ----------
        chosen : int (n,), rows of the candidates
        sets : int (n_sets, n_parents), positions in `chosen`
        config : MergeConfig

        Returns
        -------
        reasons : list of str
        why : int (n_sets,), index of the first reason that applies, -1 if none does
        """
        edges, ids = self.forecaster.trained_edges_, self.ids[chosen]
        size, architecture = self.size[chosen], self.architecture[chosen]
        known = {"architecture": self.architecture != "", "size": np.isfinite(self.size)}
        reasons, masks = [], []
        # A parent whose weights cannot be averaged: adapters, quantized and unknown weights.
        for relation, reason in (("adapter", "an adapter"), ("quantized", "quantized weights")):
            children = edges.loc[edges["relation"] == relation, "child"]
            reasons.append(reason)
            masks.append(np.isin(ids, children)[sets].any(axis=1))
        for name, is_known in known.items():
            reasons.append(f"unknown {name}")
            masks.append((~is_known[chosen] & is_known.any())[sets].any(axis=1))
        # Parents whose weights have different shapes, and sets that have been merged before.
        codes = pd.factorize(architecture)[0][sets]
        reasons.append("different architectures")
        masks.append((codes != codes[:, :1]).any(axis=1))
        sizes = size[sets]
        reasons.append("different sizes")
        masks.append(sizes.max(axis=1) > config.same_size * sizes.min(axis=1))
        reasons.append("merged already")
        masks.append(self._is_made(ids, sets))
        return reasons, np.select(masks, range(len(masks)), -1)

    def _is_made(self, ids, sets):
        """Whether the lineage has a merge of exactly these parents (n_sets,)."""
        edges = self.forecaster.trained_edges_
        merges = edges[edges["relation"] == "merge"].groupby("child")["parent"]
        made = {frozenset(parents) for _, parents in merges}
        # Each set, in ascending order, is one number in base n.
        place = {name: number for number, name in enumerate(ids)}
        n, n_parents = len(ids), sets.shape[1]
        base = n ** np.arange(n_parents)
        codes = [
            np.sort([place[name] for name in parents]) @ base
            for parents in made if len(parents) == n_parents and parents <= place.keys()
        ]  # fmt: skip
        return np.isin(sets @ base, codes)

    def forecast(self, parents, level=0.9):
        """Forecasts of merges, as of `Forecast.average`.

        Parameters
        ----------
        parents : int (m, n_parents), rows of models
        level : float
        """
        merges = [[(name, "merge") for name in names] for names in self.ids[parents]]
        return self.forecaster.fold_in_each(merges).predict(level=level).average(self.benchmarks)

    def best_of_size(self, size, config):
        """Highest score (m,) in the class of each size; NaN where the size is unknown.

        Parameters
        ----------
        size : (m,), billions of parameters
        config : MergeConfig
        """
        # In the models sorted by size, a class is a range.
        order = np.argsort(np.nan_to_num(self.size, nan=np.inf), kind="stable")
        order = order[np.isfinite(self.size[order])]
        sizes = self.size[order]
        low = np.searchsorted(sizes, size / config.size_class)
        high = np.searchsorted(sizes, size * config.size_class, side="right")
        return np.array(
            [
                self.scores[order[a:b]].max() if b > a and np.isfinite(s) else np.nan
                for a, b, s in zip(low, high, size, strict=True)
            ]
        )

    def plans(self, chosen, sets, level, config):
        """The DataFrame of `plan_merges` for these sets, in their order."""
        parents = chosen[sets]
        if not len(sets):
            return pd.DataFrame(columns=COLUMNS)
        forecast = self.forecast(parents, level)
        score, deviation = forecast["score"].to_numpy(), forecast["deviation"].to_numpy()
        # Score of the best parent, and the geometric mean of the parents' sizes.
        best = self.scores[parents].max(axis=1)
        size = np.exp(np.log(self.size[parents]).mean(axis=1))
        frame = forecast[["score", "lower", "upper"]].assign(
            parents_best=best,
            p_better=chance_above(score, deviation, best),
            p_best_of_size=chance_above(score, deviation, self.best_of_size(size, config)),
            diversity=self.diversity(chosen, sets),
        )
        return frame.assign(parents=[tuple(names) for names in self.ids[parents]], size_b=size)[
            COLUMNS
        ]

    def diversity(self, chosen, sets):
        r"""Diversity of the parents' errors (n_sets,), 0 to 1: the mean over pairs of parents.

        For answers it is the Jaccard distance of their wrong answers over the items that both
        answered, 1 - |both wrong| / |either wrong|, or 0 where neither has any. For proportions it
        is the mean absolute difference over the benchmarks that both have. It is NaN without common
        items.

        Parameters
        ----------
        chosen : int (n,), rows of the candidates
        sets : int (n_sets, n_parents), positions in `chosen`
        """
        # Distances of all pairs of models that are in some set.
        used, place = np.unique(sets, return_inverse=True)
        responses = np.asarray(self.responses[chosen[used]])
        known = observed(responses)
        if self.forecaster.kind_ is ANSWERS:
            wrong, answered = (responses == 0).astype(np.float32), known.astype(np.float32)
            both = wrong @ wrong.T
            either = wrong @ answered.T + answered @ wrong.T - both
            distance = 1 - np.divide(both, either, out=np.ones_like(both), where=either > 0)
            distance[answered @ answered.T == 0] = np.nan
        else:
            responses = np.where(known, responses, 0).astype(float)
            total = np.zeros((len(used), len(used)))
            for values, is_known in zip(responses.T, known.T, strict=True):
                total += np.abs(values[:, None] - values) * np.outer(is_known, is_known)
            count = known.astype(float) @ known.T
            distance = total / np.where(count > 0, count, np.nan)
        # Mean over the pairs of each set.
        place = place.reshape(sets.shape)
        pairs = combinations(range(sets.shape[1]), 2)
        return np.mean([distance[place[:, a], place[:, b]] for a, b in pairs], axis=0)
