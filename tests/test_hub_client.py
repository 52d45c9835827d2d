"""The client against a real server: retries, limits, sizes, and where the token goes."""

import gzip
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hub_server import Hub, serve

from lrmf.hub.client import Client, each, refusal_status
from lrmf.hub.errors import CrawlError, Refusal, Stopped
from lrmf.hub.limiter import SHARE, Limiter, retry_after

TOKEN = "hf_" + "s3cr3t" * 5


@pytest.fixture(autouse=True)
def _anonymous(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))


@pytest.fixture
def served():
    hub = Hub()
    hub.add_model("org/a")
    with serve(hub) as served:
        yield served


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_):  # clients hang up at will
        pass


@pytest.fixture
def scripted():
    """A server that runs a function for each request; returns the function that starts it."""
    servers = []

    def start(respond):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                respond(self)

            def log_message(self, *_):
                pass

        server = _Quiet(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(handler, status, body=b"{}", **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def quick(url, **options):
    return Client(url, **{"backoff": 0.01, "timeout": 2, **options})


@pytest.mark.parametrize(
    "kind", ["429", "500", "502", "504", "520", "524", "reset", "truncated", "malformed", "html"]
)
def test_transient_failures_are_tried_again(served, kind):
    served.hub.faults, served.hub.fault_kinds, served.hub.most_faults = 1.0, (kind,), 3
    assert quick(served.url).json("api/models/org/a")["id"] == "org/a"
    assert len(served.record.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451])
def test_other_refusals_are_final(scripted, status):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        reply(handler, status, b'{"error": "no"}')

    with pytest.raises(Refusal, match=str(status)):
        quick(scripted(respond)).json("api/models/org/a")
    assert len(asked) == 1


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"error": 7}'])
def test_a_refusal_without_a_message(scripted, body):
    with pytest.raises(Refusal, match="^HTTP 404$"):
        quick(scripted(lambda handler: reply(handler, 404, body))).json("api/models/org/a")


def test_a_lasting_failure_ends(scripted):
    url = scripted(lambda handler: reply(handler, 500))
    with pytest.raises(Refusal, match="HTTP 500, 3 times"):
        quick(url, tries=3).json("api/models/org/a")


def test_silence_ends(scripted):
    url = scripted(lambda handler: time.sleep(5))
    with pytest.raises(Refusal, match="timed out"):
        quick(url, tries=2, timeout=0.1).json("api/models/org/a")


def test_nobody_there():
    with pytest.raises(CrawlError, match="cannot be reached"):
        quick("http://127.0.0.1:9").json("api/models/org/a")


def test_the_host_that_cannot_be_reached_is_named(scripted):
    url = scripted(lambda handler: reply(handler, 307, Location="http://localhost:9/api"))
    with pytest.raises(CrawlError, match="http://localhost:9 cannot be reached"):
        quick(url).json("api/models/org/a")


def test_quota_exhausted(scripted):
    url = scripted(lambda handler: reply(handler, 429, Retry_After="3600"))
    with pytest.raises(CrawlError, match="quota is exhausted.*60 minutes.*--resume"):
        quick(url).json("api/models/org/a")


def test_a_quota_that_is_renewed_next_year(scripted):
    headers = {"RateLimit": '"api";r=0;t=31536000', "RateLimit_Policy": '"api";q=500;w=300'}
    client = quick(scripted(lambda handler: reply(handler, 200, **headers)))
    client.json("api/models/org/a")
    with pytest.raises(CrawlError, match="525,600 minutes.*--resume"):
        client.json("api/models/org/b")


