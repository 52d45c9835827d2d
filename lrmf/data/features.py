"""Model features: what the models table says about a model, as numbers for predictors."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .lineage import Lineage

CATEGORIES = ("architecture", "type", "precision", "chat_template", "merged", "moe")
DATE_COLUMNS = ("evaluated_at", "created_at")
UNKNOWN = "unknown"
POOLED, MIN_SHARE = "other", 0.005  # levels of fewer models than that are pooled


def model_features(models: pd.DataFrame, lineage: Lineage | None = None) -> pd.DataFrame:
    """Standardised log size and indicators of the categories, one row a model or a node.

    Parameters
    ----------
    models : DataFrame, n_models rows
        The models table of a snapshot. Columns it lacks, and those with a single level, give no
        feature. ``params_b`` that is null or not positive is unknown: the average size, and an
        indicator of its own. In the categories unknown is a level of its own, and levels of fewer
        than 0.5% of the models, or of a single one, are pooled as "other".
    lineage : Lineage, optional
        Over the same models. The unscored nodes are appended, each with the (weighted) average of
        its neighbours, working outwards from the models; a node that no model can reach gets the
        average of all models.

    Returns
    -------
    DataFrame of float64, (n_models or n_nodes, n_features)
        Indexed by id, with columns such as ``log_size`` and ``architecture=LlamaForCausalLM``.

    Raises
    ------
    ValueError
        If the lineage is over other models.

    Examples
    --------
    >>> models = pd.DataFrame({"model_id": ["a", "b", "c"], "params_b": [1.0, 7.0, None]})
    >>> model_features(models).reset_index()
      model_id  log_size  log_size=unknown
    0        a      -1.0               0.0
    1        b       1.0               0.0
    2        c       0.0               1.0
    """
    n_needed = max(2, MIN_SHARE * len(models))
    columns = [_size_columns(models)]
    columns += [_level_columns(models[name], n_needed) for name in CATEGORIES if name in models]
    index = pd.Index(models["model_id"], name="model_id")
    features = pd.concat(columns, axis=1).astype(np.float64).set_axis(index)
    if lineage is None:
        return features
    if not np.array_equal(index.to_numpy(dtype=object), lineage.node_ids[: lineage.n_models]):
        raise ValueError(
            f"the {len(index)} models are not the {lineage.n_models} of the lineage; build it "
            "with Lineage.from_edges(edges, models['model_id'])"
        )
    values = _extend_to_nodes(features.to_numpy(), lineage.adjacency)
    nodes = pd.Index(lineage.node_ids, name="node_id")
    return pd.DataFrame(values, index=nodes, columns=features.columns)


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


def model_dates(models: pd.DataFrame, scored: np.ndarray) -> pd.Series:
    """Dates of the models, NaT where unknown or unreadable.

    The first of `DATE_COLUMNS` that is known of any scored model.

    Parameters
    ----------
    models : DataFrame, n_models rows
    scored : bool (n_models,)
    """
    if found := date_column(models, scored):
        return read_dates(models[found])
    return pd.Series(pd.NaT, index=models.index, dtype="datetime64[ns, UTC]")


def date_column(models: pd.DataFrame, scored: np.ndarray) -> str | None:
    """The column of `model_dates`; None where no scored model is dated."""
    for name in DATE_COLUMNS:
        if name in models and models[name][scored].notna().any():
            return name
    return None


def read_dates(column: pd.Series) -> pd.Series:
    """Dates of a column of any type, NaT where unknown, unreadable or not of this century.

    2022-03-02T23:29:04 stands for an unknown date on the Hub.
    """
    text = pd.Series([str(value) for value in column], index=column.index, dtype=object)
    text = text.where(text.str.match(r"20(?!22-03-02.23:29:04)\d\d"))  # which stand for unknown
    return pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")


def log_sizes(models: pd.DataFrame) -> np.ndarray:
    """Logarithms of the models' sizes, NaN where unknown or not positive."""
    size = pd.to_numeric(models["params_b"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    is_known = np.isfinite(size) & (size > 0)
    return np.log(size, where=is_known, out=np.full(len(size), np.nan))


def _size_columns(models: pd.DataFrame) -> pd.DataFrame:
    columns = pd.DataFrame(index=range(len(models)))
    log_size = log_sizes(models) if "params_b" in models else np.full(len(models), np.nan)
    is_known = ~np.isnan(log_size)
    if len(np.unique(known := log_size[is_known])) > 1:
        columns["log_size"] = np.nan_to_num((log_size - known.mean()) / known.std())
    if is_known.any() and not is_known.all():
        columns[f"log_size={UNKNOWN}"] = ~is_known
    return columns


def _level_columns(values: pd.Series, n_needed: float) -> pd.DataFrame:
    """One indicator for each level, in alphabetical order; none for a constant."""
    found = levels(values)
    is_rare = found.map(found.value_counts()) < n_needed
    found = found.mask(is_rare & (found != UNKNOWN), POOLED)
    columns = pd.get_dummies(found, prefix=values.name, prefix_sep="=")
    return columns if columns.shape[1] > 1 else columns.iloc[:, :0]


def levels(values: pd.Series) -> pd.Series:
    """Levels of a category as text; what is null, empty or "?" is unknown."""
    found = []
    for value in values.tolist():
        level = "" if pd.isna(value) else str(value).strip()
        level = level.lower() if isinstance(value, bool | np.bool) else level
        found.append(UNKNOWN if level in {"", "?"} else level)
    return pd.Series(found, dtype=object)


def _extend_to_nodes(model_values: np.ndarray, adjacency: sp.csr_array) -> np.ndarray:
    """Append unscored nodes, each the average of its neighbours that are nearer to a model."""
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
