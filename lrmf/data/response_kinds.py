"""The kinds of responses, answers and proportions: how each is stored, revealed and scored."""

from dataclasses import dataclass

import numpy as np

LOG_LOSS_CLIP = 1e-6  # probabilities closer to 0 than this count as this


@dataclass(frozen=True)
class ResponseKind:
    """What differs between answers (0 or 1) and proportions (0 to 1), in one place.

    Attributes
    ----------
    name : str
        "answers" or "proportions".
    type_code : str
        How the NumPy type begins: "u1" is uint8, "f" any floating point.
    missing : int or float
        How a missing response is stored.
    legal : str
        The legal values, as an error states them.
    n_revealed : tuple of int
        Numbers of revealed responses of few-shot evaluation.
    n_revealed_tuning : tuple of int
        Numbers of revealed responses by which inner splits choose the hyperparameters of baselines.
    n_revealed_calibration : tuple of int
        Numbers of revealed responses at which the Forecaster calibrates its intervals.
    """

    name: str
    type_code: str
    missing: float
    legal: str
    n_revealed: tuple
    n_revealed_tuning: tuple
    n_revealed_calibration: tuple

    def losses(self, error):
        """Loss of each cell from |forecast - response|: log-loss of answers, squared error."""
        if self is ANSWERS:
            return -np.log(np.maximum(1 - np.abs(error), LOG_LOSS_CLIP))
        return error**2

    def is_legal(self, value):
        """Whether a number is a response of this kind."""
        return value in (0, 1) if self is ANSWERS else 0 <= value <= 1


ANSWERS = ResponseKind(
    name="answers",
    type_code="u1",
    missing=255,
    legal="0 or 1",
    n_revealed=(1, 3, 5, 10, 20, 50),
    n_revealed_tuning=(0, 5, 50),
    n_revealed_calibration=(5, 20, 50, 200, 1000),
)
PROPORTIONS = ResponseKind(
    name="proportions",
    type_code="f",
    missing=np.nan,
    legal="within [0, 1]",
    n_revealed=(1, 2, 4),
    n_revealed_tuning=(0, 1, 2),
    n_revealed_calibration=(1, 2, 4),
)


def kind_of(responses) -> ResponseKind:
    """The kind of a response matrix, by its type: uint8 holds answers, floats proportions."""
    if isinstance(responses, np.ma.MaskedArray):  # most of NumPy would drop the mask
        raise ValueError("responses is a masked array; pass `lrmf.data.responses.unmasked` of it")
    return ANSWERS if np.dtype(getattr(responses, "dtype", responses)) == np.uint8 else PROPORTIONS


def to_arcsine(proportion):
    """Transform to y = 2 asin sqrt(proportion), whose sampling variance 1 / n does not depend on y.

    Source: Anscombe (1948), "The transformation of Poisson, binomial and negative-binomial data".
    """
    return 2 * np.arcsin(np.sqrt(np.clip(proportion, 0, 1)))


def from_arcsine(y):
    """The proportion sin^2(y / 2) for which y = 2 asin sqrt(proportion)."""
    return np.sin(np.clip(y, 0, np.pi) / 2) ** 2
