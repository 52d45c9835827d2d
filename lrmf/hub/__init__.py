"""The crawl: results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. `client` requests (within the quota
that `limiter` watches), `log` remembers every answer. What a crawl starts from is a `Source`:
`leaderboard` with `details` (the Open LLM Leaderboard), `community` (Community Evals) or
`known_models` (a snapshot). `ancestry` visits the models and their ancestors, and `edges` says
where an edge of the lineage comes from.
"""

from .client import Client
from .crawl import STATUS_FILE, crawl, unread_files
from .errors import CrawlError
from .estimate import estimate

__all__ = ["STATUS_FILE", "Client", "CrawlError", "crawl", "estimate", "unread_files"]
