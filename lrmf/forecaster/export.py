"""Forecasts of a whole snapshot as files, and notes on models without evidence and odd parents."""

from collections.abc import Iterator
from difflib import get_close_matches

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..data.lineage import Lineage

_BLOCK = 256  # models forecast between two steps of the progress bar
_SUSPECTS = 20  # parents whose spelling is looked at


def forecast_snapshot(model, snapshot, matrix_file=None) -> pd.DataFrame:
    """Forecast every model on every benchmark, block by block.

    Returns the rows of ``Forecaster.predict_scores`` with ids. The binary file, if any, takes the
    expected responses of all models on all items, a float32 .npy matrix.
    """
    if matrix_file:
        # Rows are appended, since a memory map turns a full disk into a bus error.
        header = {"descr": "<f4", "fortran_order": False, "shape": snapshot.responses.shape}
        np.lib.format.write_array_header_1_0(matrix_file, header)
    blocks = []
    starts = range(0, snapshot.n_models, _BLOCK)
    for start in tqdm(starts, desc="forecasting", unit="block", disable=None, leave=False):
        rows = np.arange(start, min(start + _BLOCK, snapshot.n_models))
        blocks.append(model.predict_scores(rows))
        if matrix_file:
            matrix_file.write(np.ascontiguousarray(model.predict_proba(rows), "<f4").data)
    scores = pd.concat(blocks, ignore_index=True)
    model_ids = snapshot.models["model_id"].to_numpy()
    scores.insert(0, "model_id", model_ids[scores.pop("row")])
    return scores


def forecast_notes(scores: pd.DataFrame, lineage: Lineage, fitted) -> Iterator[str]:
    """Yield a sentence on whatever those who read the forecasts of a snapshot should know."""
    if not lineage.n_edges:
        yield "the snapshot has no lineage, so models are forecast without their relatives"
    yield from fitted.notes_
    n_observed = scores.groupby("model_id", sort=False)["n_observed"].sum()

    # Models that neither have answers nor are connected to a model that has.
    evaluated = np.zeros(lineage.n_nodes, dtype=bool)
    evaluated[: lineage.n_models] = n_observed > 0
    isolated = n_observed.index[lineage.hops_to(evaluated)[: lineage.n_models] < 0]
    if len(isolated):
        basis = "their cards and names" if fitted.reads_cards else "their names"
        names = ", ".join(isolated[:3]) + (", ..." if len(isolated) > 3 else "")
        yield (
            f"{len(isolated)} of {lineage.n_models} models have neither answers nor an evaluated "
            f"relative and are forecast from {basis}: {names}"
        )

    # Parents of models without answers, named by one edge only and almost like a known model.
    known = list(n_observed.index)
    edges = lineage.edges[["parent", "child"]]
    mentions = edges.stack().value_counts()
    is_suspect = edges["child"].map(n_observed).eq(0) & ~edges["parent"].isin(known)
    is_suspect &= edges["parent"].map(mentions).eq(1)
    for parent, child in edges[is_suspect].head(_SUSPECTS).itertuples(index=False):
        for close in get_close_matches(parent, known, n=1, cutoff=0.9):
            yield f"the parent {parent} of {child} is not known; did you mean {close}?"