@pytest.mark.parametrize("token", ["hf_s3 cr3t", "hf_s3cr\u00e9t", "hf_s3\x01cr3t", 'hf_"s3cr3t'])
def test_a_damaged_token_is_not_sent_and_not_shown(monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(CrawlError, match="characters that none has") as caught:
        quick("http://127.0.0.1:9")
    assert "s3" not in str(caught.value)


def test_a_token_that_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(CrawlError, match="the token cannot be read .*set HF_TOKEN"):
        quick("http://127.0.0.1:9")


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://x/y",
        "gopher://x",
        "http://",
        "//",
        "http://[bad",
        "http://[::bad/",
        "http://a..b",
    ],
)
def test_redirects_to_nowhere_end(scripted, target):
    url = scripted(lambda handler: reply(handler, 302, b"", Location=target))
    with pytest.raises(Refusal):
        quick(url, tries=2).content("org/a/resolve/1/f", max_bytes=10)


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (401, "", "Invalid username or password.", "missing"),
        (401, "GatedRepo", "Access to model x is restricted", "gated"),
        (403, "GatedRepo", "you are not in the authorized list", "gated"),
        (403, "", "Access to this resource is disabled.", "disabled"),
        (403, "", "Forbidden", "error"),
        (404, "RepoNotFound", "Repository not found", "missing"),
        (404, "EntryNotFound", "Entry not found", "missing"),
        (418, "", "", "error"),
    ],
)
def test_what_refusals_mean(status, code, message, expected):
    assert refusal_status(status, code, message) == expected


def test_pages_follow_links_and_rows_are_raw(served):
    for number in range(7):
        served.hub.add_model(f"lab/m{number}")
    served.hub.models["lab/odd"] = ["not", "a", "row"]
    served.hub.page_size = 3
    rows = [row for page in quick(served.url).pages("api/models", author="lab") for row in page]
    assert len(rows) == 8 and ["not", "a", "row"] in rows
    assert len(served.record.requests) == 3


@pytest.mark.parametrize(
    "link",
    ["?cursor=2", "models?cursor=2", "/hf/api/models?cursor=2", "/api/models?cursor=2"]
    + ["https://hub.example/api/models?cursor=2", "//hub.example/hf/api/models?cursor=2"],
)
def test_the_next_page_of_a_mirror_below_a_path(scripted, link):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        more = {"Link": f'<{link}>; rel="next"'} if len(asked) == 1 else {}
        reply(handler, 200, b"[1]", **more)

    client = quick(f"{scripted(respond)}/hf")
    assert list(client.pages("api/models", limit=1)) == [[1], [1]]
    assert asked == ["/hf/api/models?limit=1", "/hf/api/models?cursor=2"]


def test_a_next_page_without_an_address(scripted):
    link = '<http://[bad>; rel="next"'
    client = quick(scripted(lambda handler: reply(handler, 200, b"[1]", Link=link)))
    with pytest.raises(Refusal, match="next page"):
        list(client.pages("api/models"))


def test_endless_pages_end(scripted):
    def respond(handler):
        reply(handler, 200, b"[1]", Link=f'<http://x{handler.path}>; rel="next"')

    assert list(quick(scripted(respond)).pages("api/models")) == [[1]]


def test_redirects_in_circles_end(scripted):
    url = scripted(lambda handler: reply(handler, 307, Location=handler.path))
    with pytest.raises(Refusal, match="leads nowhere"):
        quick(url).json("api/models/org/a")


def test_sizes_are_capped(scripted):
    client = quick(scripted(lambda handler: reply(handler, 200, b"x" * 5000)))
    assert len(client.content("org/a/resolve/1/f", max_bytes=5000)) == 5000
    with pytest.raises(Refusal, match="larger than 4999"):
        client.content("org/a/resolve/1/f", max_bytes=4999)
    with pytest.raises(Refusal, match="larger than 100 bytes"):
        list(quick(client.endpoint, tries=2).lines("org/a/resolve/1/f", n_bytes=100))


def test_a_small_answer_that_unfolds_is_capped(scripted):
    body = gzip.compress(bytes(2 * 10**7))
    client = quick(scripted(lambda handler: reply(handler, 200, body, Content_Encoding="gzip")))
    with pytest.raises(Refusal, match="larger than 1000000"):
        client.content("org/a/resolve/1/f", max_bytes=10**6)


