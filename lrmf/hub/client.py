"""One polite HTTP client for the whole crawl, on top of the session of `huggingface_hub`."""

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import quote, urlencode, urlsplit

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from .errors import CrawlError, Refusal, Stopped
from .limiter import Limiter, retry_after

PROJECT = "lineage-regularized matrix factorization, research crawler"
MAX_JSON = 32 * 2**20
MAX_LINE = 16 * 2**20
MAX_PAGES = 10_000
CORRUPT = "its checksum does not match"
_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=\-]*")  # RFC 6750
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_BACKOFF = 20.0
_CONNECT_TRIES = 4
_RESUMES = 100  # of one download
_LASTING = 20  # requests given up in a row, after which the Hub is taken to be down
_SLOWEST = 20_000  # bytes a second of a body, below which a download is given up and tried again


class Client:
    """Ask the Hub politely: bounded, limited, timed, retried, and with the token for it alone.

    Every request passes one `Limiter`, has a timeout, and is tried again with growing pauses on
    429, 5xx, broken connections, truncated bodies and broken JSON; other refusals are final.

    Parameters
    ----------
    endpoint : str, optional
        Default: that of `huggingface_hub` (``HF_ENDPOINT``).
    timeout : float
        Seconds without any answer after which a request is tried again.
    tries : int
        Attempts at one request.
    backoff : float
        Seconds before the second attempt; doubles from there.
    stopped : Event, optional
        Ends all waiting; set it to end the crawl.
    say : callable, optional
        Takes a message for the user.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout: float = 30.0,
        tries: int = 10,
        backoff: float = 0.5,
        stopped: threading.Event | None = None,
        say: Callable[[str], None] = lambda _: None,
    ):
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.stopped = stopped or threading.Event()
        self.limiter = Limiter(self.stopped, say=say)
        self.n_requests = self.n_bytes = 0
        self._timeout, self._tries, self._backoff = timeout, tries, backoff
        self._reached, self._lasting = False, 0
        # The client's own build_hf_headers makes a request of its own, past the limiter.
        agent = f"lrmf/{_version('lrmf')}; hf_hub/{_version('huggingface_hub')}; {PROJECT}"
        self._headers = {"User-Agent": agent}
        self._token = _token()
        if self._token:
            self._headers["Authorization"] = f"Bearer {self._token}"

    @property
    def has_token(self) -> bool:
        """Whether requests are made in somebody's name."""
        return bool(self._token)

    def redact(self, text: str) -> str:
        """The text without the token, should a server have echoed it."""
        return text.replace(self._token, "<token>") if self._token else text

    def json(self, path: str, **parameters) -> object:
        """Fetch a JSON answer of the API; raises Refusal."""
        return self._page(self._url(path, parameters))[0]

    def pages(self, path: str, **parameters) -> Iterator[list]:
        """Fetch a listing page by page, as raw rows; raises Refusal."""
        url, seen = self._url(path, parameters), set()
        while url and url not in seen and len(seen) < MAX_PAGES:
            seen.add(url)
            rows, url = self._page(url)
            if not isinstance(rows, list):
                raise Refusal("error", f"expected a list, got {type(rows).__name__}")
            yield rows

    def content(self, path: str, *, max_bytes: int) -> bytes:
        """Fetch a file; raises Refusal, also if it is larger than ``max_bytes``."""

        def read() -> bytes:
            with self._response(self._url(path)) as response:
                _check_file(response)
                return _body(response, max_bytes)

        return self._retried(read)

    def lines(self, path: str, *, n_bytes: int, sha256: str | None = None) -> Iterator[bytes]:
        r"""Stream the lines (split at b"\n") of a file of known size; raises Refusal.

        After a broken connection the download goes on where it broke. Nothing but the current line
        is kept. Where a checksum is given and does not match, that is said at the end.
        """
        rest, digest = b"", hashlib.sha256()
        for chunk in self._chunks(self._url(path), n_bytes):
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:
                raise Refusal("error", f"has a line of more than {MAX_LINE} bytes")
            yield from lines
        if rest:
            yield rest
        if sha256 not in (None, digest.hexdigest()):
            raise Refusal("error", CORRUPT)

    def _chunks(self, url: str, n_bytes: int) -> Iterator[bytes]:
        position, failures, attempts = 0, 0, 0
        while position < n_bytes:
            begin, attempts = position, attempts + 1
            try:
                for chunk in self._once(url, begin, n_bytes):
                    position += len(chunk)
                    yield chunk
                if position < n_bytes:
                    raise _Transient(f"ended after {position} of {n_bytes} bytes")
            except _Transient as problem:
                failures = failures + 1 if position == begin else 1
                self._wait(problem, failures if attempts < _RESUMES else self._tries)

    def _once(self, url: str, begin: int, n_bytes: int) -> Iterator[bytes]:
        """The bytes from ``begin`` on, as far as one response brings them."""
        with self._response(url, begin=begin) as response:
            _check_file(response, n_bytes)
            # Not every server heeds Range: 200 is the whole file again.
            skip = begin if response.status_code != 206 else 0
            excess = n_bytes - begin + skip
            deadline = time.monotonic() + 4 * self._timeout + n_bytes / _SLOWEST
            for chunk in response.iter_bytes():
                excess -= len(chunk)
                if excess < 0:
                    raise Refusal("error", f"is longer than the {n_bytes} bytes announced")
                if time.monotonic() > deadline:
                    raise _Transient("too slow")
                kept = chunk[skip:]
                skip -= len(chunk) - len(kept)
                if kept:
                    yield kept

    def _page(self, url: str) -> tuple[object, str | None]:
        def read() -> tuple[object, str | None]:
            with self._response(url) as response:
                body = _body(response, MAX_JSON, seconds=4 * self._timeout)
                self.n_bytes += len(body)
                try:
                    value = json.loads(body)
                except (ValueError, RecursionError) as error:
                    raise _Transient(f"broken JSON ({type(error).__name__})") from error
                return value, self._next(response)

        return self._retried(read)

    def _next(self, response: httpx2.Response) -> str | None:
        """The next page, always on the endpoint: the token goes nowhere else."""
        link = response.links.get("next", {}).get("url")
        if not link:
            return None
        parts = urlsplit(link)
        origin = urlsplit(self.endpoint)
        return parts._replace(scheme=origin.scheme, netloc=origin.netloc).geturl()

    def _url(self, path: str, parameters: dict | None = None) -> str:
        spelled = {name: _spelled(value) for name, value in (parameters or {}).items()}
        query = urlencode(spelled, doseq=True)
        return f"{self.endpoint}/{quote(path)}" + (f"?{query}" if query else "")

    def _retried(self, read: Callable):
        failures = 0
        while True:
            try:
                return read()
            except _Transient as problem:
                failures += 1
                self._wait(problem, failures)

    def _wait(self, problem: "_Transient", failures: int) -> None:
        """Pause before the next attempt, or give up."""
        if problem.unreachable and failures >= (self._tries if self._reached else _CONNECT_TRIES):
            raise CrawlError(
                f"{self.endpoint} cannot be reached ({problem}); check the connection, then "
                "continue with --resume"
            ) from problem
        if failures >= self._tries:
            if problem.exhausted:
                raise CrawlError(
                    "the quota is exhausted; what was fetched is kept: continue in a few minutes "
                    "with --resume"
                ) from problem
            self._lasting += 1
            if self._lasting >= _LASTING:
                raise CrawlError(
                    f"the Hub keeps failing ({problem}); what was fetched is kept: continue later "
                    "with --resume"
                ) from problem
            raise Refusal("error", f"{problem}, {failures} times") from problem
        pause = min(_LONGEST_BACKOFF, self._backoff * 2 ** (failures - 1))
        if problem.exhausted and problem.pause is not None:
            self.limiter.pause(problem.kind, max(pause, problem.pause))
            return
        pause *= random.uniform(0.5, 1)  # workers that failed together do not come back together
        if self.stopped.wait(max(pause, min(problem.pause or 0, 60))):
            raise Stopped

    @contextmanager
    def _response(self, url: str, *, begin: int = 0) -> Iterator[httpx2.Response]:
        """A successful response, its body not yet read; raises Refusal or _Transient."""
        kind = "api" if url.startswith(f"{self.endpoint}/api/") else "files"
        headers = dict(self._headers)
        if kind == "files":  # compressed, it would have another size than announced
            headers["Accept-Encoding"] = "identity"
        if begin:
            headers["Range"] = f"bytes={begin}-"
        self.limiter.enter(kind)
        answer = None
        try:
            self.n_requests += 1
            with get_session().stream(
                "GET", url, headers=headers, timeout=self._timeout, follow_redirects=True
            ) as response:
                answer = response.headers
                self._reached = True
                if not response.is_success:
                    raise self._problem(response, kind)
                yield response
                self._lasting = 0
        except OfflineModeIsEnabled as error:
            raise CrawlError("offline mode is on; unset HF_HUB_OFFLINE to crawl") from error
        except (httpx2.TooManyRedirects, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise Refusal("error", f"leads nowhere ({type(error).__name__})") from error
        except (httpx2.RequestError, httpx2.StreamError) as error:
            unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise _Transient(_one_line(error), unreachable=unreachable) from error
        finally:
            self.limiter.leave(kind, answer)

    def _problem(self, response: httpx2.Response, kind: str) -> Exception:
        status, headers = response.status_code, response.headers
        if status in _RETRIED:
            pause = retry_after(headers)
            return _Transient(f"HTTP {status}", kind=kind, pause=pause, exhausted=status == 429)
        message = headers.get("X-Error-Message") or _message(_body(response, 2**16, cut=True))
        message = _one_line(self.redact(message))
        if status == 401 and "Invalid credentials" in message:
            return CrawlError(
                "the Hub does not accept the token; renew it (`hf auth login`) or unset HF_TOKEN"
            )
        return Refusal(
            refusal_status(status, headers.get("X-Error-Code", ""), message),
            f"HTTP {status}" + (f": {message}" if message else ""),
        )


class _Transient(Exception):
    """A failure that may pass."""

    def __init__(
        self,
        reason: str,
        *,
        kind: str = "api",
        pause: float | None = None,
        exhausted: bool = False,
        unreachable: bool = False,
    ):
        super().__init__(reason)
        self.kind, self.pause = kind, pause
        self.exhausted, self.unreachable = exhausted, unreachable


def refusal_status(status: int, code: str, message: str) -> str:
    """Status of a repository or file from a final answer: HTTP status, error code and message.

    Without a token the Hub says 401 for what is missing and for what is private.
    """
    text = message.lower()
    if code == "GatedRepo" or (status in (401, 403) and "gated" in text):
        return "gated"
    if status == 403 and "disabled" in text:
        return "disabled"
    if status in (401, 404, 410) or code in ("RepoNotFound", "EntryNotFound", "RevisionNotFound"):
        return "missing"
    return "error"


def _check_file(response: httpx2.Response, n_bytes: int | None = None) -> None:
    """Error pages that come with status 200, and other sizes than announced, may pass."""
    headers = response.headers
    if "text/html" in headers.get("Content-Type", ""):
        raise _Transient("a web page instead of the file")
    size = headers.get("Content-Range", "").rpartition("/")[2]
    if response.status_code != 206 and "Content-Encoding" not in headers:
        size = headers.get("Content-Length", "")
    if n_bytes is not None and size.isdigit() and int(size) != n_bytes:
        raise _Transient(f"has {size} bytes instead of {n_bytes}")


def _body(
    response: httpx2.Response, max_bytes: int, *, seconds: float | None = None, cut: bool = False
) -> bytes:
    deadline = time.monotonic() + (seconds or 120 + max_bytes / _SLOWEST)
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > max_bytes:
            if cut:
                break
            raise Refusal("error", f"is larger than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise _Transient("too slow")
    return bytes(body[:max_bytes])


def _spelled(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return error if isinstance(error, str) else ""


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in str(text)))[:200]


def _token() -> str:
    """The user's token from the environment or the client's store, or nothing."""
    try:
        token = "" if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token() or ""
    except OSError as error:
        raise CrawlError(
            f"{constants.HF_TOKEN_PATH}: the token cannot be read ({error.strerror or error}); "
            "mend the file, or set HF_TOKEN"
        ) from error
    if not _TOKEN.fullmatch(token):
        raise CrawlError(
            "the token (HF_TOKEN, or that of `hf auth login`) holds characters that none has; copy "
            "it again, or unset HF_TOKEN"
        )
    return token


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
