"""The one place that writes: files and folders appear complete, or not at all."""

import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT = 40  # characters of a name that the name of its partial file repeats


class OutputError(Exception):
    """A place that cannot be written; the message names it and the way out."""


def check_place(path: Path) -> None:
    """Refuse what no file can be written to; raises OutputError."""
    with _naming(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; add a file name")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is not a regular file; choose another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}; create it first")


def check_space(path: Path, n_bytes: int) -> None:
    """Refuse what is larger than the room left on its disk; raises OutputError."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        needs, has = f"{n_bytes / 1e9:.1f} GB", f"{free / 1e9:.1f} GB"
        raise OutputError(f"{path}: needs {needs}, its disk has {has} left; choose another folder")


@contextmanager
def output(path: Path | None) -> Iterator[io.FileIO | None]:
    """Yield a file that gets its name when the block ends well, and vanishes otherwise.

    It is created on entry, so a block that computes first fails before that if it cannot be
    written. It keeps the permissions of a file that it replaces. Without a path, yields None.

    Raises
    ------
    OutputError
        If the file cannot be created, written or renamed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "scores.csv")
    ...     with output(path) as file:
    ...         _ = file.write(b"model_id,score")
    ...         print(path.exists())
    ...     print(path.read_text())
    False
    model_id,score
    """
    if path is None:
        yield None
        return
    check_place(path)
    path = path.resolve()
    partial = _beside(path, "partial")
    try:
        with _File(partial, path) as file:
            yield file
            with _naming(path):
                os.fsync(file.fileno())
                if path.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        with _naming(path):
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write or replace a file; raises OutputError."""
    with output(Path(path)) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write or replace a text file: UTF-8, its line ends as they are; raises OutputError."""
    write_bytes(path, text.encode())


@contextmanager
def output_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a new folder that replaces the one at `path`, if any, when the block ends well.

    Otherwise it vanishes and the old one stays as it was. Failures to write are plain OSErrors.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, retired = _beside(path, "partial"), _beside(path, "old")
    try:
        partial.mkdir()
        yield partial
        for entry in (*partial.rglob("*"), partial):
            _sync(entry)
        _swap_in(partial, path, retired)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)


def _swap_in(partial: Path, path: Path, retired: Path) -> None:
    """Put `partial` in the place of `path`; on any failure put the old one back."""
    try:
        if path.exists():
            os.rename(path, retired)
        os.rename(partial, path)
    except BaseException:
        if retired.exists() and not path.exists():
            os.rename(retired, path)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do this for folders.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    """A hidden name of its own in the same folder; the name of `path` may be as long as allowed."""
    return path.with_name(f".{path.name[:_KEPT]}.{secrets.token_hex(4)}.{kind}")


class _File(io.FileIO):
    """A new file, unbuffered, whose errors name the file that it is going to be."""

    def __init__(self, partial: Path, path: Path):
        self._path = path
        with _naming(path):
            super().__init__(partial, "x")

    def write(self, data) -> int:
        left = memoryview(data).cast("B")
        n_bytes = len(left)
        with _naming(self._path):
            while left:
                left = left[super().write(left) :]
        return n_bytes


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); choose a writable folder "
            "with enough space"
        ) from error
