"""Items of the simulated Hub: the real benchmarks and subtasks, with invented response curves.

Item i of benchmark b is answered correctly by model u if

    h_b + difficulty_i + slope_i y_ub + x_i . m_u + sd_b g_ui > 0

for skills y, minor factors m and a standard normal g (see `lrmf.simulation.simulate`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from .targets import BENCHMARKS, SCORE_SD

_BBH_OF_250 = """
    boolean_expressions date_understanding disambiguation_qa formal_fallacies geometric_shapes
    hyperbaton logical_deduction_three_objects logical_deduction_five_objects
    logical_deduction_seven_objects movie_recommendation navigate object_counting
    reasoning_about_colored_objects ruin_names salient_translation_error_detection
    sports_understanding temporal_sequences tracking_shuffled_objects_three_objects
    tracking_shuffled_objects_five_objects tracking_shuffled_objects_seven_objects web_of_lies
""".split()
SUBTASK_ITEMS = {
    "ifeval": {"ifeval": 541},
    "bbh": {
        **dict.fromkeys(_BBH_OF_250, 250),
        **{"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178},
    },
    "math": {
        **{"algebra": 307, "counting_and_prob": 123, "geometry": 132},
        **{"intermediate_algebra": 280, "num_theory": 154, "prealgebra": 193, "precalculus": 135},
    },
    "gpqa": {"diamond": 198, "extended": 546, "main": 448},
    "musr": {"murder_mysteries": 250, "object_placements": 256, "team_allocation": 250},
    "mmlu_pro": {
        **{"biology": 717, "business": 789, "chemistry": 1132, "computer_science": 410},
        **{"economics": 844, "engineering": 969, "health": 818, "history": 381, "law": 1101},
        **{"math": 1351, "other": 924, "philosophy": 499, "physics": 1299, "psychology": 798},
    },
}

# Over benchmarks: ifeval, bbh, math, gpqa, musr, mmlu_pro.
SCORE_MEAN = np.array([0.46, 0.49, 0.12, 0.297, 0.41, 0.33])
ITEM_MEAN_SPREAD = np.array([0.70, 0.71, 0.70, 0.70, 0.69, 0.71])
N_MINOR = 8
MINOR_SHARE, MINOR_DECAY, MINOR_SUBTASK_SHARE = 0.43, 0.65, 0.4
SLOPE_SPREAD, SLOPE_NOISE = 0.4, 0.2


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
        return Curves(
            self.benchmark[part],
            self.intercept[part],
            self.loadings[:, part],
            self.noise_sd[part].astype(np.float32),
        )


def draw_curves(items: pd.DataFrame, skills: np.ndarray, rng: np.random.Generator) -> Curves:
    """Items whose latent variance, apart from the mean effect of the skill, is one.

    A share sin(pi spread^2 / 2) of it is difficulty, which spreads the items' means as wanted
    (exact for a mean of one half); the rest is uneven slopes, minor factors and inherited noise.

    Parameters
    ----------
    items : DataFrame, n_items rows
    skills : ndarray of shape (n_models, 6), of the scored models
    """
    n_items, n_skills = len(items), len(BENCHMARKS)
    benchmark = pd.Categorical(items["benchmark"], categories=BENCHMARKS).codes
    height, slope = _solve_scores(skills)
    difficulty_share = np.sin(np.pi / 2 * ITEM_MEAN_SPREAD**2)
    minor_share = MINOR_SHARE * (1 - difficulty_share)
    slope_share = (SLOPE_SPREAD * slope) ** 2 + SLOPE_NOISE**2
    noise_share = 1 - difficulty_share - minor_share - slope_share
    draws = _centred(rng.standard_normal((n_items, 2)), benchmark)
    difficulty = np.sqrt(difficulty_share)[benchmark] * draws[:, 0]
    loadings = np.zeros((n_skills + N_MINOR, n_items))
    unevenness = np.sqrt(slope_share)[benchmark] * draws[:, 1]
    loadings[benchmark, np.arange(n_items)] = slope[benchmark] + unevenness
    decay = MINOR_DECAY ** np.arange(N_MINOR)
    scale = np.sqrt(np.outer(minor_share[benchmark], decay / decay.sum()))
    loadings[n_skills:] = (_centred(_draw_minor_loadings(items, rng), benchmark) * scale).T
    return Curves(
        benchmark=benchmark,
        intercept=height[benchmark] + difficulty,
        loadings=loadings,
        noise_sd=np.sqrt(noise_share)[benchmark],
    )


def _solve_scores(skills: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve ``mean, sd of ndtr(h_b + k_b y_ub) = SCORE_MEAN, SCORE_SD`` by fixed-point steps."""
    height = ndtri(SCORE_MEAN)
    slope = SCORE_SD / (np.exp(-(height**2) / 2) / np.sqrt(2 * np.pi))
    for _ in range(50):
        expected = ndtr(height + slope * skills)
        height = height + ndtri(SCORE_MEAN) - ndtri(expected.mean(axis=0))
        slope = slope * SCORE_SD / expected.std(axis=0)
    return height, slope


def _draw_minor_loadings(items: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Draw x_i of unit variance, partly common to a subtask."""
    subtask = pd.factorize(items["benchmark"] + "/" + items["subtask"])[0]
    own = rng.standard_normal((len(items), N_MINOR))
    common = rng.standard_normal((subtask.max() + 1, N_MINOR))[subtask]
    return np.sqrt(1 - MINOR_SUBTASK_SHARE) * own + np.sqrt(MINOR_SUBTASK_SHARE) * common


def _centred(draws: np.ndarray, benchmark: np.ndarray) -> np.ndarray:
    """Without the mean over each benchmark's items, so that its score depends on its skill only."""
    return draws - pd.DataFrame(draws).groupby(benchmark).transform("mean").to_numpy()
