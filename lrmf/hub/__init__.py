"""The crawl: leaderboard results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. The parts: `client` asks (politely,
by `limiter`), `log` remembers, `leaderboard` and `details` read results, `cards` reads what a model
says about its parents, `ancestry` follows it, `study` puts everything together.
"""

from .client import Client
from .errors import CrawlError
from .estimate import estimate
from .study import crawl

__all__ = ["Client", "CrawlError", "crawl", "estimate"]
