"""One polite HTTP client for the whole crawl, on top of the session of `huggingface_hub`."""

import hashlib
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import chain
from multiprocessing.pool import ThreadPool
from urllib.parse import quote, urlencode, urljoin, urlsplit

import httpx2
import huggingface_hub
from huggingface_hub import constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tqdm import tqdm

from ..data.schema import one_line
from .errors import Corrupt, CrawlError, Refusal, Stopped, Unreachable
from .limiter import Limiter

PROJECT = "lineage-regularized matrix factorization, research crawler"
_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=\-]*")  # RFC 6750
_RETRIED = (408, 425, 429)  # and 5xx
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_NOWHERE = (httpx2.TooManyRedirects, httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError)
_UNREACHABLE = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError


@dataclass(frozen=True)
class Limits:
    """How long a `Client` waits, how often it tries, and what sizes it takes."""

    timeout: float = 30.0  # seconds without any answer after which a request is tried again
    tries: int = 10  # attempts at one request
    connect_tries: int = 4  # attempts to reach a host that has not answered yet
    backoff: float = 0.5  # seconds before the second attempt; pauses double from there
    longest_backoff: float = 20.0  # seconds
    failures: int = 20  # requests given up in a row, after which the Hub is taken to be down
    resumes: int = 100  # responses that one download may take
    slowest: int = 20_000  # bytes a second, below which an answer is given up and tried again
    json_bytes: int = 32 * 2**20
    line_bytes: int = 16 * 2**20
    pages: int = 10_000


class _Transient(Exception):
    """A failure that may pass: which host cannot be reached, and why the crawl ends if it lasts."""

    def __init__(self, reason: str, *, host: bytes = b"", end: str = ""):
        super().__init__(reason)
        self.host, self.end = host, end


