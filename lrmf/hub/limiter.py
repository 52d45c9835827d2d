"""The rate limiter: stay below the quota that the server reports in its own headers."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from huggingface_hub.utils import parse_ratelimit_headers

from .errors import CrawlError, Stopped

SHARE = 0.8  # of the quota; the rest is left to other users of this address
_LONGEST_PAUSE = 900  # seconds; the Hub's window is 300
_LONGEST_SLEEP = 1  # seconds until a waiting worker hears what the server has said since
_SAME_WINDOW = 2  # seconds between ends of a window as rounded answers tell them
_WORTH_SAYING = 5  # seconds


@dataclass
class _Bucket:
    """One quota: the requests left in the current window, and when the next ones may go out."""

    what: str
    quota: int = 0
    window: float = 300
    left: float = math.inf
    resets_at: float = math.inf
    paused_until: float = 0
    in_flight: int = 0
    announced: float = 0
    heard: float = 0  # when the request went out whose answer reported last


class Limiter:
    """One gate for all workers, with a bucket for each quota ("api" and "files").

    The server reports in each answer how many requests are left (``RateLimit: "api";r=123;t=55``,
    ``RateLimit-Policy: ...;q=500;w=300``). Requests in flight are counted against that, 20% of the
    quota are never used, and ``Retry-After`` pauses all workers. What the server says last holds:
    of answers that overtake each other, that to the latest request. A server that reports nothing
    is not limited. Setting ``stopped`` ends every wait; ``say`` takes messages for the user.
    """

    def __init__(self, stopped: threading.Event, *, say: Callable[[str], None] = lambda _: None):
        self._stopped, self._say = stopped, say
        self._lock = threading.Lock()
        self._buckets = {"api": _Bucket("requests"), "files": _Bucket("downloads")}

    def enter(self, kind: str) -> float:
        """Wait until a request may go out, and return the time; each needs a `leave`.

        Raises CrawlError if the server asks to wait for too long.
        """
        bucket = self._buckets[kind]
        while not self._stopped.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= bucket.resets_at:  # a new window; without a known quota, no limit
                    bucket.left = max(1, int(SHARE * bucket.quota)) if bucket.quota else math.inf
                    bucket.resets_at = now + bucket.window
                until = max(bucket.paused_until, bucket.resets_at if bucket.left < 1 else 0)
                if until <= now:
                    bucket.left -= 1
                    bucket.in_flight += 1
                    return now
                seconds = until - now
                if seconds > _LONGEST_PAUSE:
                    raise CrawlError(
                        "the quota is exhausted and the server asks to wait "
                        f"{seconds / 60:,.0f} minutes; what was fetched is kept: continue later "
                        "with --resume"
                    )
                if seconds >= _WORTH_SAYING and until > bucket.announced + _WORTH_SAYING:
                    bucket.announced = until
                    self._say(f"the quota of {bucket.what} is used up; going on in {seconds:.0f} s")
            self._stopped.wait(min(seconds, _LONGEST_SLEEP))
        raise Stopped

    def leave(self, kind: str, entered: float, headers: Mapping[str, str], status: int) -> None:
        """Note the end of a request, and what its answer says of the quota and of a pause."""
        info, now = parse_ratelimit_headers(headers), time.monotonic()
        # Only a refusal for the quota can ask for long pauses.
        pause = min(retry_after(headers), math.inf if status == 429 else 60)
        with self._lock:
            bucket = self._buckets[kind]
            bucket.in_flight -= 1
            bucket.paused_until = max(bucket.paused_until, now + pause)
            if info is None or entered < bucket.heard:
                return
            bucket.heard = entered
            bucket.quota = info.limit or bucket.quota
            bucket.window = info.window_seconds or bucket.window
            # The server rounds to whole seconds.
            resets_at = now + info.reset_in_seconds + 1
            left = info.remaining - (1 - SHARE) * bucket.quota - bucket.in_flight
            if abs(resets_at - bucket.resets_at) <= _SAME_WINDOW:
                left, resets_at = min(left, bucket.left), max(resets_at, bucket.resets_at)
            bucket.left, bucket.resets_at = left, resets_at


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait in ``Retry-After``, as a number or as a date."""
    value = (headers.get("Retry-After") or "").strip()
    with suppress(TypeError, ValueError, OverflowError):
        if value.isdecimal():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return 0.0
