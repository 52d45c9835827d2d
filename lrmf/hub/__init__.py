"""The crawl: leaderboard results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. The parts: `client` asks (politely,
by `limiter`), `log` remembers, `choice` finds what is to be crawled, `leaderboard` and `details`
read results, `cards` reads what a model says about its parents, `ancestry` follows it, `study` puts
everything together, `publish` puts it in place.
"""

from .client import Client
from .errors import CrawlError
from .estimate import estimate
from .study import crawl

__all__ = ["Client", "CrawlError", "crawl", "estimate"]
