"""The rate limiter: stay below the quota that the server reports in its own headers."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from huggingface_hub.utils import parse_ratelimit_headers

from .errors import CrawlError, Stopped

SHARE = 0.8  # of the quota; the rest is left to other users of this address
_LONGEST_PAUSE = 900  # seconds; the Hub's window is 300
_WORTH_SAYING = 5  # seconds


@dataclass
class _Bucket:
    """One quota: the requests left in the current window, and when the next ones may go out."""

    what: str
    quota: int = 0
    window: float = 300
    left: float = float("inf")
    resets_at: float = float("inf")
    paused_until: float = 0
    in_flight: int = 0


class Limiter:
    """One gate for all workers, with a bucket for each quota ("api" and "files").

    The server reports in each answer how many requests are left (``RateLimit: "api";r=123;t=55``,
    ``RateLimit-Policy: ...;q=500;w=300``). Requests in flight are counted against that, 20% of the
    quota are never used, and ``Retry-After`` pauses all workers. A server that reports nothing is
    not limited. Setting ``stopped`` ends every wait; ``say`` takes messages for the user.
    """

    def __init__(self, stopped: threading.Event, *, say: Callable[[str], None] = lambda _: None):
        self._stopped, self._say = stopped, say
        self._lock = threading.Lock()
        self._buckets = {"api": _Bucket("requests"), "files": _Bucket("downloads")}

    def enter(self, kind: str) -> None:
        """Wait until a request may go out; each needs a `leave`."""
        bucket = self._buckets[kind]
        while not self._stopped.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= bucket.resets_at:  # a new window
                    bucket.left = max(1, int(SHARE * bucket.quota))
                    bucket.resets_at = now + bucket.window
                if bucket.left < 1:
                    self._pause_until(bucket, bucket.resets_at)
                delay = bucket.paused_until - now
                if delay <= 0:
                    bucket.left -= 1
                    bucket.in_flight += 1
                    return
            self._stopped.wait(delay)
        raise Stopped

    def leave(self, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Note the end of a request and what its answer reports about the quota."""
        info = parse_ratelimit_headers(headers) if headers else None
        with self._lock:
            bucket = self._buckets[kind]
            bucket.in_flight -= 1
            if info is None:
                return
            bucket.quota = info.limit or max(bucket.quota, info.remaining + 1)
            bucket.window = info.window_seconds or bucket.window
            # The server rounds to whole seconds.
            resets_at = time.monotonic() + info.reset_in_seconds + 1
            left = info.remaining - (1 - SHARE) * bucket.quota - bucket.in_flight
            if resets_at > bucket.resets_at + 2 or bucket.resets_at == float("inf"):
                bucket.left = left
            else:  # answers of one window may overtake each other
                bucket.left = min(bucket.left, left)
                resets_at = max(resets_at, bucket.resets_at)
            bucket.resets_at = resets_at

    def pause(self, kind: str, seconds: float) -> None:
        """Hold all requests back, as a 429 demands; raises CrawlError if it asks for too long."""
        with self._lock:
            self._pause_until(self._buckets[kind], time.monotonic() + seconds)

    def quotas(self) -> dict[str, tuple[int, float]]:
        """Requests and seconds of each quota that the server has reported."""
        with self._lock:
            known = {kind: bucket for kind, bucket in self._buckets.items() if bucket.quota}
            return {kind: (bucket.quota, bucket.window) for kind, bucket in known.items()}

    def _pause_until(self, bucket: _Bucket, moment: float) -> None:
        seconds = moment - time.monotonic()
        if seconds > _LONGEST_PAUSE:
            raise CrawlError(
                f"the quota is exhausted and the server asks to wait {seconds / 60:,.0f} minutes; "
                "what was fetched is kept: continue later with --resume"
            )
        if moment > bucket.paused_until:
            bucket.paused_until = moment
            if seconds >= _WORTH_SAYING:
                self._say(f"the quota of {bucket.what} is used up; going on in {seconds:.0f} s")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refusal asks to wait: ``Retry-After`` (seconds or date) or ``RateLimit``."""
    value = (headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        pass
    info = parse_ratelimit_headers(headers)
    return info.reset_in_seconds + 1.0 if info is not None and info.remaining == 0 else None
