"""A fit on disk: the arrays of `Forecaster.to_arrays` as .npz, without pickle."""

import os
from itertools import zip_longest
from typing import BinaryIO

import numpy as np
import pandas as pd

from .forecaster import Forecaster


class SavedFitError(ValueError):
    """A file that holds no fit, or one of other items; the message names it and the way out."""


def save_fit(file: BinaryIO, model: Forecaster) -> None:
    """Write a fit to an open binary file; equal fits give equal bytes."""
    np.savez(file, **model.to_arrays())


def load_fit(path: str | os.PathLike, items: pd.DataFrame) -> Forecaster:
    """Read a fit for a snapshot with these items; `Forecaster.adapt` solves for its models.

    Parameters
    ----------
    path : path of a file from `save_fit`
    items : DataFrame, n_items rows
        Must be the items of the fit, in the same order.

    Raises
    ------
    SavedFitError
        Whatever the file holds: nothing in it is executed or trusted.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            model = _checked(dict(archive))
    # Foreign and damaged files make the parsers raise nearly anything, from EOFError to TypeError.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            problem = f"cannot be read ({error.strerror}); check the path"
        else:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            if "pickle" in reason:  # NumPy goes on to advise loading it all the same
                reason = "it is no archive of plain arrays"
            problem = f"is damaged, or not from `lrmf fit` ({reason}); fit it anew"
        raise SavedFitError(f"{path}: {problem}") from error
    for column in ("item_id", "benchmark", "n_trials"):
        pairs = zip_longest(model.model_.items_[column], items[column])
        for number, (fitted, here) in enumerate(pairs):
            if fitted != here:
                raise SavedFitError(
                    f"{path}: was fitted on other items: {column} of item {number} is {fitted!r} "
                    f"there and {here!r} in the snapshot; fit on a snapshot with the same items"
                )
    return model


def _checked(arrays: dict) -> Forecaster:
    forecaster = Forecaster.from_arrays(arrays)
    model = forecaster.model_
    lengths = {len(array) for array in arrays.values() if array.ndim}
    numbers = [array for array in arrays.values() if array.dtype.kind in "iuf"]
    texts = [array for array in arrays.values() if array.dtype.kind == "U"]
    if len(numbers) + len(texts) < len(arrays) or not all(np.isfinite(a).all() for a in numbers):
        raise ValueError("it holds values that are not finite numbers or texts")
    if lengths != {len(model.items_)} or arrays["loadings"].ndim != 2:
        raise ValueError("its arrays are not of one length")
    return forecaster
