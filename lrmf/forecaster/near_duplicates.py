"""Few-shot memory: near-copies of training models, which a Gaussian prior cannot describe."""

from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.lineage import Lineage, is_isolated
from ..data.responses import has_responses
from ..data.statistics import compress
from ..solver import kernels

NOISE = np.array([0.02, 0.05, 0.1, 0.2, 0.35])  # shares of a copy's answers that were redrawn
SHOTS = (20, 50, 200, 1000)  # revealed answers for which shares are learned
KINSHIP = ("other", "family", "two steps", "one step")  # of a candidate to the model forecast
_MOST = 1024  # revealed answers that weigh the candidates of a model
_CANDIDATES = 10_000  # training models, drawn at random if there are more
_KEPT = 32  # candidates that a forecast averages
_CELLS = 4_000_000  # of a float32 working array
_ROUNDS = 30  # of expectation maximisation
_PRIOR = 0.1  # models that each share has been seen in beforehand
_LEAST = 20  # models that shares are learned from
_WORTH_OF_LINEAGE = 20  # answers that say as much of a model as its lineage does, about
_TYPICAL = 20  # the number of answers whose shares serve related models without any


class Memory:
    r"""Mixture over the training models that a model may have been copied from.

    Either its answers follow the forecast p_ui of LRMF, or they are those of a training model v,
    each redrawn from p_ui with probability e:

        P(z_ui = 1 | v, e) = (1 - e) z_vi + e p_ui      (p_ui where v has no answer)

    Given the revealed answers O the weight of (v, e) is

        w_ve  propto  share[kinship of v, e] / n_kin  prod_{i in O} P(z_ui | v, e)

    with n_kin the number of training models of that kinship to u, and p_ui in it what LRMF would
    have forecast as the answers came in (`forecast_in_turn`): it learns from them, too. The shares
    are learned by expectation maximisation from training models that are forecast as if few of
    their answers were known. Answers are not independent given v, so what the best shares are
    depends on how many are known: they are learned for each number in `SHOTS`, and for models with
    and without relatives.

    Parameters
    ----------
    responses : uint8 (n_models, n_items), 0/1/255
    lineage : Lineage
    """

    def __init__(self, responses, lineage: Lineage, *, seed=0):
        self.responses, self.lineage = responses, lineage
        self.evaluated = has_responses(responses)
        candidates = np.flatnonzero(self.evaluated)
        candidates = np.random.default_rng(seed).permutation(candidates)[:_CANDIDATES]
        self.candidates = np.sort(candidates)
        step = lineage.adjacency.astype(bool).astype(np.int32)
        step = (step + sparse.eye_array(step.shape[0], dtype=np.int32)).tocsr()
        two_steps = step @ step[:, self.candidates]
        self._near = step[:, self.candidates].tocsr(), two_steps.tocsr()
        self._shares = {}

    @cached_property
    def _by_item(self):
        """Answers of the candidates, uint8 (n_items, n_candidates)."""
        return np.ascontiguousarray(self.responses[self.candidates].T)

    @property
    def block(self) -> int:
        """Models that fit into one working array."""
        return max(1, _CELLS // (len(NOISE) * len(self.candidates)))

    def learn(self, shots, rows, expected, shown):
        """Learn the shares from training models.

        Parameters
        ----------
        shots : int
            One of `SHOTS`: so many answers are revealed.
        rows : int (n,)
        expected : float32 (n_cells,), forecasts of the answers (`forecast_in_turn`)
        shown : ShownAnswers of the rows
        """
        isolated = is_isolated(self.lineage, self.evaluated, rows)
        ratios = np.concatenate(
            [
                _mean_by_kinship(*self._evidence(rows[block], expected, shown, block))
                for block in shown.blocks(self.block)
            ]
        )
        for group in (False, True):
            if (isolated == group).sum() >= _LEAST:
                self._shares[shots, group] = _maximise(ratios[isolated == group])

    def table(self):
        """DataFrame of the shares: relatives, answers (known when learned), share by kinship.

        ``LRMF`` is the share of the forecast that copies nobody.
        """
        rows = [
            {"relatives": "no" if isolated else "yes", "answers": shots, "LRMF": alone}
            | dict(zip(KINSHIP, share.sum(axis=1), strict=True))
            for (shots, isolated), (share, alone) in self._shares.items()
        ]
        return pd.DataFrame(rows, columns=["relatives", "answers", "LRMF", *KINSHIP])

    def weights(self, rows, expected, shown):
        """Weights of the candidates given revealed answers.

        Parameters
        ----------
        rows, expected, shown : as in `learn`, of any models with any number of answers

        Returns
        -------
        CSR float32 (n, n_candidates) : (1 - e) w_ve summed over e, the largest of them in each row
        """
        parts = [sparse.csr_array((0, len(self.candidates)), dtype=np.float32)]
        for block in shown.blocks(self.block):
            ratio, kin = self._evidence(rows[block], expected, shown, block)
            shares, alone = self._shares_of(rows[block], shown.n_known[block])
            parts.append(_normalised(ratio, kin, shares, alone))
        return sparse.vstack(parts, format="csr")

    def _shares_of(self, rows, n_known):
        """Shares (n, kinship, noise) and of LRMF alone (n,) for so many revealed answers."""
        isolated = is_isolated(self.lineage, self.evaluated, rows)
        nearest = np.abs(np.log1p(n_known)[:, None] - np.log1p(SHOTS)).argmin(axis=1)
        shares, alone = np.zeros((len(rows), len(KINSHIP), NOISE.size)), np.ones(len(rows))
        for row, (shots, group) in enumerate(zip(nearest, isolated, strict=True)):
            if n_known[row] == 0:
                if group:
                    continue  # nothing at all speaks for any candidate
                shots = SHOTS.index(_TYPICAL)
            if found := self._shares.get((SHOTS[shots], bool(group))):
                shares[row], alone[row] = found
            if n_known[row] == 0:  # nothing speaks for a stranger
                alone[row] += shares[row, 0].sum()
                shares[row, 0] = 0
        return shares, alone

    def blend(self, weights, forecast, items=slice(None)):
        """Forecast of the mixture: the candidates' answers, and `forecast` for the rest.

        Parameters
        ----------
        weights : CSR (n, n_candidates), from `weights`
        forecast : float32 (n, n_columns), of LRMF given the revealed answers
        items : the columns
        """
        used, place = np.unique(weights.indices, return_inverse=True)
        if not used.size:
            return forecast
        answers = np.asarray(self.responses[self.candidates[used]])[:, items]
        mixed = np.empty_like(forecast)
        kernels.mix_answers(weights.indptr, place.ravel(), weights.data, answers, forecast, mixed)
        return mixed

    def _evidence(self, rows, expected, shown, block):
        """Log-likelihood ratios to LRMF alone (n, noise, n_candidates), and kinship."""
        cells = shown.cells[block]
        expected = expected[shown.cells.indptr[block.start] :][: cells.nnz]
        is_right = cells.data == 1
        chance = np.clip(np.where(is_right, expected, 1 - expected), 1e-4, 1)[:, None]
        same, other = np.log((1 - NOISE) / chance + NOISE), np.log(NOISE)
        if_right = np.where(is_right[:, None], same, other).astype(np.float32)
        if_wrong = np.where(is_right[:, None], other, same).astype(np.float32)
        ratio = np.empty((len(rows), NOISE.size, len(self.candidates)), np.float32)
        kernels.weigh_answers(cells.indptr, cells.indices, if_right, if_wrong, self._by_item, ratio)
        return ratio, self._kinship(rows)

    def _kinship(self, rows):
        """Index into `KINSHIP` of every candidate (n, n_candidates), -1 for the row itself."""
        family = self.lineage.families
        kin = (family[rows][:, None] == family[self.candidates]).astype(np.int8)
        for kind, near in ((2, self._near[1]), (3, self._near[0])):
            cells = near[rows].tocoo()
            kin[cells.row, cells.col] = kind
        kin[rows[:, None] == self.candidates] = -1
        return kin


class ShownAnswers:
    """The revealed answers of some models, or an even sample of them if there are very many.

    Attributes
    ----------
    n_known : int (n,), how many are revealed
    cells : CSR (n, n_items) of the answers that weigh the candidates

    Parameters
    ----------
    revealed : uint8 (n, n_items), 255 where not revealed
    """

    def __init__(self, revealed):
        known = compress(revealed)
        self.n_known = np.diff(known.indptr)
        count = np.repeat(self.n_known, self.n_known)
        place = np.arange(known.nnz) - np.repeat(known.indptr[:-1], self.n_known)
        wanted = np.minimum(count, _MOST)
        kept = (place + 1) * wanted // count > place * wanted // count
        pointers = np.concatenate([[0], np.cumsum(np.minimum(self.n_known, _MOST))])
        self.cells = sparse.csr_array(
            (known.data[kept], known.indices[kept], pointers), shape=known.shape
        )

    def blocks(self, size):
        """Slices of at most so many models."""
        return [slice(top, top + size) for top in range(0, len(self.n_known), size)]


def forecast_in_turn(before, left_out, shown):
    r"""Forecasts of the revealed answers, as of one who learns from each of them in turn.

    What n answers say for a candidate depends on how well LRMF would have forecast them one after
    another: the first from lineage, the last from all others. With n0 answers worth as much as
    lineage, the j-th is forecast with a share 1 / (1 + j / n0) of the former, so that on average

        log P_i = a log P_i(before) + (1 - a) log P_i(given all others),  a = log(1 + n/n0) n0/n

    Parameters
    ----------
    before, left_out : float32 (n_cells,), expected answers without and with all other answers
    shown : ShownAnswers

    Returns
    -------
    float32 (n_cells,)
    """
    n = np.maximum(shown.n_known, 1).astype(np.float32)
    share = np.log1p(n / _WORTH_OF_LINEAGE) * _WORTH_OF_LINEAGE / n
    share = np.repeat(share, np.diff(shown.cells.indptr))
    is_right = shown.cells.data == 1
    first, last = (np.clip(np.where(is_right, p, 1 - p), 1e-4, 1) for p in (before, left_out))
    chance = first**share * last ** (1 - share)
    return np.where(is_right, chance, 1 - chance)


def _normalised(ratio, kin, shares, alone):
    """Weights of the candidates (n, n_candidates), the small ones dropped."""
    log_weight = np.full(ratio.shape, -np.inf, np.float32)
    with np.errstate(divide="ignore"):
        log_share = np.log(shares)
    for kind in range(len(KINSHIP)):
        member = kin == kind
        log_prior = log_share[:, kind] - np.log(np.maximum(member.sum(axis=1), 1))[:, None]
        log_weight = np.where(member[:, None], ratio + log_prior[..., None], log_weight)
    top = np.maximum(log_weight.max(axis=(1, 2)), np.log(alone))
    weight = np.exp(log_weight - top[:, None, None])
    total = weight.sum(axis=(1, 2)) + alone * np.exp(-top)
    weight = np.einsum("nev,e->nv", weight, 1 - NOISE) / total[:, None]
    if weight.shape[1] > _KEPT:
        least = -np.partition(-weight, _KEPT - 1, axis=1)[:, [_KEPT - 1]]
        kept = np.where(weight >= least, weight, 0)
        weight = kept * (weight.sum(axis=1) / np.maximum(kept.sum(axis=1), 1e-30))[:, None]
    return sparse.csr_array(weight.astype(np.float32))


def _maximise(log_mean):
    """Shares (kinship, noise) and of LRMF alone that make the models (n, kinship, noise) likely."""
    shift = np.maximum(log_mean.max(axis=(1, 2)), 0)
    likelihood, alone = np.exp(log_mean - shift[:, None, None]), np.exp(-shift)
    share, own = np.full(log_mean.shape[1:], 0.5 / log_mean[0].size), 0.5
    for _ in range(_ROUNDS):
        joint = share * likelihood
        total = joint.sum(axis=(1, 2)) + own * alone
        share = (joint / total[:, None, None]).sum(axis=0) + _PRIOR
        own = (own * alone / total).sum() + 1.0
        size = share.sum() + own
        share, own = share / size, own / size
    return share, own


def _mean_by_kinship(ratio, kin):
    """Log of the mean likelihood ratio over the candidates of each kinship (n, kinship, noise)."""
    parts = []
    for kind in range(len(KINSHIP)):
        member = (kin == kind)[:, None]
        number = member.sum(axis=2)
        top = np.where(member, ratio, -np.inf).max(axis=2)
        top = np.where(number > 0, top, 0)
        total = np.where(member, np.exp(np.minimum(ratio - top[..., None], 0)), 0).sum(axis=2)
        with np.errstate(divide="ignore"):
            parts.append(np.where(number > 0, top + np.log(total / np.maximum(number, 1)), -np.inf))
    return np.stack(parts, axis=1)
