"""Model features: what the models table says about a model, as numbers for linear predictors."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .lineage import Lineage

CATEGORIES = ("architecture", "type", "precision", "chat_template", "merged", "moe")
DATE_COLUMNS = ("evaluated_at", "created_at")
UNKNOWN = "unknown"
POOLED = "other"
UNKNOWN_LOG_SIZE = -10.0


def model_features(
    models: pd.DataFrame, lineage: Lineage | None = None, *, min_share: float = 0.005
) -> pd.DataFrame:
    """Standardised log size and indicators of the categories, one row a model or a node.

    Parameters
    ----------
    models : DataFrame, n_models rows
        The models table of a snapshot. Columns it lacks, and those with a single level, give no
        feature. ``params_b`` that is null or not positive is unknown: the average size, and an
        indicator of its own. In the categories unknown is a level of its own.
    lineage : Lineage, optional
        Over the same models. The unscored nodes are appended, each with the (weighted) average of
        its neighbours, working outwards from the models; a node that no model can reach gets the
        average of all models.
    min_share : float in [0, 1]
        Levels of fewer than ``max(2, min_share * n_models)`` models are pooled as "other".

    Returns
    -------
    DataFrame of float64, (n_models or n_nodes, n_features)
        Indexed by id, with columns such as ``log_size`` and ``architecture=LlamaForCausalLM``.

    Raises
    ------
    ValueError
        If the lineage is over other models, or ``min_share`` is out of range.

    Examples
    --------
    >>> models = pd.DataFrame({"model_id": ["a", "b", "c"], "params_b": [1.0, 7.0, None]})
    >>> model_features(models).reset_index()
      model_id  log_size  log_size=unknown
    0        a      -1.0               0.0
    1        b       1.0               0.0
    2        c       0.0               1.0
    """
    if not 0 <= min_share <= 1:
        raise ValueError(f"min_share must be in [0, 1], got {min_share}")
    columns = _size_columns(models)
    n_needed = max(2, min_share * len(models))
    for category in CATEGORIES:
        if category in models:
            columns |= _level_columns(models[category], n_needed)
    index = pd.Index(models["model_id"], name="model_id")
    features = pd.DataFrame(columns, index=index, dtype=np.float64)
    if lineage is None:
        return features
    known = np.array_equal(index.to_numpy(dtype=object), lineage.node_ids[: lineage.n_models])
    if not known:
        raise ValueError(
            f"the {len(index)} models are not the {lineage.n_models} of the lineage; build it "
            "with Lineage.from_edges(edges, models['model_id'])"
        )
    values = _spread_over_nodes(features.to_numpy(), lineage.adjacency)
    nodes = pd.Index(lineage.node_ids, name="node_id")
    return pd.DataFrame(values, index=nodes, columns=features.columns)


def card_codes(models: pd.DataFrame) -> np.ndarray:
    """The same facts for trees: log size, each category's levels numbered by frequency, creation.

    Parameters
    ----------
    models : DataFrame, n_models rows

    Returns
    -------
    float (n_models, n_columns) : an unknown size or date lies below all others
    """
    columns = []
    if "params_b" in models:
        size = pd.to_numeric(models["params_b"], errors="coerce").to_numpy(float, na_value=np.nan)
        is_known = np.isfinite(size) & (size > 0)
        columns.append(np.where(is_known, np.log(np.where(is_known, size, 1)), UNKNOWN_LOG_SIZE))
    for category in CATEGORIES:
        if category in models:
            levels = pd.Series([_level_name(value) for value in models[category].tolist()])
            codes = pd.Series(range(levels.nunique()), index=_by_frequency(levels))
            columns.append(levels.map(codes).to_numpy(float))
    columns.append(creation_days(models))
    return np.column_stack(columns)


def creation_days(models: pd.DataFrame) -> np.ndarray:
    """Days from 1970 to the creation of each model, (n_models, 1); 0 where that is unknown.

    Without a single date there is no column: (n_models, 0).
    """
    if "created_at" not in models:
        return np.zeros((len(models), 0))
    dates = read_dates(models["created_at"])
    days = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    known = dates.notna().any()
    return days.fillna(0).to_numpy(float)[:, None][:, : int(known)]


def model_dates(
    models: pd.DataFrame, scored: np.ndarray, *, column: str | None = None
) -> pd.Series:
    """Dates of the models, NaT where unknown or unreadable.

    Parameters
    ----------
    models : DataFrame, n_models rows
    scored : bool (n_models,)
    column : str, optional
        By default the first of `DATE_COLUMNS` that is known of any scored model.
    """
    for name in [column] if column else DATE_COLUMNS:
        if name in models and models[name][scored].notna().any():
            return read_dates(models[name])
    return pd.Series(pd.NaT, index=models.index, dtype="datetime64[ns, UTC]")


def read_dates(column: pd.Series) -> pd.Series:
    """Dates of a column of text, NaT where unknown or unreadable."""
    text = column.astype("string")
    return pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")


def _by_frequency(levels: pd.Series) -> list[str]:
    counts = levels.value_counts()
    return sorted(counts.index, key=lambda level: (-counts[level], level))


def _size_columns(models: pd.DataFrame) -> dict[str, np.ndarray]:
    if "params_b" not in models:
        return {}
    size = pd.to_numeric(models["params_b"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(size) & (size > 0)
    log_size = np.log(size, where=is_known, out=np.zeros(len(size)))
    if not is_known.any() or np.ptp(log_size[is_known]) == 0:
        columns = {}
    else:
        centred = log_size - log_size[is_known].mean()
        columns = {"log_size": np.where(is_known, centred / log_size[is_known].std(), 0)}
    if 0 < is_known.sum() < len(size):
        columns[f"log_size={UNKNOWN}"] = (~is_known).astype(float)
    return columns


def _level_columns(values: pd.Series, n_needed: float) -> dict[str, np.ndarray]:
    """One indicator for each level, in alphabetical order; none for a constant."""
    levels = np.array([_level_name(value) for value in values.tolist()], dtype=object)
    names, counts = np.unique(levels, return_counts=True)
    rare = [name for name, n in zip(names, counts, strict=True) if n < n_needed and name != UNKNOWN]
    levels[np.isin(levels, rare)] = POOLED
    kept = np.unique(levels)
    if len(kept) < 2:
        return {}
    return {f"{values.name}={level}": (levels == level).astype(float) for level in kept}


def _level_name(value: object) -> str:
    if pd.isna(value) or str(value).strip() in {"", "?"}:
        return UNKNOWN
    if isinstance(value, bool | np.bool):
        return str(value).lower()
    return str(value).strip()


def _spread_over_nodes(model_values: np.ndarray, adjacency: sp.csr_array) -> np.ndarray:
    """Append unscored nodes, each the average of those neighbours that are nearer to a model."""
    n_models, n_nodes = len(model_values), adjacency.shape[0]
    values = np.zeros((n_nodes, model_values.shape[1]))
    values[:n_models] = model_values
    filled = np.arange(n_nodes) < n_models
    while not filled.all():
        weight = adjacency @ filled.astype(float)
        reached = np.flatnonzero((weight > 0) & ~filled)
        if not len(reached):
            values[~filled] = model_values.mean(axis=0)
            break
        values[reached] = (adjacency[reached] @ values) / weight[reached, None]
        filled[reached] = True
    return values
