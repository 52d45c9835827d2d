"""Saving and loading a fit: arrays in an .npz file with a checksum, without pickle."""

import hashlib
import json
import os
from itertools import zip_longest
from typing import BinaryIO

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.descriptions import CARD_COLUMNS, SPLITS, Describer, names_of
from ..data.features import levels
from ..data.lineage import EDGE_COLUMNS, Lineage
from ..data.terms import Terms
from ..solver.calibration import IntervalCalibration
from ..solver.factorization import LRMF
from ..solver.gaussians import Gaussians, pack, unpack
from .covariance import Covariance
from .drift import TemporalDrift
from .near_duplicates import NearDuplicates
from .state_prior import StatePrior

VERSION = 5
_HEADER = "header"


class SavedFitError(ValueError):
    """A file is not a readable fit, or is a fit of other items; the message names the remedy."""


def save_fit(file: BinaryIO, fitted) -> None:
    """Write a fitted `Forecaster` to an open binary file; equal fits give equal bytes.

    Parameters
    ----------
    file : binary file, open for writing
    fitted : Forecaster
    """
    # The order of the arrays is part of the bytes of the file.
    arrays, header = {}, {"version": VERSION, "parameters": fitted.get_params()}
    for part in (_models_of, _prior_of, _stages_of):
        part_arrays, part_header = part(fitted)
        arrays |= part_arrays
        header |= part_header
    header["sha256"] = _checksum(arrays)
    np.savez(file, **arrays, **{_HEADER: np.array(json.dumps(header, sort_keys=True))})


def _models_of(fitted):
    """Arrays and header of the models: ids, cards, lineage, responses, scores and evidence."""
    # Ids and cards; sizes are numbers, other columns are names of levels.
    describer = fitted.prior_.describer
    arrays = {"model_id": np.array(describer.ids, str)}
    columns = [name for name in CARD_COLUMNS if name in describer.table]
    for name in columns:
        column = describer.table[name]
        is_number = name == "params_b"
        arrays[f"card_{name}"] = (
            pd.to_numeric(column, errors="coerce").to_numpy(float) if is_number
            else levels(column).to_numpy(str)
        )  # fmt: skip
    # Lineage, responses, scores, and the evidence of the responses about the states.
    for name in EDGE_COLUMNS:
        arrays[f"edge_{name}"] = fitted.trained_edges_[name].to_numpy(str)
    arrays["responses"] = np.asarray(fitted.trained_responses_)
    arrays["scores"] = fitted.trained_scores_
    arrays["evidence_precision"] = pack(fitted.evidence_.precision)
    arrays["evidence_information"] = fitted.evidence_.information
    return arrays, {"n_evaluated": describer.n_evaluated, "card_columns": columns}


def _prior_of(fitted):
    """Arrays and header of the items and of the state prior with its Gaussian process."""
    prior = fitted.prior_
    arrays = {f"items_{name}": array for name, array in fitted.model_.to_arrays().items()}
    arrays |= {f"prior_{name}": getattr(prior, name) for name in prior.array_names}
    header = {"covariance": prior.covariance_.parameters, "reach": prior.reach}
    # Outputs of the process, and P = (K + N)^-1 and P y of each group of outputs.
    process = prior.process_
    arrays |= {"process_noise": process.noise, "process_outputs": process.outputs}
    header["n_groups"] = len(process.groups)
    for number, group in enumerate(process.groups):
        if group.precision is not None:
            arrays[f"group_{number}"] = pack(group.precision[None])[0]
            arrays[f"solved_{number}"] = group.solved
    # N-grams and words of the names: vocabulary, weights, and the rows of the models (CSR).
    for name, terms in prior.describer.terms.items():
        rows = getattr(prior.describer.nodes, name)
        arrays |= {
            f"{name}_vocabulary": terms.vocabulary, f"{name}_weights": terms.weights,
            f"{name}_data": rows.data, f"{name}_indices": rows.indices,
            f"{name}_indptr": rows.indptr,
        }  # fmt: skip
    return arrays, header


def _stages_of(fitted):
    """Arrays and header of near-duplicates, interval calibration and temporal drift."""
    # Mixture weights of near-duplicates, with the base weight last.
    arrays, header = {}, {}
    if fitted.near_duplicates_ is not None:
        header["copies"] = []
        for (level, lacks_relatives), weights in fitted.near_duplicates_.mixture_weights.items():
            arrays[f"copies_{len(header['copies'])}"] = np.append(weights[0].ravel(), weights[1])
            header["copies"].append([level, lacks_relatives, list(weights[0].shape)])
    # Interval calibration and temporal drift.
    for name in ("n_revealed", "unexplained", "scale"):
        arrays[f"calibration_{name}"] = getattr(fitted.calibration_, name)
    drift = fitted.drift_
    header["drift"] = [drift.column, drift.later_than]
    arrays |= {"drift_shift": drift.shift, "drift_widening": drift.widening}
    return arrays, header


