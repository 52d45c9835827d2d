"""The crawl: results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. `client` requests (within the quota
that `limiter` watches), `log` remembers every answer, `leaderboard` and `details` read results of
the Open LLM Leaderboard, `community` those of Community Evals, `known_models` those of a snapshot,
`metadata` checks what the Hub says of a model, `edges` says where an edge of the lineage comes
from, `ancestry` visits the ancestors, and `study` does all this in order.
"""

from .client import Client
from .errors import CrawlError
from .estimate import estimate
from .study import STATUS_FILE, crawl, unread_files

__all__ = ["STATUS_FILE", "Client", "CrawlError", "crawl", "estimate", "unread_files"]
