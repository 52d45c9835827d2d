"""A Hub for tests: the parts of its API that the crawl uses, over real sockets.

Standard library only. Small files are served directly, large ones redirected to a second origin, as
the Hub does; listings come in pages linked by a header; answers can be made to fail at random.
"""

import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

TABLE = "open-llm-leaderboard/contents"
TABLE_PATH = "data/train-00000-of-00001.parquet"


def sha(*texts: str) -> str:
    return hashlib.sha1("\0".join(texts).encode()).hexdigest()


@dataclass
class Hub:
    """What the server knows.

    ``models`` are raw answers by current id, ``renamed`` leads from old ids to current ones,
    ``disabled`` ids are refused. ``leaderboards`` are rows of Community Evals by dataset. ``files``
    are bytes by (repository, path), where datasets are named ``datasets/org/name``; those of
    repositories in ``gated`` are refused without a token, of those in ``closed`` with any; those in
    ``broken`` fail.
    """

    models: dict[str, dict] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    datasets: dict[str, dict] = field(default_factory=dict)
    leaderboards: dict[str, list] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    large: int = 2000
    page_size: int = 50
    faults: float = 0.0
    fault_kinds: tuple[str, ...] = ()
    most_faults: int = 4
    quota: int = 0
    window: float = 2.0
    hold_from: int | None = None  # requests from this number on wait, until it is None again
    seed: int = 0

    def add_model(self, model_id: str, **answer) -> dict:
        base = {
            "_id": sha(model_id)[:24],
            "id": model_id,
            "sha": sha(model_id, "1"),
            "createdAt": "2024-05-01T12:00:00.000Z",
            "lastModified": "2024-06-01T12:00:00.000Z",
            "likes": 3,
            "gated": False,
            "disabled": False,
            "tags": ["transformers"],
            "cardData": {},
            "siblings": [{"rfilename": "README.md"}, {"rfilename": "config.json"}],
            "config": {"architectures": ["LlamaForCausalLM"], "tokenizer_config": {"x": "y" * 500}},
            "safetensors": {"parameters": {"BF16": 7_000_000_000}, "total": 7_000_000_000},
        }
        self.models[model_id] = base | answer
        return self.models[model_id]

    def add_file(self, repo: str, path: str, content: bytes) -> None:
        self.files[repo, path] = content
        if repo in self.models:
            names = [row["rfilename"] for row in self.models[repo]["siblings"]]
            if path not in names:
                self.models[repo]["siblings"] = [
                    *self.models[repo]["siblings"],
                    {"rfilename": path},
                ]
        elif repo.startswith("datasets/"):
            commit = sha(repo, path, hashlib.sha1(content).hexdigest())
            self.datasets.setdefault(repo.removeprefix("datasets/"), {})["sha"] = commit


@dataclass
class Record:
    """What the server saw."""

    requests: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    windows: Counter = field(default_factory=Counter)
    refused: int = 0
    leaked: list[str] = field(default_factory=list)
    n_faults: Counter = field(default_factory=Counter)
    most_at_once: int = 0


class Served:
    """A running server: ``url``, the ``hub`` it serves and the ``record`` of what it saw."""

    def __init__(self, hub: Hub):
        self.hub, self.record = hub, Record()
        self.lock = threading.Lock()
        self.random = random.Random(hub.seed)
        self.faults_of: Counter = Counter()
        self.started = time.monotonic()
        self.at_once = 0
        self.storage = _start(self, _Storage)
        self.server = _start(self, _Api)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.storage_url = f"http://localhost:{self.storage.server_port}"

    def asked(self, prefix: str) -> list[str]:
        return [path for path in self.record.requests if path.startswith(prefix)]

    def close(self) -> None:
        self.hub.hold_from = None
        for server in (self.server, self.storage):
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):  # clients hang up at will
        pass


def _start(served: Served, handler: type) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"served": served}))
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    return server


