"""The explorer: a self-contained HTML page of lineage and forecasts that forecasts new models."""

import html

from .bake import bake
from .page import render

__all__ = ["bake", "explore", "render", "show"]

_N_PLANS = 200  # number of merge plans by default


def explore(snapshot, forecaster, *, plans=None) -> str:
    """The page of a snapshot, as HTML.

    Parameters
    ----------
    snapshot, forecaster : as in `bake`
    plans : DataFrame, optional
        From `Forecaster.plan_merges`; the 200 best plans by default.

    Returns
    -------
    str
    """
    if plans is None and len(forecaster.trained_ids_) > 1:
        plans = forecaster.plan_merges(top=_N_PLANS)
    return render(bake(snapshot, forecaster, plans=plans))


def show(snapshot, forecaster, *, plans=None):
    """The same page inside a notebook.

    Parameters
    ----------
    snapshot, forecaster, plans : as in `explore`

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    page = html.escape(explore(snapshot, forecaster, plans=plans))
    allowed = "allow-scripts allow-popups allow-popups-to-escape-sandbox"
    # The text begins with a line break, as IPython warns of HTML that begins with an iframe.
    return HTML(
        f'\n<iframe srcdoc="{page}" width="100%" height="700" style="border: 0" '
        f'title="Explorer of {html.escape(snapshot.name)}" sandbox="{allowed}">'
        "</iframe>"
    )