def load_fit(path: str | os.PathLike, forecaster_class):
    """Load the fitted `Forecaster` of a file from `save_fit`; its rows are the models of the fit.

    Parameters
    ----------
    path : path
    forecaster_class : type, `Forecaster`

    Raises
    ------
    SavedFitError
        If the file cannot be read, is damaged, or is of another version. Nothing in it is executed.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        header = _checked_header(arrays)
    except MemoryError:
        raise
    # The parsers raise many kinds of errors for damaged files, from EOFError to TypeError.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            problem = f"cannot be read ({error.strerror}); check the path"
        else:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            if "pickle" in reason:  # NumPy's message advises to allow pickle
                reason = "it is no archive of plain arrays"
            problem = f"is damaged, or not from this version's `lrmf fit` ({reason}); fit it anew"
        raise SavedFitError(f"{path}: {problem}") from error
    # The file is as `save_fit` wrote it: what fails from here on is not its fault.
    return _restored(arrays, header, forecaster_class)


def check_items(path: str | os.PathLike, fitted, items: pd.DataFrame) -> None:
    """Raise a SavedFitError that names the first item in which a fit and a snapshot differ.

    Parameters
    ----------
    path : path of the fit, for the message
    fitted : Forecaster
    items : DataFrame, the items table of the snapshot
    """
    for column in ("item_id", "benchmark", "n_trials"):
        pairs = zip_longest(fitted.items_[column], items[column])
        for number, (there, here) in enumerate(pairs):
            if there != here:
                raise SavedFitError(
                    f"{path}: was fitted on other items: {column} of item {number} is {there!r} "
                    f"there and {here!r} in the snapshot; fit on a snapshot with the same items"
                )


def _checked_header(arrays):
    """The header, taken out of the arrays; a ValueError unless version and checksum are right."""
    header = json.loads(str(arrays.pop(_HEADER)))
    if header["version"] != VERSION:
        raise ValueError(f"it has version {header['version']}, this program reads {VERSION}")
    if header["sha256"] != _checksum(arrays):
        raise ValueError("its checksum does not match")
    return header


def _restored(arrays, header, forecaster_class):
    """The fitted `Forecaster` from arrays and header of `save_fit`."""
    fitted = forecaster_class(**header["parameters"])
    fitted._set_items(LRMF.from_arrays(_part(arrays, "items_")))
    # Ids, lineage and cards of the models, and their descriptions from these.
    ids, n_trained = arrays["model_id"].astype(object), header["n_evaluated"]
    edges = pd.DataFrame({name: arrays[f"edge_{name}"].astype(object) for name in EDGE_COLUMNS})
    table = pd.DataFrame({"model_id": ids})
    for name in header["card_columns"]:
        table[name] = arrays[f"card_{name}"]
    names = names_of(ids, fitted.use_names)[1]
    describer = Describer(
        table, Lineage.from_edges(edges, ids), np.arange(len(ids)) < n_trained,
        use_names=fitted.use_names,
        terms={
            name: _terms(split, names, _part(arrays, f"{name}_")) for name, split in SPLITS.items()
        },
    )  # fmt: skip
    fitted.prior_ = _restored_prior(arrays, header, describer, fitted.seed)
    # Evidence, calibration, drift, and the training data.
    information = arrays["evidence_information"]
    precision = unpack(arrays["evidence_precision"], information.shape[1])
    fitted.evidence_ = Gaussians(precision, information)
    fitted.calibration_ = IntervalCalibration(**_part(arrays, "calibration_"))
    fitted.drift_ = TemporalDrift(*header["drift"], arrays["drift_shift"], arrays["drift_widening"])
    fitted.trained_ids_, fitted.trained_edges_ = ids[:n_trained], edges
    fitted.trained_responses_, fitted.trained_scores_ = arrays["responses"], arrays["scores"]
    # Mixture weights of near-duplicates, the base weight last.
    if "copies" in header:
        weights = {}
        for number, (level, lacks_relatives, shape) in enumerate(header["copies"]):
            *mixture, base_weight = arrays[f"copies_{number}"]
            weights[level, lacks_relatives] = np.array(mixture).reshape(shape), base_weight
        fitted.near_duplicates_ = NearDuplicates(arrays["responses"], weights)
    fitted._set_rows(
        arrays["responses"],
        Lineage.from_edges(edges, fitted.trained_ids_),
        table.iloc[:n_trained],
    )
    return fitted


def _restored_prior(arrays, header, describer, seed):
    """The `StatePrior`, with its process conditioned on the saved outputs."""
    prior = StatePrior(seed=seed)
    for name, array in _part(arrays, "prior_").items():
        setattr(prior, name, array)
    prior._describe(describer)
    prior.reach = header["reach"]
    covariance = Covariance.default(prior.nodes, describer.change)
    covariance = covariance.with_parameters(header["covariance"])
    solved = [
        (unpack(arrays[f"group_{number}"][None], header["n_evaluated"])[0],
         arrays[f"solved_{number}"])
        if f"group_{number}" in arrays else (None, None)
        for number in range(header["n_groups"])
    ]  # fmt: skip
    prior.condition(covariance, arrays["process_outputs"], arrays["process_noise"], solved=solved)
    return prior


def _terms(split, names, arrays):
    """`Terms` with the rows of the names to which they were fitted."""
    shape = len(names), max(1, len(arrays["vocabulary"]))
    rows = sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    return Terms(split, arrays["vocabulary"], arrays["weights"], rows, names)


def _part(arrays, prefix):
    """The arrays whose names begin with `prefix`, by the rest of the name."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _checksum(arrays):
    """SHA-256 of names, types, shapes and contents of the arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes() if array.dtype.kind == "U" else array.data)
    return digest.hexdigest()
