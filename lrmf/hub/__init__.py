"""The crawl: results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. `client` requests (within the quota
that `limiter` watches), `log` remembers every answer, `leaderboard` and `details` read results of
the Open LLM Leaderboard, `community` those of Community Evals, `known_models` those of a snapshot,
`cards` reads what a model's metadata says about its parents, `ancestry` visits the ancestors and
decides which edges there are, `study` does all this in order, `publish` puts the snapshot in place.
"""

from .client import Client
from .errors import CrawlError
from .estimate import estimate
from .study import crawl

__all__ = ["Client", "CrawlError", "crawl", "estimate"]
