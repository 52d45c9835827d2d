"""Near-duplicates of training models, which a Gaussian prior cannot describe: a mixture."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.response_kinds import ANSWERS
from ..data.statistics import compress
from ..solver import kernels

RELATEDNESS = ("other", "family", "two steps", "one step")  # of a candidate to the model forecast


@dataclass(frozen=True)
class NearDuplicateConfig:
    """Constants of the near-duplicate mixture.

    Attributes
    ----------
    noise : tuple of float
        Shares e of a copy's answers that were redrawn.
    n_revealed : tuple of int
        Numbers of revealed answers for which mixture weights are learned.
    most_revealed : int
        Revealed answers that weigh the candidates of a model, at most.
    n_candidates : int
        Training models that may have been copied, drawn at random if there are more.
    n_kept : int
        Candidates that a forecast averages.
    n_cells : int
        Cells of a float32 working array.
    n_rounds : int
        Rounds of expectation maximisation.
    prior_count : float
        Models in which each mixture component has been seen beforehand.
    fewest : int
        Models that mixture weights are learned from.
    lineage_answers : int
        Answers that say about as much of a model as its lineage does.
    typical : int
        The number of answers whose mixture weights serve related models without any.
    """

    noise: tuple = (0.02, 0.05, 0.1, 0.2, 0.35)
    n_revealed: tuple = ANSWERS.n_revealed_calibration[1:]
    most_revealed: int = 256
    n_candidates: int = 10_000
    n_kept: int = 32
    n_cells: int = 4_000_000
    n_rounds: int = 30
    prior_count: float = 0.1
    fewest: int = 20
    lineage_answers: int = 20
    typical: int = 20


CONFIG = NearDuplicateConfig()
NOISE = np.array(CONFIG.noise)


class NearDuplicates:
    r"""Mixture over the training models that a model may have been copied from.

    Either its answers follow the forecast p_ui of LRMF, or they are those of a training model v,
    each redrawn from p_ui with probability e:

        P(z_ui = 1 | v, e) = (1 - e) z_vi + e p_ui      (p_ui where v has no answer)

    Given the revealed answers O the weight of (v, e) is

        w_ve  propto  share[relatedness of v, e] / n_kin  prod_{i in O} P(z_ui | v, e)

    with n_kin the number of training models of that relatedness to u, and p_ui in it what LRMF
    would have forecast as the answers came in (`forecast_in_turn`). Strangers that answered none of
    the items in O have no weight. The shares (mixture weights)
    are learned by expectation maximisation from training models that are forecast as if only few
    of their answers were revealed. Answers are not independent given v, so the best shares depend
    on how many are revealed: they are learned for each number in `NearDuplicateConfig.n_revealed`,
    and for models with and without relatives.

    Parameters
    ----------
    answers : uint8 (n_candidates, n_items), 0/1/255, of the training models that may be copied
    """

    def __init__(self, answers, mixture_weights=None):
        self.answers = answers
        self.mixture_weights = {} if mixture_weights is None else mixture_weights

    @cached_property
    def _by_item(self):
        """Answers of the candidates, uint8 (n_items, n_candidates)."""
        return np.ascontiguousarray(self.answers.T)

    @property
    def block(self) -> int:
        """Models that fit into one working array."""
        return max(1, CONFIG.n_cells // (len(NOISE) * len(self.answers)))

    def learn(self, n_revealed, kin, isolated, expected, revealed):
        """Learn the shares from training models.

        Parameters
        ----------
        n_revealed : int
            One of `NearDuplicateConfig.n_revealed`: so many answers are revealed.
        kin : function of a slice, int8 (n, n_candidates), as in `Relatedness`
        isolated : bool (n,), models without evaluated relatives
        expected : float32 (n_cells,), forecasts of the answers (`forecast_in_turn`)
        revealed : RevealedAnswers of the models
        """
        # Mean likelihood ratio of the candidates of each relatedness, then their weights by EM.
        ratios = np.concatenate(
            [
                _mean_by_relatedness(self._evidence(expected, revealed, block), kin(block))
                for block in revealed.blocks(self.block)
            ]
        )
        for group in (False, True):
            if (isolated == group).sum() >= CONFIG.fewest:
                self.mixture_weights[n_revealed, group] = _maximise(ratios[isolated == group])

    def table(self):
        """DataFrame of the shares: relatives, answers (known when learned), share by relatedness.

        ``LRMF`` is the share of the forecast that copies nobody.
        """
        rows = [
            {"relatives": "no" if isolated else "yes", "answers": n_revealed, "LRMF": alone}
            | dict(zip(RELATEDNESS, share.sum(axis=1), strict=True))
            for (n_revealed, isolated), (share, alone) in self.mixture_weights.items()
        ]
        return pd.DataFrame(rows, columns=["relatives", "answers", "LRMF", *RELATEDNESS])

    def weights(self, kin, isolated, expected, revealed):
        """Weights of the candidates given revealed answers.

        Parameters
        ----------
        kin, isolated, expected, revealed : as in `learn`, of any models with any number of answers

        Returns
        -------
        CSR float32 (n, n_candidates) : (1 - e) w_ve summed over e, the largest of them in each row
        """
        parts = [sparse.csr_array((0, len(self.answers)), dtype=np.float32)]
        for block in revealed.blocks(self.block):
            ratio = self._evidence(expected, revealed, block)
            shares, alone = self._shares(isolated[block], revealed.n_revealed[block])
            parts.append(_normalised(ratio, kin(block), shares, alone))
        return sparse.vstack(parts, format="csr")

    def _shares(self, isolated, n_revealed):
        """Shares (n, relatedness, noise) and of LRMF alone (n,) for so many revealed answers."""
        # Weights learned at the number of revealed answers that is nearest in log(1 + n).
        nearest = np.abs(np.log1p(n_revealed)[:, None] - np.log1p(CONFIG.n_revealed)).argmin(axis=1)
        shares, alone = (
            np.zeros((len(isolated), len(RELATEDNESS), NOISE.size)),
            np.ones(len(isolated)),
        )
        for row, (level, group) in enumerate(zip(nearest, isolated, strict=True)):
            if n_revealed[row] == 0:
                if group:
                    continue  # nothing at all speaks for any candidate
                level = CONFIG.n_revealed.index(CONFIG.typical)
            if found := self.mixture_weights.get((CONFIG.n_revealed[level], bool(group))):
                shares[row], alone[row] = found
        return shares, alone

    def blend(self, weights, forecast, items=slice(None)):
        """Forecast of the mixture: the candidates' answers, and `forecast` for the rest.

        Parameters
        ----------
        weights : CSR (n, n_candidates), from `weights`
        forecast : float32 (n, n_columns), of LRMF given the revealed answers
        items : the columns
        """
        # Only the candidates that have weight in some row are read.
        used, place = np.unique(weights.indices, return_inverse=True)
        if not used.size:
            return forecast
        answers = np.asarray(self.answers[used])[:, items]
        if len(forecast) == 1:  # compiled kernels take half a second to start
            weight = weights.data
            return weight @ (answers == 1) + (1 - weight @ (answers != ANSWERS.missing)) * forecast
        mixed = np.empty_like(forecast)
        kernels.mix_answers(weights.indptr, place.ravel(), weights.data, answers, forecast, mixed)
        return mixed

    def _evidence(self, expected, revealed, block):
        """Log-likelihood ratios to LRMF alone (n, noise, n_candidates)."""
        cells = revealed.cells[block]
        expected = expected[revealed.cells.indptr[block.start] :][: cells.nnz]
        is_right = cells.data == 1
        chance = np.clip(np.where(is_right, expected, 1 - expected), 1e-4, 1)[:, None]
        # log P(z | v, e) - log P(z | LRMF), for a candidate that agrees and one that does not.
        same, other = np.log((1 - NOISE) / chance + NOISE), np.log(NOISE)
        if_right = np.where(is_right[:, None], same, other).astype(np.float32)
        if_wrong = np.where(is_right[:, None], other, same).astype(np.float32)
        if cells.shape[0] == 1:
            theirs = self.answers[:, cells.indices].T
            return (if_right.T @ (theirs == 1) + if_wrong.T @ (theirs == 0))[None]
        shape = cells.shape[0], NOISE.size, len(self.answers)
        if not cells.nnz:
            return np.zeros(shape, np.float32)
        ratio = np.empty(shape, np.float32)
        kernels.weigh_answers(cells.indptr, cells.indices, if_right, if_wrong, self._by_item, ratio)
        return ratio


class Relatedness:
    """How the candidates are related to models: index into `RELATEDNESS`, -1 for itself.

    Parameters
    ----------
    lineage : Lineage
    candidates : int (n_candidates,), nodes
    """

    def __init__(self, lineage, candidates):
        self.lineage, self.candidates = lineage, candidates
        step = lineage.adjacency.astype(bool).astype(np.int32)
        self._step = (step + sparse.eye_array(step.shape[0], dtype=np.int32)).tocsr()
        self._near = self._step[:, candidates].tocsr()

    def of(self, rows):
        """int8 (n, n_candidates) of nodes."""
        kin = self._kin(self.lineage.families[rows][:, None], self._step[rows])
        kin[rows[:, None] == self.candidates] = -1
        return kin

    def of_leaf(self, parents):
        """int8 (1, n_candidates) of a new child of these nodes."""
        families = self.lineage.families[parents] if len(parents) else np.array([-1])
        links = np.zeros((1, self._step.shape[0]), np.int32)
        links[0, parents] = 1
        return self._kin(families, sparse.csr_array(links))

    def _kin(self, families, links):
        # From the widest circle to the narrowest, so that the closest one stays.
        family = self.lineage.families[self.candidates]
        kin = (families[..., None] == family).any(axis=-2).astype(np.int8)
        kin = np.broadcast_to(kin, (links.shape[0], kin.shape[-1])).copy()
        for kind, near in ((2, links @ self._near), (3, links[:, self.candidates])):
            cells = near.tocoo()
            kin[cells.row, cells.col] = kind
        return kin


class RevealedAnswers:
    """The revealed answers of some models, or an even sample of them if there are very many.

    Attributes
    ----------
    n_revealed : int (n,), how many are revealed
    cells : CSR (n, n_items) of the answers that weigh the candidates

    Parameters
    ----------
    revealed : uint8 (n, n_items), 255 where not revealed
    """

    def __init__(self, revealed):
        known = compress(revealed)
        self.n_revealed = np.diff(known.indptr)
        # Of very many answers an even sample, in the order of the items.
        count = np.repeat(self.n_revealed, self.n_revealed)
        place = np.arange(known.nnz) - np.repeat(known.indptr[:-1], self.n_revealed)
        wanted = np.minimum(count, CONFIG.most_revealed)
        kept = (place + 1) * wanted // count > place * wanted // count
        pointers = np.concatenate(
            [[0], np.cumsum(np.minimum(self.n_revealed, CONFIG.most_revealed))]
        )
        self.cells = sparse.csr_array(
            (known.data[kept], known.indices[kept], pointers), shape=known.shape
        )

    def blocks(self, size):
        """Slices of at most so many models."""
        return [slice(top, top + size) for top in range(0, len(self.n_revealed), size)]


def forecast_in_turn(before, left_out, revealed):
    r"""Forecasts of the revealed answers, as of one who learns from each of them in turn.

    What n answers say for a candidate depends on how well LRMF would have forecast them one after
    another: the first from lineage, the last from all others. With n0 answers worth as much as
    lineage, the j-th is forecast with a share 1 / (1 + j / n0) of the former, so that on average

        log P_i = a log P_i(before) + (1 - a) log P_i(given all others),  a = log(1 + n/n0) n0/n

    Parameters
    ----------
    before, left_out : float32 (n_cells,), expected answers without and with all other answers
    revealed : RevealedAnswers

    Returns
    -------
    float32 (n_cells,)
    """
    n = np.maximum(revealed.n_revealed, 1).astype(np.float32)
    share = np.log1p(n / CONFIG.lineage_answers) * CONFIG.lineage_answers / n
    share = np.repeat(share, np.diff(revealed.cells.indptr))
    is_right = revealed.cells.data == 1
    first, last = (np.clip(np.where(is_right, p, 1 - p), 1e-4, 1) for p in (before, left_out))
    # Geometric mean of the chances of the first and of the last answer.
    chance = first**share * last ** (1 - share)
    return np.where(is_right, chance, 1 - chance)


def _normalised(ratio, kin, shares, alone):
    """Weights of the candidates (n, n_candidates), the small ones dropped."""
    # log weight = log share - log number of such candidates + log likelihood ratio.
    number = [np.maximum((kin == kind).sum(axis=1), 1) for kind in range(len(RELATEDNESS))]
    log_prior = np.full((len(kin), NOISE.size, len(RELATEDNESS) + 1), -np.inf, np.float32)
    with np.errstate(divide="ignore"):
        log_prior[..., :-1] = np.log(shares / np.stack(number, axis=1)[..., None]).swapaxes(1, 2)
    # Nothing speaks for strangers without an answer in common: their share is that of LRMF alone.
    is_silent = (kin == 0) & (ratio == 0).all(axis=1)
    share = is_silent.sum(axis=1) / number[0]
    alone = alone + share * shares[:, 0].sum(axis=1)
    log_weight = ratio
    log_weight += np.take_along_axis(log_prior, kin[:, None].astype(np.intp), axis=2)
    np.copyto(log_weight, -np.inf, where=is_silent[:, None])
    # Normalised together with the weight of LRMF alone, in a stable way.
    top = np.maximum(log_weight.max(axis=(1, 2)), np.log(alone))
    log_weight -= top[:, None, None].astype(np.float32)
    weight = np.exp(log_weight, out=log_weight)
    total = weight.sum(axis=(1, 2)) + alone * np.exp(-top)
    weight = np.einsum("nev,e->nv", weight, 1 - NOISE) / total[:, None]
    # The small ones are dropped, their weight goes to those kept.
    if weight.shape[1] > CONFIG.n_kept:
        least = -np.partition(-weight, CONFIG.n_kept - 1, axis=1)[:, [CONFIG.n_kept - 1]]
        kept = np.where(weight >= least, weight, 0)
        weight = kept * (weight.sum(axis=1) / np.maximum(kept.sum(axis=1), 1e-30))[:, None]
    return sparse.csr_array(weight.astype(np.float32))


def _maximise(log_mean):
    """Mixture weights (relatedness, noise), and of LRMF alone, of highest likelihood (by EM)."""
    shift = np.maximum(log_mean.max(axis=(1, 2)), 0)
    likelihood, alone = np.exp(log_mean - shift[:, None, None]), np.exp(-shift)
    share, own = np.full(log_mean.shape[1:], 0.5 / log_mean[0].size), 0.5
    # E step: responsibilities. M step: their sums, with a prior count.
    for _ in range(CONFIG.n_rounds):
        joint = share * likelihood
        total = joint.sum(axis=(1, 2)) + own * alone
        share = (joint / total[:, None, None]).sum(axis=0) + CONFIG.prior_count
        own = (own * alone / total).sum() + 1.0
        size = share.sum() + own
        share, own = share / size, own / size
    return share, own


def _mean_by_relatedness(ratio, kin):
    """Log mean likelihood ratio of the candidates of each relatedness (n, relatedness, noise)."""
    parts = []
    for kind in range(len(RELATEDNESS)):
        member = (kin == kind)[:, None]
        number = member.sum(axis=2)
        # Log-sum-exp over the candidates.
        top = np.where(member, ratio, -np.inf).max(axis=2)
        top = np.where(number > 0, top, 0)
        total = np.where(member, np.exp(np.minimum(ratio - top[..., None], 0)), 0).sum(axis=2)
        with np.errstate(divide="ignore"):
            parts.append(np.where(number > 0, top + np.log(total / np.maximum(number, 1)), -np.inf))
    return np.stack(parts, axis=1)
