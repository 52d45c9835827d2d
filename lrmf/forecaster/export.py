"""Forecasts of a whole snapshot as files, and notes on models without evidence or parents."""

from collections.abc import Iterator
from difflib import get_close_matches

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..data.lineage import Lineage

_BLOCK = 1024  # models at once, of which `predict` forecasts parts in threads
_N_SPELLINGS = 20  # unknown parents at most whose spelling is checked


def forecast_snapshot(model, snapshot, matrix_file=None) -> pd.DataFrame:
    """Forecast every model on every benchmark, block by block.

    Parameters
    ----------
    model : Forecaster
    snapshot : Snapshot
    matrix_file : binary file, optional
        The expected responses, float32 (n_models, n_items), are written to it as .npy.

    Returns
    -------
    DataFrame : model_id and the columns of `Forecast.scores` except row
    """
    if matrix_file:
        # Rows are appended: with a memory map, a full disk would end the process by a bus error.
        header = {"descr": "<f4", "fortran_order": False, "shape": snapshot.responses.shape}
        np.lib.format.write_array_header_1_0(matrix_file, header)
    blocks = []
    starts = range(0, snapshot.n_models, _BLOCK)
    for start in tqdm(starts, desc="forecasting", unit="block", disable=None, leave=False):
        rows = np.arange(start, min(start + _BLOCK, snapshot.n_models))
        forecast = model.predict(rows)
        if matrix_file:
            matrix_file.write(np.ascontiguousarray(forecast.items, "<f4").data)
        blocks.append(forecast.scores)
    scores = pd.concat(blocks, ignore_index=True)
    model_ids = snapshot.models["model_id"].to_numpy()
    scores.insert(0, "model_id", model_ids[scores.pop("row")])
    return scores


def forecast_notes(scores: pd.DataFrame, lineage: Lineage, fitted) -> Iterator[str]:
    """Yield a sentence on each limitation of the forecasts of a snapshot.

    Parameters
    ----------
    scores : DataFrame from `forecast_snapshot`
    lineage : Lineage of the snapshot
    fitted : Forecaster
    """
    if not lineage.n_edges:
        yield "the snapshot has no lineage, so models are forecast without their relatives"
    yield from fitted.notes_
    n_observed = scores.groupby("model_id", sort=False)["n_observed"].sum()

    # Models without answers, and without a path of edges to a model that has answers.
    evaluated = np.zeros(lineage.n_nodes, dtype=bool)
    evaluated[: lineage.n_models] = n_observed > 0
    unrelated = n_observed.index[lineage.hops_to(evaluated)[: lineage.n_models] < 0]
    if len(unrelated):
        basis = "their cards and names" if fitted.reads_cards else "their names"
        names = ", ".join(unrelated[:3]) + (", ..." if len(unrelated) > 3 else "")
        yield (
            f"{len(unrelated)} of {lineage.n_models} models have neither answers nor an evaluated "
            f"relative and are forecast from {basis}: {names}"
        )

    # Parents that are not models, occur in one edge, and are spelled almost like a model.
    known = list(n_observed.index)
    edges = lineage.edges[["parent", "child"]]
    mentions = edges.stack().value_counts()
    is_suspect = edges["child"].map(n_observed).eq(0) & ~edges["parent"].isin(known)
    is_suspect &= edges["parent"].map(mentions).eq(1)
    for parent, child in edges[is_suspect].head(_N_SPELLINGS).itertuples(index=False):
        for close in get_close_matches(parent, known, n=1, cutoff=0.9):
            yield f"the parent {parent} of {child} is not known; did you mean {close}?"
