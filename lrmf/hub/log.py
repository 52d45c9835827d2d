"""The crawl log: every answer, appended as it arrives, so that nothing is asked twice."""

import contextlib
import fcntl
import json
import os
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from .errors import CrawlError

LOG_FOLDER = ".crawl"  # in the folder of the snapshot
LOG_FILE = "log.jsonl"


class CrawlLog:
    r"""An append-only file of JSON lines, and the part of it that is kept in memory.

    A line is ``{"kind", "key", "time", ...}``: the answer to one question. A line of kind ``crawl``
    begins a crawl; answers before it belong to earlier ones, and a line with ``"same": true``
    confirms one of theirs. A line that was cut short by a crash is removed when the log is opened.

    ``keep(entry)`` is what of an entry stays in memory, in ``answers`` (of this crawl) and
    ``earlier`` by ``(kind, key)``; None for nothing. ``redact`` changes every line before it is
    written. The folder is created if need be; the lock on the file refuses a second crawl.
    """

    def __init__(
        self, folder: Path, *, keep: Callable[[dict], object], redact: Callable[[str], str]
    ):
        self.answers: dict[tuple[str, str], object] = {}
        self.earlier: dict[tuple[str, str], object] = {}
        self.header: dict | None = None
        self._keep, self._redact = keep, redact
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / LOG_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(self._file)
            raise CrawlError(
                f"{folder.parent}: another crawl is writing there; wait for it or choose another "
                "folder"
            ) from error
        except OSError as error:  # some network disks have no locks
            warnings.warn(
                f"{folder.parent}: its disk has no locks ({error.strerror or error}); see to it "
                "that no other crawl writes there",
                stacklevel=2,
            )
        self._end = self._replay(folder / LOG_FILE)

    def close(self) -> None:
        """Give the file back; later appends are dropped, as the crawl is over."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def append(self, kind: str, key: str, **values) -> object:
        """Write an answer and return what is kept of it; raises OSError."""
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"kind": kind, "key": key, "time": time, **values}
        line = self._redact(json.dumps(entry, ensure_ascii=True)) + "\n"
        kept = self._absorb(json.loads(line))
        with self._lock:
            if self._file is not None:
                self._write(line.encode("ascii"))
        return kept

    def confirm(self, kind: str, key: str) -> object:
        """Note that an earlier answer still holds, and return what is kept of it."""
        return self.append(kind, key, same=True)

    def find(self, kind: str, key: str) -> object:
        """What is kept of this crawl's answer, or None."""
        return self.answers.get((kind, key))

    def recall(self, kind: str, key: str) -> object:
        """What is kept of this crawl's answer or of an earlier one that always holds, or None."""
        known = self.find(kind, key)
        if known is None and (kind, key) in self.earlier:
            known = self.confirm(kind, key)
        return known

    def _absorb(self, entry: dict) -> object:
        if entry["kind"] == "crawl":
            self.earlier |= self.answers
            self.answers.clear()
            self.header = entry
            return None
        name = (entry["kind"], entry["key"])
        kept = self.earlier.get(name) if entry.get("same") else self._keep(entry)
        if kept is not None:
            self.answers[name] = kept
        return kept

    def _replay(self, path: Path) -> int:
        """Read the log, cut off an incomplete last line, and return where to write on."""
        end = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                try:
                    self._absorb(json.loads(line))
                except (ValueError, TypeError, LookupError, AttributeError):
                    continue  # damaged: the question is asked again
        os.ftruncate(self._file, end)
        return end

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += written
