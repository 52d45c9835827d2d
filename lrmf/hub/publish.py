"""Put a finished snapshot in its place: a reader sees the old one or the new one, never none."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

from ..data.croissant import CROISSANT_FILE
from ..data.schema import DATA_FILES, MANIFEST_FILE
from .log import LOG_FOLDER

STATUS_FILE = "crawl_status.parquet"
SOURCES_FILE = "score_sources.parquet"  # of Community Evals
_FILES = (*DATA_FILES, STATUS_FILE, SOURCES_FILE, CROISSANT_FILE, MANIFEST_FILE)
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # of Linux and of macOS


def publish(staging: Path, out: Path) -> None:
    """Move a complete snapshot from ``staging`` to ``out``.

    The first snapshot of a folder appears with its manifest, which comes last. A later one is
    exchanged with the whole folder at once, and other files in it, such as the log, move over.
    Where folders cannot be exchanged (some network disks), and where the folder is the current one,
    the files are replaced one by one, and the manifest is absent meanwhile.
    """
    retired = _retired(out)
    if (out / MANIFEST_FILE).exists() and not Path.cwd().is_relative_to(out):
        with suppress(OSError):
            os.rename(staging, retired)
            staging = retired
            _exchange(staging, out)
            staging = None
    if staging is not None:
        (out / MANIFEST_FILE).unlink(missing_ok=True)
        for name in _FILES:
            (out / name).unlink(missing_ok=True)
            if (staging / name).exists():
                os.replace(staging / name, out / name)
        os.rmdir(staging)
    tidy(out)


def recover_log(out: Path) -> None:
    """Bring the log back if the program died right after the folders changed places."""
    log = _retired(out) / LOG_FOLDER
    if log.is_dir() and not (out / LOG_FOLDER).exists():
        out.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another crawl was faster
            os.rename(log, out / LOG_FOLDER)


def tidy(out: Path) -> None:
    """Empty the folder that changed places with ``out``: only the old snapshot's files go."""
    retired = _retired(out)
    if not retired.is_dir():
        return
    recover_log(out)
    for path in list(retired.iterdir()):
        if path.name in _FILES:
            path.unlink()
        elif not (out / path.name).exists():
            os.rename(path, out / path.name)
    with suppress(OSError):  # two things of one name: neither is deleted
        retired.rmdir()


def _retired(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places; raises OSError where that cannot be done."""
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, _RENAME_SWAP)
        else:
            failed = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    except AttributeError as error:
        raise OSError("this system cannot exchange two folders") from error
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
