"""The crawl: leaderboard results and lineage from the Hugging Face Hub, as a snapshot.

`crawl` does it, `estimate` says beforehand what it will cost. The parts: `client` asks (politely,
by `limiter`), `log` remembers, `leaderboard` and `details` read results, `cards` reads what a model
says about its parents, `ancestry` follows it, `crawl` puts everything together.
"""

from .crawl import crawl
from .errors import CrawlError

__all__ = ["CrawlError", "crawl"]
