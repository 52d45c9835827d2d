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

from .errors import CrawlError, Refusal

LOG_FOLDER = ".crawl"  # in the folder of the snapshot
LOG_FILE = "log.jsonl"


class CrawlLog:
    r"""An append-only file of JSON lines; memory holds only where each answer stands.

    A line is ``{"kind", "key", "time", ...}``: the answer to one question. A line of kind ``crawl``
    begins a crawl; answers before it belong to earlier ones, and a line with ``"same": true``
    confirms one of theirs. A line that was cut short by a crash is removed when the log is opened.

    ``redact`` changes every line before it is written. The folder is created if need be; the lock
    on the file refuses a second crawl.
    """

    def __init__(self, folder: Path, *, redact: Callable[[str], str]):
        self.folder, self.header = folder, None
        self._redact, self._lock, self._end = redact, threading.Lock(), 0
        self._answers: dict[tuple[str, str], tuple[int, int]] = {}  # begin and length of the line
        self._earlier: dict[tuple[str, str], tuple[int, int]] = {}
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
        with (folder / LOG_FILE).open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
                    self._place(json.loads(line), len(line))  # if damaged, it is asked again
                self._end += len(line)
        os.ftruncate(self._file, self._end)

    def close(self) -> None:
        """Give the file back; later appends are dropped, as the crawl is over."""
        with self._lock:
            os.close(self._file)
            self._file = None

    def ask(
        self, kind: str, key: str, function: Callable[[], dict | None], *, lasting: bool = False
    ) -> dict:
        """The answer to a question: this crawl's, or what the function returns, written down.

        It has a ``status`` and a ``reason``, those of a Refusal if the function raises one. An
        answer with the status ``error`` is asked for again. An earlier answer holds if it is a
        ``lasting`` one, or if the function returns None.
        """
        known = self.find(kind, key)
        if known and known.get("status") != "error":
            return known
        if lasting and not known and (kind, key) in self._earlier:
            return self.append(kind, key, same=True)
        try:
            values = function()
        except Refusal as refusal:
            values = {"status": refusal.status, "reason": refusal.reason}
        if values is None:
            return self.append(kind, key, same=True)
        return self.append(kind, key, **({"status": "ok", "reason": ""} | values))

    def append(self, kind: str, key: str, **values) -> dict:
        """Write an answer and return it, as it is read from the log; raises OSError."""
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = self._redact(json.dumps({"kind": kind, "key": key, "time": time, **values})) + "\n"
        entry = json.loads(line)
        with self._lock:
            if self._file is not None:
                self._write(line.encode("ascii"))
                self._place(entry, len(line))
                self._end += len(line)
        return self.find(kind, key) if "same" in values else entry

    def find(self, kind: str, key: str) -> dict | None:
        """The answer of this crawl, or None."""
        return self._read(self._answers.get((kind, key)))

    def find_earlier(self, kind: str, key: str) -> dict:
        """The answer of an earlier crawl, or an empty one."""
        return self._read(self._earlier.get((kind, key))) or {}

    def earlier_keys(self, kind: str) -> list[str]:
        """What earlier crawls have asked for."""
        return [key for known, key in self._earlier if known == kind]

    def is_begun(self) -> bool:
        """Whether anything but the options has been asked and answered."""
        return any(kind != "options" for kind, _ in [*self._answers, *self._earlier])

    def _read(self, place: tuple[int, int] | None) -> dict | None:
        return place and json.loads(os.pread(self._file, place[1], place[0]))

    def _place(self, entry: dict, length: int) -> None:
        """Note that the entry stands at the end of the log."""
        name = (entry["kind"], entry["key"])
        if entry["kind"] == "crawl":
            self._earlier |= self._answers
            self._answers, self.header = {}, entry
        elif entry["time"]:
            is_same = entry.get("same")
            self._answers[name] = self._earlier[name] if is_same else (self._end, length)

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