def test_a_trickle_ends(scripted):
    def respond(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            time.sleep(0.02)

    with pytest.raises(Refusal, match="too slow"):
        quick(scripted(respond), timeout=0.1, tries=2).json("api/models/org/a")


def test_lines_go_on_where_the_connection_broke(served):
    text = b"".join(b"line %d \xe2\x80\xa8 end\n" % number for number in range(20_000)) + b"last"
    served.hub.add_file("org/a", "big.json", text)
    served.hub.faults, served.hub.fault_kinds, served.hub.most_faults = 0.9, ("500", "reset"), 4
    client, digest = quick(served.url), hashlib.sha256(text).hexdigest()
    path = "org/a/resolve/1/big.json"
    assert list(client.lines(path, n_bytes=len(text), sha256=digest)) == text.split(b"\n")
    assert len(served.asked("storage:")) > 1
    with pytest.raises(Refusal, match="checksum"):
        list(client.lines(path, n_bytes=len(text), sha256="0" * 64))


def test_every_request_names_the_project(served):
    quick(served.url).json("api/models/org/a")
    assert all("lrmf/" in agent and "hf_hub/" in agent for agent in served.record.agents)


def test_the_token_goes_to_the_hub_alone(served, scripted, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    seen = []

    def respond(handler):
        seen.append((handler.path, handler.headers.get("Authorization")))
        reply(handler, 200, b"[]")

    elsewhere = scripted(respond).replace("127.0.0.1", "localhost")

    def lead_away(handler):
        if handler.path == "/api/models":
            seen.append(("hub", handler.headers.get("Authorization")))
            reply(handler, 200, b"[]", Link=f'<{elsewhere}/api/more>; rel="next"')
        elif handler.path == "/api/more":
            seen.append(("next page", handler.headers.get("Authorization")))
            reply(handler, 200, b"[]")
        else:
            reply(handler, 302, b"", Location=f"{elsewhere}{handler.path}")

    client = quick(scripted(lead_away))
    assert client.has_token
    list(client.pages("api/models"))
    client.content("org/a/resolve/1/f", max_bytes=10)
    assert seen == [
        ("hub", f"Bearer {TOKEN}"),
        ("next page", f"Bearer {TOKEN}"),
        ("/org/a/resolve/1/f", None),
    ]


def test_an_echoed_token_is_not_repeated(scripted, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def respond(handler):
        reply(handler, 400, X_Error_Message=f"bad: {handler.headers['Authorization']}")

    with pytest.raises(Refusal) as caught:
        quick(scripted(respond)).json("api/models/org/a")
    assert TOKEN not in str(caught.value) and "<token>" in str(caught.value)


def test_a_wrong_token_stops_the_crawl(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    served.hub.tokens = {"another"}
    with pytest.raises(CrawlError, match="does not accept the token"):
        quick(served.url).json("api/models/org/a")


def test_the_quota_is_respected(served):
    served.hub.quota, served.hub.window = 30, 1.0
    client = quick(served.url)
    paths = [f"api/models/org/a?n={number}" for number in range(50)]
    for _ in each("", lambda _: client.json("api/models/org/a"), paths, n_workers=8):
        pass
    assert served.record.refused == 0
    assert max(served.record.windows.values()) <= SHARE * 30
    assert served.record.most_at_once <= 8


def test_a_429_holds_everybody_back(scripted):
    times, lock = [], threading.Lock()

    def respond(handler):
        with lock:
            times.append(time.monotonic())
            first = len(times) == 1
        if first:
            reply(handler, 429, Retry_After="1")
        else:
            reply(handler, 200)

    client = quick(scripted(respond))
    for calls in (range(1), range(4)):
        list(each("", lambda _: client.json("api/x"), list(calls), n_workers=4))
    assert min(times[1:]) - times[0] >= 1


def test_waiting_ends_when_stopped():
    stopped = threading.Event()
    limiter = Limiter(stopped)
    limiter.leave("api", limiter.enter("api"), {"Retry-After": "60"}, 429)
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(Stopped):
        limiter.enter("api")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "12"}, 12),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": " 12 "}, 12),
        *[({"Retry-After": text}, 0) for text in ("soon", "-5", "1.5 h", "", "Thu, 99 Jan 9999")],
        ({}, 0),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


def test_an_error_of_a_worker_is_raised_here():
    def work(task):
        if task == 3:
            raise CrawlError("three")
        return task

    with pytest.raises(CrawlError, match="three"):
        list(each("", work, range(10), n_workers=3))
