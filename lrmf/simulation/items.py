"""Items of the simulated Hub: the real benchmarks and subtasks, with invented response curves.

Item i of benchmark b is answered correctly by model u if

    h_b + difficulty_i + slope_i y_ub + x_i . m_u + sd_b g_ui > 0

for skills y, minor factors m and a standard normal g (see `lrmf.simulation.simulate`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from .targets import BENCHMARKS, SCORE_SD

# Numbers of items of the Open LLM Leaderboard, version 2, by benchmark and subtask.
_SUBTASKS = pd.read_csv(Path(__file__).with_name("subtasks.csv"), index_col="subtask")
SUBTASK_ITEMS = {
    benchmark: items.to_dict()
    for benchmark, items in _SUBTASKS.groupby("benchmark", sort=False)["n_items"]
}


@dataclass(frozen=True)
class ItemConfig:
    """How items differ; tuples are over the benchmarks, in the order of `BENCHMARKS`.

    The mean scores are measured, the standard deviations of the items' means fitted to them; the
    other values were found by repeated simulation (see `lrmf.simulation.simulate`).
    """

    score_mean: tuple = (0.46, 0.49, 0.12, 0.297, 0.41, 0.33)
    item_mean_std: tuple = (0.70, 0.71, 0.70, 0.70, 0.69, 0.71)  # over the largest possible
    n_minor: int = 8  # minor factors
    minor_share: float = 0.43  # of the variance that is not difficulty
    minor_decay: float = 0.65  # of the variance from one minor factor to the next
    minor_subtask_share: float = 0.4  # of a minor loading's variance, common to a subtask
    slope_std: float = 0.4  # over the mean slope
    slope_noise: float = 0.2


def make_items(n_items: int) -> pd.DataFrame:
    """Divide the items among benchmarks and subtasks as in reality; no benchmark goes without."""
    real = [np.array(list(SUBTASK_ITEMS[name].values())) for name in BENCHMARKS]
    count = _divide(n_items, np.array([own.sum() for own in real]))
    while count.min() == 0:
        count[count.argmax()] -= 1
        count[count.argmin()] += 1
    rows = [
        (f"{benchmark}/{subtask}/{number}", benchmark, subtask, 1)
        for benchmark, own, n_own in zip(BENCHMARKS, real, count, strict=True)
        for subtask, n in zip(SUBTASK_ITEMS[benchmark], _divide(n_own, own), strict=True)
        for number in range(n)
    ]
    return pd.DataFrame(rows, columns=["item_id", "benchmark", "subtask", "n_trials"])


def _divide(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to ``total``, in proportion to the weights, by largest remainders."""
    exact = total * weights / weights.sum()
    count = np.floor(exact).astype(int)
    count[np.argsort(count - exact, kind="stable")[: total - count.sum()]] += 1
    return count


@dataclass(frozen=True)
class Curves:
    """Items as seen by the answers: intercept, loadings (6 skills, minor factors), noise."""

    benchmark: np.ndarray
    intercept: np.ndarray
    loadings: np.ndarray
    noise_sd: np.ndarray

    def columns(self, part: slice) -> "Curves":
        """Return the curves of some items."""
        noise_sd = self.noise_sd[part].astype(np.float32)
        return Curves(self.benchmark[part], self.intercept[part], self.loadings[:, part], noise_sd)


def draw_curves(
    items: pd.DataFrame,
    skills: np.ndarray,
    rng: np.random.Generator,
    config: ItemConfig = ItemConfig(),
) -> Curves:
    """Items whose latent variance, apart from the mean effect of the skill, is one.

    A share sin(pi std^2 / 2) of it is difficulty, which gives the items' means the wanted standard
    deviation (exact for a mean of one half); the rest is uneven slopes, minor factors and inherited
    noise.

    Parameters
    ----------
    items : DataFrame, n_items rows
    skills : ndarray of shape (n_models, 6), of the scored models
    """
    n_items, n_skills = len(items), len(BENCHMARKS)
    benchmark = pd.Categorical(items["benchmark"], categories=BENCHMARKS).codes
    height, slope = _solve_scores(skills, np.array(config.score_mean))
    difficulty_share = np.sin(np.pi / 2 * np.array(config.item_mean_std) ** 2)
    minor_share = config.minor_share * (1 - difficulty_share)
    slope_share = (config.slope_std * slope) ** 2 + config.slope_noise**2
    noise_share = 1 - difficulty_share - minor_share - slope_share
    draws = _centred(rng.standard_normal((n_items, 2)), benchmark)
    difficulty = np.sqrt(difficulty_share)[benchmark] * draws[:, 0]
    loadings = np.zeros((n_skills + config.n_minor, n_items))
    unevenness = np.sqrt(slope_share)[benchmark] * draws[:, 1]
    loadings[benchmark, np.arange(n_items)] = slope[benchmark] + unevenness
    decay = config.minor_decay ** np.arange(config.n_minor)
    scale = np.sqrt(np.outer(minor_share[benchmark], decay / decay.sum()))
    minor = _draw_minor_loadings(items, rng, config)
    loadings[n_skills:] = (_centred(minor, benchmark) * scale).T
    return Curves(
        benchmark=benchmark,
        intercept=height[benchmark] + difficulty,
        loadings=loadings,
        noise_sd=np.sqrt(noise_share)[benchmark],
    )


def _solve_scores(skills: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve ``mean, sd of ndtr(h_b + k_b y_ub) = mean, SCORE_SD`` by fixed-point steps."""
    height = ndtri(mean)
    slope = SCORE_SD / (np.exp(-(height**2) / 2) / np.sqrt(2 * np.pi))
    for _ in range(50):
        expected = ndtr(height + slope * skills)
        height = height + ndtri(mean) - ndtri(expected.mean(axis=0))
        slope = slope * SCORE_SD / expected.std(axis=0)
    return height, slope


def _draw_minor_loadings(
    items: pd.DataFrame, rng: np.random.Generator, config: ItemConfig
) -> np.ndarray:
    """Draw x_i of unit variance, partly common to a subtask."""
    subtask = pd.factorize(items["benchmark"] + "/" + items["subtask"])[0]
    own = rng.standard_normal((len(items), config.n_minor))
    common = rng.standard_normal((subtask.max() + 1, config.n_minor))[subtask]
    share = config.minor_subtask_share
    return np.sqrt(1 - share) * own + np.sqrt(share) * common


def _centred(draws: np.ndarray, benchmark: np.ndarray) -> np.ndarray:
    """Without the mean over each benchmark's items, so that its score depends on its skill only."""
    return draws - pd.DataFrame(draws).groupby(benchmark).transform("mean").to_numpy()