@contextmanager
def serve(hub: Hub):
    served = Served(hub)
    try:
        yield served
    finally:
        served.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    served: Served

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, content: bytes, headers: dict) -> None:
        """The whole file, or what a Range asks for."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match:
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], headers)
        else:
            self.answer(200, content, headers)

    def fail(self, kind: str) -> None:
        """One of the ways in which an answer can go wrong."""
        if kind.isdigit():
            headers = {"Retry-After": "0"} if kind == "429" else {}
            self.answer(int(kind), b'{"error":"no"}', headers)
            return
        self.close_connection = True
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif kind == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b'{"id": "some/th')
            self.wfile.flush()
        elif kind == "malformed":
            self.answer(200, b'{"id": "some/thing", "tags": [', {"Content-Type": "text/html"})
        elif kind == "html":
            self.answer(200, b"<html>Oops</html>", {"Content-Type": "text/html"})


class _Storage(_Handler):
    """The second origin, which large files are redirected to; knows no tokens."""

    def do_GET(self):
        served = self.served
        if "Authorization" in self.headers:
            served.record.leaked.append(self.path)
        served.record.requests.append(f"storage:{self.path}")
        repo, path = (unquote(part) for part in urlsplit(self.path).path[1:].split("/", 1))
        content = served.hub.files[unquote(repo), path]
        if served.hub.faults and served.random.random() < served.hub.faults:
            with served.lock:
                served.faults_of[self.path] += 1
                fails = served.faults_of[self.path] <= served.hub.most_faults
            if fails:  # break off in the middle
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
        self.file(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})


class _Api(_Handler):
    def do_GET(self):
        served, record = self.served, self.served.record
        with served.lock:
            record.requests.append(self.path)
            number = len(record.requests)
            record.agents.add(self.headers.get("User-Agent"))
            record.times.append(time.monotonic())
            served.at_once += 1
            record.most_at_once = max(record.most_at_once, served.at_once)
        try:
            self.quota_headers = self.count()
            while (limit := served.hub.hold_from) is not None and number >= limit:
                time.sleep(0.005)
            if self.quota_headers is None:
                return
            if kind := self.fault():
                self.fail(kind)
                return
            self.route()
        finally:
            with served.lock:
                served.at_once -= 1

    do_HEAD = do_GET

    def count(self) -> dict | None:
        """Headers of the quota; None if it was exceeded and that has been answered."""
        hub, record = self.served.hub, self.served.record
        if not hub.quota:
            return {}
        with self.served.lock:
            elapsed = time.monotonic() - self.served.started
            number = int(elapsed / hub.window)
            record.windows[number] += 1
            left = hub.quota - record.windows[number]
            reset = int((number + 1) * hub.window - elapsed)
        headers = {
            "RateLimit": f'"api";r={max(0, left)};t={reset}',
            "RateLimit-Policy": f'"fixed window";"api";q={hub.quota};w={int(hub.window)}',
        }
        if left >= 0:
            return headers
        record.refused += 1
        self.answer(429, b"{}", headers | {"Retry-After": str(reset + 1)})
        return None

    def fault(self) -> str | None:
        served = self.served
        with served.lock:
            if served.random.random() >= served.hub.faults:
                return None
            if served.faults_of[self.path] >= served.hub.most_faults:
                return None
            served.faults_of[self.path] += 1
            kind = served.random.choice(served.hub.fault_kinds)
            served.record.n_faults[kind] += 1
        if kind == "slow":
            time.sleep(0.2)
            return None
        return kind

    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def json(self, value: object, status: int = 200, **headers) -> None:
        extra = {name.replace("_", "-"): text for name, text in headers.items()}
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self.answer(status, json.dumps(value).encode(), kind | self.quota_headers | extra)

    def refuse(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.json({"error": message}, status, **headers)

    def missing(self) -> None:
        if self.token():
            self.refuse(404, "Repository not found", "RepoNotFound")
        else:
            self.refuse(401, "Invalid username or password.")

    def route(self) -> None:
        hub = self.served.hub
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if self.token() and hub.tokens and self.token() not in hub.tokens:
            self.refuse(401, "Invalid credentials in Authorization header")
        elif path == "/api/models":
            self.listing(query)
        elif match := re.fullmatch(r"/api/models/(.+)", path):
            self.model(match[1], parts, query)
        elif path == "/api/datasets":
            self.official_benchmarks(query)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/leaderboard", path):
            self.leaderboard(match[1], query)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)", path):
            self.tree(match[1], query)
        elif match := re.fullmatch(r"/api/datasets/(.+)", path):
            found = hub.datasets.get(match[1])
            self.json({"id": match[1], **found}) if found else self.missing()
        elif match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(match[1], match[2], match[3])
        else:
            self.refuse(404, "Not found")

    def model(self, asked: str, parts, query: dict) -> None:
        hub = self.served.hub
        if asked in hub.renamed:
            location = f"/api/models/{quote(hub.renamed[asked])}"
            location += f"?{parts.query}" if parts.query else ""
            self.answer(307, b"", {"Location": location, **self.quota_headers})
        elif asked in hub.disabled:
            self.refuse(403, "Access to this resource is disabled.")
        elif asked not in hub.models:
            self.missing()
        else:
            self.json(_expanded(hub.models[asked], query))

    def listing(self, query: dict) -> None:
        author = query.get("author", [""])[0]
        rows = [
            row for name, row in self.served.hub.models.items() if name.startswith(f"{author}/")
        ]
        self.page([_expanded(row, query) for row in rows], query)

    def official_benchmarks(self, query: dict) -> None:
        asked = "benchmark:official" in query.get("filter", [])
        rows = [{"_id": sha(name)[:24], "id": name} for name in self.served.hub.leaderboards]
        self.page(rows if asked else [], query)

    def leaderboard(self, dataset: str, query: dict) -> None:
        """Rows of a benchmark; by default of models without a declared base model, as the Hub."""
        hub = self.served.hub
        if dataset not in hub.leaderboards:
            self.missing()
            return
        rows = hub.leaderboards[dataset]
        if query.get("base_model") != ["false"]:
            rows = [
                row
                for row in rows
                if not hub.models.get(row.get("modelId"), {}).get("cardData", {}).get("base_model")
            ]
        self.json(rows)

    def tree(self, repo: str, query: dict) -> None:
        hub = self.served.hub
        if repo not in hub.datasets:
            self.missing()
            return
        rows = [{"type": "directory", "path": "data", "oid": "0", "size": 0}]
        for (owner, path), content in sorted(hub.files.items()):
            if owner == f"datasets/{repo}":
                oid = hashlib.sha256(content).hexdigest()
                row = {"type": "file", "path": path, "size": len(content), "oid": oid[:40]}
                lfs = {"oid": oid, "size": len(content), "pointerSize": 134}
                rows.append(row | ({"lfs": lfs} if len(content) > hub.large else {}))
        self.page(rows, query)

    def page(self, rows: list, query: dict) -> None:
        start, size = int(query.get("cursor", ["0"])[0]), self.served.hub.page_size
        headers = {}
        if start + size < len(rows):
            following = urlencode(query | {"cursor": start + size}, doseq=True)
            target = f"{self.served.url}{urlsplit(self.path).path}?{following}"
            headers["Link"] = f'<{target}>; rel="next"'
        self.json(rows[start : start + size], **headers)

    def resolve(self, repo: str, revision: str, path: str) -> None:
        hub = self.served.hub
        content = hub.files.get((repo, path))
        if repo in hub.closed or (repo in hub.gated and not self.token()):
            status = 403 if self.token() else 401
            self.refuse(status, f"Access to {repo} is restricted.", "GatedRepo")
        elif repo in hub.broken:
            self.fail("500")
        elif content is None:
            self.refuse(404, "Entry not found", "EntryNotFound")
        elif len(content) > hub.large:
            target = f"{self.served.storage_url}/{quote(repo, safe='')}/{quote(path)}"
            headers = {
                "Location": target,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": revision,
            }
            self.answer(302, b"", headers | self.quota_headers)
        else:
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": revision}
            self.file(content, headers | {"Content-Type": "text/plain"} | self.quota_headers)


def _expanded(answer: dict, query: dict) -> dict:
    """Only what was asked for; ids always."""
    if "expand" not in query or not isinstance(answer, dict):
        return answer
    return {key: answer[key] for key in ("_id", "id", *query["expand"]) if key in answer}
