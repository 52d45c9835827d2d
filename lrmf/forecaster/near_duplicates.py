"""Near-duplicate mixture: a model may copy the answers of a training model."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.response_kinds import ANSWERS
from ..data.statistics import read_only
from ..solver import kernels

RELATEDNESS = ("other", "family", "two steps", "one step")  # of a candidate to the model forecast


@dataclass(frozen=True)
class NearDuplicateConfig:
    """Constants of the near-duplicate mixture.

    Attributes
    ----------
    noise : tuple of float
        Noise levels e: shares of a copy's answers that are redrawn.
    n_revealed : tuple of int
        Numbers of revealed answers for which mixture weights are learned.
    most_revealed : int
        Maximum number of revealed answers of a model in the likelihood of its candidates.
    n_kept : int
        Maximum number of candidates that a forecast averages over.
    n_cells : int
        Cells of a float32 working array.
    n_rounds : int
        Rounds of expectation maximisation.
    prior_count : float
        Pseudo-count of each mixture component.
    min_models : int
        Minimum number of models from which mixture weights are learned.
    lineage_answers : int
        Number of answers with about as much information on a model as its lineage.
    zero_shot_level : int
        Number of answers whose mixture weights are used for related models without answers.
    """

    noise: tuple = (0.02, 0.05, 0.1, 0.2, 0.35)
    n_revealed: tuple = ANSWERS.n_revealed_calibration[1:]
    most_revealed: int = 256
    n_kept: int = 32
    n_cells: int = 4_000_000
    n_rounds: int = 30
    prior_count: float = 0.1
    min_models: int = 20
    lineage_answers: int = 20
    zero_shot_level: int = 20


CONFIG = NearDuplicateConfig()
NOISE = np.array(CONFIG.noise)


class NearDuplicates:
    r"""Mixture over the training models of which a model may be a near-duplicate.

    Its answers follow the forecast p_ui of LRMF, or they are those of a training model v (a
    candidate), each redrawn from p_ui with probability e:

        P(z_ui = 1 | v, e) = (1 - e) z_vi + e p_ui      (p_ui where v has no answer)

    Given the revealed answers O the weight of (v, e) is

        w_ve  propto  pi[r, e] / n_r  prod_{i in O} P(z_ui | v, e)

    with r the relatedness of v to u, n_r the number of candidates of that relatedness, and pi the
    mixture weights; the weight of the base forecast is 1 - sum pi. In the likelihood p_ui is the
    sequential forecast (`forecast_in_turn`). Candidates of another family without an answer to an
    item of O get no weight.

    The mixture weights are learned by expectation maximisation (Dempster et al., 1977) from
    training models of which only few answers are revealed. Answers are not independent given v, so
    the best weights depend on the number of revealed answers: they are learned for each number in
    `NearDuplicateConfig.n_revealed`, for models with and without evaluated relatives.

    Parameters
    ----------
    answers : uint8 (n_candidates, n_items), 0/1/255, of the candidates
    mixture_weights : dict of (n_revealed, lacks_relatives) to (weights, base weight), optional
        Weights (n_relatedness, n_noise) and the weight of the base forecast.
    """

    def __init__(self, answers, mixture_weights=None):
        self.answers = answers
        self.mixture_weights = {} if mixture_weights is None else mixture_weights

    @cached_property
    def _by_item(self):
        """Answers of the candidates, uint8 (n_items, n_candidates)."""
        by_item = np.empty(self.answers.shape[::-1], self.answers.dtype)
        # Blocks of 64 candidates stay in cache, which makes the copy three times as fast.
        for start in range(0, len(self.answers), 64):
            by_item[:, start : start + 64] = self.answers[start : start + 64].T
        return by_item

    @property
    def block(self) -> int:
        """Number of models that fit into one working array."""
        return max(1, CONFIG.n_cells // (len(NOISE) * len(self.answers)))

    def learn(self, n_revealed, relatedness, lacks_relatives, expected, revealed):
        """Learn the mixture weights for one number of revealed answers.

        Parameters
        ----------
        n_revealed : int
            One of `NearDuplicateConfig.n_revealed`.
        relatedness : function of a slice, int8 (n, n_candidates), as in `Relatedness`
        lacks_relatives : bool (n,), models without evaluated relatives
        expected : float32 (n_cells,), forecasts of the answers (`forecast_in_turn`)
        revealed : RevealedAnswers of the models
        """
        # Mean likelihood ratio of the candidates of each relatedness, then the weights by EM.
        ratios = np.concatenate(
            [
                _mean_by_relatedness(
                    self._log_ratios(expected, revealed, block), relatedness(block)
                )
                for block in revealed.blocks(self.block)
            ]
        )
        for group in (False, True):
            if (lacks_relatives == group).sum() >= CONFIG.min_models:
                self.mixture_weights[n_revealed, group] = _learn_weights(
                    ratios[lacks_relatives == group]
                )

    def table(self):
        """The mixture weights.

        Returns
        -------
        DataFrame : relatives ("yes" or "no"), answers (number revealed), LRMF (weight of the base
            forecast), and the weight of each relatedness, summed over noise levels
        """
        rows = [
            {
                "relatives": "no" if lacks_relatives else "yes",
                "answers": n_revealed,
                "LRMF": base_weight,
            }
            | dict(zip(RELATEDNESS, weights.sum(axis=1), strict=True))
            for (n_revealed, lacks_relatives), (
                weights,
                base_weight,
            ) in self.mixture_weights.items()
        ]
        return pd.DataFrame(rows, columns=["relatives", "answers", "LRMF", *RELATEDNESS])

    def weights(self, relatedness, lacks_relatives, expected, revealed):
        """Posterior weights of the candidates given the revealed answers.

        Parameters
        ----------
        relatedness, lacks_relatives, expected, revealed : as in `learn`, for any number of answers

        Returns
        -------
        CSR float32 (n, n_candidates)
            sum_e (1 - e) w_ve, the `n_kept` largest in each row.
        """
        parts = [sparse.csr_array((0, len(self.answers)), dtype=np.float32)]
        for block in revealed.blocks(self.block):
            ratio = self._log_ratios(expected, revealed, block)
            priors = self._prior_weights(lacks_relatives[block], revealed.n_revealed[block])
            parts.append(_posterior_weights(ratio, relatedness(block), *priors))
        return sparse.vstack(parts, format="csr")

    def _prior_weights(self, lacks_relatives, n_revealed):
        """Mixture weights (n, relatedness, noise) and base weights (n,) of each model."""
        # Weights learned at the number of revealed answers that is nearest in log(1 + n).
        nearest = np.abs(np.log1p(n_revealed)[:, None] - np.log1p(CONFIG.n_revealed)).argmin(axis=1)
        weights = np.zeros((len(lacks_relatives), len(RELATEDNESS), NOISE.size))
        base_weight = np.ones(len(lacks_relatives))
        for row, (level, group) in enumerate(zip(nearest, lacks_relatives, strict=True)):
            if n_revealed[row] == 0:
                if group:
                    continue  # without answers and relatives there is no evidence for a candidate
                level = CONFIG.n_revealed.index(CONFIG.zero_shot_level)
            if learned := self.mixture_weights.get((CONFIG.n_revealed[level], bool(group))):
                weights[row], base_weight[row] = learned
        return weights, base_weight

    def blend(self, weights, forecast, items=slice(None)):
        """Forecast of the mixture, sum_v w_uv z_vi + (1 - sum_v w_uv) p_ui.

        Parameters
        ----------
        weights : CSR (n, n_candidates), from `weights`
        forecast : float32 (n, n_columns), p, of LRMF given the revealed answers
        items : the columns

        Returns
        -------
        float32 (n, n_columns)
        """
        if not weights.nnz:
            return forecast
        if len(forecast) == 1:  # compiled kernels take half a second to start
            weight, answers = weights.data, self.answers[weights.indices][:, items]
            return weight @ (answers == 1) + (1 - weight @ (answers != ANSWERS.missing)) * forecast
        answers, used = self.answers, weights.indices
        if not (isinstance(items, slice) and items == slice(None)):
            # Read only candidates with weight in some row.
            rows, used = np.unique(used, return_inverse=True)
            answers = answers[rows][:, items]
        answers, used = read_only(answers), used.astype(np.int32)
        mixed = np.empty_like(forecast)
        kernels.mix_answers(weights.indptr, used, weights.data, answers, forecast, mixed)
        return mixed

    def _log_ratios(self, expected, revealed, block):
        """Log-likelihood ratios of (v, e) to the base forecast, float32 (n, noise, candidates)."""
        # Probability of each revealed answer under the base forecast.
        cells = revealed.cells[block]
        expected = expected[revealed.cells.indptr[block.start] :][: cells.nnz]
        is_right = cells.data == 1
        chance = np.clip(np.where(is_right, expected, 1 - expected), 1e-4, 1)[:, None]
        # log P(z | v, e) - log P(z | LRMF), for a candidate that agrees and one that does not.
        same, other = np.log((1 - NOISE) / chance + NOISE), np.log(NOISE)
        if_right = np.where(is_right[:, None], same, other).astype(np.float32)
        if_wrong = np.where(is_right[:, None], other, same).astype(np.float32)
        if cells.shape[0] == 1:
            answers = self.answers[:, cells.indices].T
            return (if_right.T @ (answers == 1) + if_wrong.T @ (answers == 0))[None]
        shape = cells.shape[0], NOISE.size, len(self.answers)
        if not cells.nnz:
            return np.zeros(shape, np.float32)
        ratio = np.empty(shape, np.float32)
        kernels.weigh_answers(cells.indptr, cells.indices, if_right, if_wrong, self._by_item, ratio)
        return ratio


class Relatedness:
    """Relatedness of candidates to models: index into `RELATEDNESS`, -1 for the model itself.

    Parameters
    ----------
    lineage : Lineage
    candidates : int (n_candidates,), nodes
    """

    def __init__(self, lineage, candidates):
        self.lineage, self.candidates = lineage, candidates
        # Nodes within one step of each other, themselves included.
        step = lineage.adjacency.astype(bool).astype(np.int32)
        self._step = (step + sparse.eye_array(step.shape[0], dtype=np.int32)).tocsr()
        self._near = self._step[:, candidates].tocsr()

    def of(self, rows):
        """Relatedness, int8 (n, n_candidates), to the nodes `rows`."""
        relatedness = self._classify(self.lineage.families[rows][:, None], self._step[rows])
        relatedness[rows[:, None] == self.candidates] = -1
        return relatedness

    def of_leaf(self, parents):
        """Relatedness, int8 (1, n_candidates), to a new child of the nodes `parents`."""
        families = self.lineage.families[parents] if len(parents) else np.array([-1])
        links = np.zeros((1, self._step.shape[0]), np.int32)
        links[0, parents] = 1
        return self._classify(families, sparse.csr_array(links))

    def _classify(self, families, links):
        """Relatedness from the families (n, n_families) and the nodes within one step, sparse."""
        # From family over two steps to one step, so that the closest relation overwrites others.
        family = self.lineage.families[self.candidates]
        relatedness = (families[..., None] == family).any(axis=-2).astype(np.int8)
        relatedness = np.broadcast_to(relatedness, (links.shape[0], family.size)).copy()
        for degree, near in ((2, links @ self._near), (3, links[:, self.candidates])):
            cells = near.tocoo()
            relatedness[cells.row, cells.col] = degree
        return relatedness


class RevealedAnswers:
    """The revealed answers of some models; of very many answers an evenly spaced sample.

    Attributes
    ----------
    n_revealed : int (n,), number of revealed answers
    cells : CSR (n, n_items) of the answers, at most `most_revealed` in each row

    Parameters
    ----------
    revealed : uint8 (n, n_items), 255 where not revealed
    """

    def __init__(self, revealed):
        # Of k equal parts of a row's answers keep the last answer of each.
        places = [np.flatnonzero(row != ANSWERS.missing) for row in revealed]
        self.n_revealed = np.array([row.size for row in places], dtype=int)
        n_kept = np.minimum(self.n_revealed, CONFIG.most_revealed)
        kept = [
            row[-(-row.size * np.arange(1, k + 1) // max(k, 1)) - 1]
            for row, k in zip(places, n_kept, strict=True)
        ]
        columns = np.concatenate([np.zeros(0, int), *kept])
        pointers = np.concatenate([[0], np.cumsum(n_kept)])
        values = revealed[np.repeat(np.arange(len(revealed)), n_kept), columns]
        self.cells = sparse.csr_array((values, columns, pointers), shape=revealed.shape)

    def blocks(self, size):
        """Slices of at most `size` models."""
        return [slice(start, start + size) for start in range(0, len(self.n_revealed), size)]


def forecast_in_turn(before, left_out, revealed):
    r"""Approximate sequential forecasts: each revealed answer given the ones before it.

    The likelihood of n answers under the base forecast is a product of sequential forecasts: the
    first answer from lineage, the last given all others. If n0 answers have as much information as
    lineage, the j-th forecast depends on lineage with a weight of 1 / (1 + j / n0), so on average

        log P_i = a log P_i(before) + (1 - a) log P_i(given all others),  a = log(1 + n/n0) n0/n

    Parameters
    ----------
    before, left_out : float32 (n_cells,)
        Expected answers before any answer, and given all other answers.
    revealed : RevealedAnswers

    Returns
    -------
    float32 (n_cells,), expected answers
    """
    # The weight a of each answer, by the number of answers of its model.
    n = np.maximum(revealed.n_revealed, 1).astype(np.float32)
    weight = np.log1p(n / CONFIG.lineage_answers) * CONFIG.lineage_answers / n
    weight = np.repeat(weight, np.diff(revealed.cells.indptr))
    is_right = revealed.cells.data == 1
    first, last = (np.clip(np.where(is_right, p, 1 - p), 1e-4, 1) for p in (before, left_out))
    # Weighted geometric mean of the two probabilities of the answer.
    chance = first**weight * last ** (1 - weight)
    return np.where(is_right, chance, 1 - chance)


def _posterior_weights(ratio, relatedness, weights, base_weight):
    """Posterior weights of the candidates, CSR (n, n_candidates), the smallest dropped.

    Parameters
    ----------
    ratio : float32 (n, noise, n_candidates), log-likelihood ratios; overwritten
    relatedness : int8 (n, n_candidates)
    weights, base_weight : (n, relatedness, noise), (n,), mixture weights
    """
    # log w_ve = log pi[r, e] - log n_r + log-likelihood ratio; -inf for the model itself.
    number = [np.maximum((relatedness == r).sum(axis=1), 1) for r in range(len(RELATEDNESS))]
    log_prior = np.full((len(relatedness), NOISE.size, len(RELATEDNESS) + 1), -np.inf, np.float32)
    with np.errstate(divide="ignore"):
        log_prior[..., :-1] = np.log(weights / np.stack(number, axis=1)[..., None]).swapaxes(1, 2)
    # Without a common item there is no evidence for a candidate of another family: its prior
    # weight goes to the base forecast.
    is_unsupported = (relatedness == 0) & (ratio == 0).all(axis=1)
    unsupported_share = is_unsupported.sum(axis=1) / number[0]
    base_weight = base_weight + unsupported_share * weights[:, 0].sum(axis=1)
    log_weight = ratio
    for weight, prior, degree in zip(log_weight, log_prior, relatedness, strict=True):
        weight += prior[:, degree]
    np.copyto(log_weight, -np.inf, where=is_unsupported[:, None])
    # Normalise together with the base weight; subtracting the maximum avoids overflow.
    maximum = np.maximum(log_weight.max(axis=(1, 2)), np.log(base_weight))
    log_weight -= maximum[:, None, None].astype(np.float32)
    weight = np.exp(log_weight, out=log_weight)
    total = weight.sum(axis=(1, 2)) + base_weight * np.exp(-maximum)
    # A copy with noise e keeps a share 1 - e of the candidate's answers.
    weight = np.einsum("nev,e->nv", weight, 1 - NOISE) / total[:, None]
    # Drop the smallest weights and rescale the rest to the same sum.
    if weight.shape[1] > CONFIG.n_kept:
        threshold = -np.partition(-weight, CONFIG.n_kept - 1, axis=1)[:, [CONFIG.n_kept - 1]]
        kept = np.where(weight >= threshold, weight, 0)
        weight = kept * (weight.sum(axis=1) / np.maximum(kept.sum(axis=1), 1e-30))[:, None]
    return sparse.csr_array(weight.astype(np.float32))


def _learn_weights(log_mean):
    """Mixture weights (relatedness, noise) and the base weight of highest likelihood, by EM.

    Parameters
    ----------
    log_mean : (n, relatedness, noise), from `_mean_by_relatedness`
    """
    # Likelihoods of all components, up to a factor for each model that avoids overflow.
    shift = np.maximum(log_mean.max(axis=(1, 2)), 0)
    likelihood, base_likelihood = np.exp(log_mean - shift[:, None, None]), np.exp(-shift)
    weights, base_weight = np.full(log_mean.shape[1:], 0.5 / log_mean[0].size), 0.5
    for _ in range(CONFIG.n_rounds):
        # E step: responsibilities. M step: their sums plus pseudo-counts, normalised.
        joint = weights * likelihood
        total = joint.sum(axis=(1, 2)) + base_weight * base_likelihood
        weights = (joint / total[:, None, None]).sum(axis=0) + CONFIG.prior_count
        base_weight = (base_weight * base_likelihood / total).sum() + 1.0
        normaliser = weights.sum() + base_weight
        weights, base_weight = weights / normaliser, base_weight / normaliser
    return weights, base_weight


def _mean_by_relatedness(ratio, relatedness):
    """Log of the mean likelihood ratio over the candidates of each relatedness.

    Parameters
    ----------
    ratio : (n, noise, n_candidates), log-likelihood ratios
    relatedness : int8 (n, n_candidates)

    Returns
    -------
    (n, relatedness, noise)
    """
    parts = []
    for degree in range(len(RELATEDNESS)):
        member = (relatedness == degree)[:, None]
        number = member.sum(axis=2)
        # Log-sum-exp over the candidates, less log of their number.
        maximum = np.where(member, ratio, -np.inf).max(axis=2)
        maximum = np.where(number > 0, maximum, 0)
        terms = np.where(member, np.exp(np.minimum(ratio - maximum[..., None], 0)), 0)
        total = terms.sum(axis=2)
        with np.errstate(divide="ignore"):
            mean = maximum + np.log(total / np.maximum(number, 1))
        parts.append(np.where(number > 0, mean, -np.inf))
    return np.stack(parts, axis=1)
