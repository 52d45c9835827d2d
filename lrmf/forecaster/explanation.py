"""How a forecast was reached: from which relatives, by what, and whether it extrapolates."""

import numpy as np

from .near_duplicates import RELATEDNESS

N_NEAREST = 3  # models that are named
_N_WEIGHED = 50  # of largest covariance, that shares are taken over
_FAR = 0.8  # share of the prior variance that is left where nothing like it has been evaluated


def explain(prior, described, kin):
    """What the forecasts of some models without own responses rest on.

    Parameters
    ----------
    prior : StatePrior
    described : Descriptions (n)
    kin : int8 (n, n_evaluated), as in `Relatedness`; -1 for the model itself

    Returns
    -------
    list of dict : nearest (the evaluated models of largest covariance, as rows of the fit),
        relatedness (of the closest evaluated relative), lineage, card_and_name (shares of the
        covariance with the nearest models; the rest is the base and what all models share), is_far
        (hardly anything like the model has been evaluated)
    """
    covariance = prior.covariance_
    terms = covariance.terms(described, prior.nodes)
    total = np.where(kin < 0, -np.inf, sum(terms.values()))
    variance = prior.process_.forecast(
        np.where(kin < 0, 0, total).astype(np.float32), covariance.variance(described)
    )[1]
    left = variance.min(axis=1) / covariance.variance(described)
    rows = []
    for row, order in enumerate(np.argsort(-total, axis=1, kind="stable")):
        near = order[:_N_WEIGHED]
        near = near[np.isfinite(total[row, near])]
        whole = np.abs([term[row, near] for term in terms.values()]).sum()
        share = {name: np.abs(term[row, near]).sum() / whole for name, term in terms.items()}
        rows.append(
            {
                "nearest": near[:N_NEAREST],
                "relatedness": RELATEDNESS[max(kin[row].max(initial=0), 0)],
                "lineage": share["lineage"],
                "card_and_name": share["card and name"],
                "is_far": bool(left[row] > _FAR),
            }
        )
    return rows