class Client:
    """Request from the Hub within limits of rate, time and size, with the user's token.

    Every request passes one `Limiter`, has a timeout, and is tried again with growing pauses on
    429, 5xx, broken connections, truncated bodies and broken JSON; other refusals are final.
    Setting the event ``stopped`` ends all waiting, and so the crawl. The endpoint is by default
    that of `huggingface_hub` (``HF_ENDPOINT``); ``say`` takes a message for the user; further
    options are `Limits`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
        **limits,
    ):
        self.endpoint = (constants.ENDPOINT if endpoint is None else endpoint).rstrip("/")
        _check_endpoint(self.endpoint)
        self.stopped = threading.Event()
        self.limiter = Limiter(self.stopped, say=say)
        self.n_requests = self.n_bytes = 0
        self.limits = Limits(**limits)
        self._reached: set[bytes] = set()  # hosts
        self._n_given_up = 0
        self._retried = Retrying(
            retry=retry_if_exception_type(_Transient),
            stop=self._is_given_up,
            # Random pauses: workers that failed together do not come back together.
            wait=wait_random_exponential(self.limits.backoff, self.limits.longest_backoff),
            sleep=self._sleep,
            retry_error_callback=self._give_up,
        )
        # The client's own build_hf_headers makes a request of its own, past the limiter.
        installed = [package.version for package in distributions(name="lrmf")]
        agent = f"lrmf/{(*installed, 'unknown')[0]}; hf_hub/{huggingface_hub.__version__}"
        self._headers = {"User-Agent": f"{agent}; {PROJECT}"}
        self._token = _token()
        self.has_token = bool(self._token)  # whether requests are made in somebody's name
        self._session = _session()
        if self._token:
            self._headers["Authorization"] = f"Bearer {self._token}"

    def redact(self, text: str) -> str:
        """The text without the token, should a server have echoed it."""
        return text.replace(self._token, "<token>") if self._token else text

    def json(self, path: str, **parameters) -> object:
        """Fetch a JSON answer of the API; raises Refusal."""
        return self._retried(self._page, self._url(path, parameters))[0]

    def pages(self, path: str, **parameters) -> Iterator[list]:
        """Fetch a listing page by page, as raw rows; raises Refusal."""
        url, seen = self._url(path, parameters), set()
        while url and url not in seen and len(seen) < self.limits.pages:
            seen.add(url)
            rows, url = self._retried(self._page, url)
            if not isinstance(rows, list):
                raise Refusal("error", f"expected a list, got {type(rows).__name__}")
            yield rows

    def content(self, path: str, *, max_bytes: int) -> bytes:
        """Fetch a file; raises Refusal, also if it is larger than ``max_bytes``."""
        return self._retried(lambda: b"".join(self._rest(self._url(path), 0, max_bytes)))

    def lines(self, path: str, *, n_bytes: int, sha256: str | None = None) -> Iterator[bytes]:
        r"""Stream the lines (split at b"\n") of a file of known size; raises Refusal.

        After a broken connection the download goes on where it broke. Nothing but the current line
        is kept. A checksum that does not match raises Corrupt after the last line.
        """
        rest, digest = b"", hashlib.sha256()
        for chunk in self._download(self._url(path), n_bytes):
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > self.limits.line_bytes:
                raise Refusal("error", f"has a line of more than {self.limits.line_bytes} bytes")
            yield from lines
        if rest:
            yield rest
        if sha256 not in (None, digest.hexdigest()):
            raise Corrupt("error", "its checksum does not match")

    def _download(self, url: str, n_bytes: int) -> Iterator[bytes]:
        """The bytes of a file; each response that brings some may be followed by another."""
        position = 0

        def begin() -> Iterator[bytes]:
            chunks = self._rest(url, position, n_bytes)
            for first in chunks:
                return chain([first], chunks)
            raise _Transient(f"ended after {position} of {n_bytes} bytes")

        for _ in range(self.limits.resumes):
            try:
                for chunk in self._retried(begin):
                    position += len(chunk)
                    yield chunk
            except _Transient:
                self._sleep(self.limits.backoff)
            if position == n_bytes:
                return
        raise Refusal("error", f"broke off {self.limits.resumes} times")

    def _rest(self, url: str, begin: int, max_bytes: int) -> Iterator[bytes]:
        """The bytes of a file from ``begin`` on, as far as one response brings them."""
        with self._response(url, begin=begin) as response:
            # Error pages come with status 200, too.
            if "text/html" in response.headers.get("Content-Type", ""):
                raise _Transient("a web page instead of the file")
            # Not every server heeds Range: 200 is the whole file again.
            skip = begin if response.status_code != 206 else 0
            for chunk in self._chunks(response, max_bytes - begin + skip):
                if len(chunk) > skip:
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def _chunks(self, response: httpx2.Response, max_bytes: int) -> Iterator[bytes]:
        """The decoded body, within limits of size and speed."""
        started, n_bytes = time.monotonic(), 0
        for chunk in response.iter_bytes():
            n_bytes += len(chunk)
            self.n_bytes += len(chunk)
            if n_bytes > max_bytes:
                raise Refusal("unread", f"is larger than {max_bytes} bytes")
            allowed = 4 * self.limits.timeout + n_bytes / self.limits.slowest
            if time.monotonic() - started > allowed:
                raise _Transient("too slow")
            yield chunk

    def _page(self, url: str) -> tuple[object, str | None]:
        """A JSON answer and the address of the next page."""
        with self._response(url) as response:
            body = b"".join(self._chunks(response, self.limits.json_bytes))
            try:
                value = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise _Transient(f"broken JSON ({type(error).__name__})") from error
            link = response.links.get("next", {}).get("url")
        if not link:
            return value, None
        # The next page is always on the endpoint: the token goes nowhere else. The link of a mirror
        # below a path may be the Hub's, without that path.
        try:
            _, _, path, query, _ = urlsplit(urljoin(str(response.url), link))
        except ValueError as error:
            raise Refusal("error", f"the address of its next page is none ({error})") from error
        path = path.removeprefix(f"{urlsplit(self.endpoint).path}/").lstrip("/")
        return value, f"{self.endpoint}/{path}" + (f"?{query}" if query else "")

    def _url(self, path: str, parameters: dict | None = None) -> str:
        query = urlencode(parameters or {}, doseq=True)
        return f"{self.endpoint}/{quote(path)}" + (f"?{query}" if query else "")

    def _is_given_up(self, state: RetryCallState) -> bool:
        host = state.outcome.exception().host
        known = not host or host in self._reached
        return state.attempt_number >= (self.limits.tries if known else self.limits.connect_tries)

    def _sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Stopped

    def _give_up(self, state: RetryCallState) -> None:
        """Raise what a failure means that did not pass."""
        failure = state.outcome.exception()
        end, is_the_hubs = failure.end, not (failure.end or failure.host)
        self._n_given_up += is_the_hubs
        if is_the_hubs and self._n_given_up >= self.limits.failures:
            end = f"the Hub keeps failing ({failure}); what was fetched is kept: wait"
        if end:
            raise CrawlError(f"{end}, then continue with --resume") from failure
        kind = Unreachable if failure.host else Refusal
        raise kind("error", f"{failure}, {state.attempt_number} times") from failure

    @contextmanager
    def _response(self, url: str, *, begin: int = 0) -> Iterator[httpx2.Response]:
        """A successful response, its body not yet read; raises Refusal or _Transient."""
        kind = "api" if url.startswith(f"{self.endpoint}/api/") else "files"
        headers = dict(self._headers)
        if kind == "files":  # compressed, it would have another size than announced
            headers["Accept-Encoding"] = "identity"
        if begin:
            headers["Range"] = f"bytes={begin}-"
        entered, answer = self.limiter.enter(kind), ({}, 0)
        try:
            self.n_requests += 1
            with self._session.stream(
                "GET", url, headers=headers, timeout=self.limits.timeout, follow_redirects=True
            ) as response:
                answer = (response.headers, response.status_code)
                self._reached.update(each.url.netloc for each in (*response.history, response))
                if response.status_code == 407:
                    raise httpx2.ProxyError("407")
                if not response.is_success:
                    raise self._problem(response)
                yield response
                self._n_given_up = 0
        except OfflineModeIsEnabled as error:
            switch = _set_among("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") or "HF_HUB_OFFLINE"
            raise CrawlError(f"offline mode is on; unset {switch} to crawl") from error
        except _NOWHERE as error:
            raise Refusal("error", f"leads nowhere ({type(error).__name__})") from error
        except (httpx2.RequestError, httpx2.StreamError) as error:
            reason = one_line(error)
            if isinstance(error, httpx2.ProxyError) and "407" in reason:
                raise CrawlError(
                    f"the proxy of {_set_among(*_PROXIES) or 'the system'} asks for a password "
                    "(HTTP 407); write http://user:password@host:port, then continue with --resume"
                ) from error
            if isinstance(error, _UNREACHABLE):
                raise self._unreachable(error.request.url, reason, kind) from error
            raise _Transient(reason) from error
        finally:
            self.limiter.leave(kind, entered, *answer)

    def _unreachable(self, url: httpx2.URL, reason: str, kind: str) -> _Transient:
        """What it means that an address cannot be reached, which may be that of a redirect.

        Without the endpoint there is no crawl; a host that files lie on is the files' concern.
        """
        way = f" through the proxy of {proxies}" if (proxies := _set_among(*_PROXIES)) else ""
        reason = f"{url.scheme}://{url.netloc.decode()} cannot be reached{way} ({reason})"
        remedy = "check the connection"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            remedy = "where a proxy signs, set SSL_CERT_FILE to a file that holds its certificate"
        is_needed = kind == "api" or url.netloc == httpx2.URL(self.endpoint).netloc
        return _Transient(reason, host=url.netloc, end=f"{reason}; {remedy}" if is_needed else "")

    def _problem(self, response: httpx2.Response) -> Exception:
        """What a response without success means."""
        status, headers = response.status_code, response.headers
        if status in _RETRIED or status >= 500:
            end = "the quota is exhausted; what was fetched is kept: wait a few minutes"
            return _Transient(f"HTTP {status}", end=end if status == 429 else "")
        message = headers.get("X-Error-Message")
        if not message:
            with suppress(ValueError, RecursionError, LookupError, TypeError):
                message = json.loads(next(response.iter_bytes(), b""))["error"]
        message = one_line(self.redact(message)) if isinstance(message, str) else ""
        reason = f"HTTP {status}" + (f": {message}" if message else "")
        # A token that has expired is refused for public repositories as well.
        code = headers.get("X-Error-Code", "")
        is_refused = status == 401 or (status == 403 and "expired" in message.lower())
        is_refused &= str(response.url).startswith(self.endpoint)  # not by the storage
        if self.has_token and is_refused and not code and "gated" not in message.lower():
            place = _set_among("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") or constants.HF_TOKEN_PATH
            return CrawlError(
                f"the Hub does not accept the token of {place} ({reason}); renew it (`hf auth "
                "login`) or unset it, then continue with --resume"
            )
        return Refusal(refusal_status(status, code, message), reason)


def each(what: str, function: Callable, tasks: list, *, n_workers: int) -> Iterator[tuple]:
    """Yield ``(task, function(task))`` as the results come, or raise a worker's exception.

    On a terminal a bar shows how many of ``what`` are done.
    """
    # The threads of this pool are daemons: an interrupted program does not wait for requests.
    with ThreadPool(n_workers) as pool:
        results = pool.imap_unordered(lambda task: (task, function(task)), tasks)
        yield from tqdm(results, what, total=len(tasks), unit=" id", disable=None, leave=False)


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


def _set_among(*names: str) -> str:
    """Those of the environment variables that are set, in small letters or not."""
    given = (name for name, value in os.environ.items() if value)
    return " and ".join(sorted(name for name in given if name.upper() in names))


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


def _check_endpoint(endpoint: str) -> None:
    """Refuse an address that leads nowhere; raises CrawlError."""
    with suppress(httpx2.InvalidURL):
        url = httpx2.URL(endpoint)
        if url.scheme in ("http", "https") and url.host and not url.userinfo:
            return
    raise CrawlError(  # with a password, which is kept out of messages and snapshots
        "HF_ENDPOINT is not the address of a Hub; write https://host[:port] without a password, or "
        "unset it for https://huggingface.co"
    )


def _session() -> httpx2.Client:
    """The session of `huggingface_hub`; raises CrawlError where the surroundings prevent one."""
    try:
        return get_session()
    except (ssl.SSLError, OSError) as error:
        names = [name for name in _CERTIFICATES if os.environ.get(name)]
        given = " and ".join(f"{name}={os.environ[name]}" for name in names) or "the system's"
        raise CrawlError(
            f"certificates cannot be read from {given} ({error.strerror or error}); name a file "
            "that exists and holds certificates, or unset the variable"
        ) from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise CrawlError(
            f"the proxy of {_set_among(*_PROXIES) or 'the system'} cannot be used "
            f"({one_line(error)}); write http://host:port, unset it, or for socks5:// "
            "`pip install socksio`"
        ) from error
