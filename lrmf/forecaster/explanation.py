"""What a forecast is based on: the most similar models, the shares of lineage and card, support."""

import numpy as np

from .near_duplicates import RELATEDNESS

N_NEAREST = 3  # most similar models that are listed
_N_WEIGHTED = 50  # models of largest covariance over which shares are computed
_FAR = 0.8  # remaining share of the prior variance above which a forecast extrapolates


def explain(prior, described, relatedness):
    """What the forecasts of some models without their own responses are based on.

    Parameters
    ----------
    prior : StatePrior
    described : Descriptions (n)
    relatedness : int8 (n, n_evaluated), as in `Relatedness`; -1 for the model itself

    Returns
    -------
    list of dict
        nearest (the evaluated models of largest covariance, as rows of the fit), relatedness (of
        the closest evaluated relative), lineage and card_and_name (shares of the covariance with
        the nearest models; the rest is that of the constant term), is_far (whether evaluated
        models explain less than a fifth of the variance of every output)
    """
    # Covariances with all evaluated models except the model itself, by term and in total.
    covariance = prior.covariance_
    terms = covariance.terms(described, prior.nodes)
    total = np.where(relatedness < 0, -np.inf, sum(terms.values()))
    # Share of the prior variance that remains, of the output that is best explained.
    variance = prior.process_.forecast(
        np.where(relatedness < 0, 0, total).astype(np.float32), covariance.variance(described)
    )[1]
    remaining = variance.min(axis=1) / covariance.variance(described)
    rows = []
    for row, order in enumerate(np.argsort(-total, axis=1, kind="stable")):
        # Shares of the terms in the covariance with the nearest models.
        near = order[:_N_WEIGHTED]
        near = near[np.isfinite(total[row, near])]
        whole = np.abs([term[row, near] for term in terms.values()]).sum()
        share = {name: np.abs(term[row, near]).sum() / whole for name, term in terms.items()}
        rows.append(
            {
                "nearest": near[:N_NEAREST],
                "relatedness": RELATEDNESS[max(relatedness[row].max(initial=0), 0)],
                "lineage": share["lineage"],
                "card_and_name": 1 - share["lineage"] - share["constant"],
                "is_far": bool(remaining[row] > _FAR),
            }
        )
    return rows
