"""Output files that appear complete or not at all."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def output(path: Path | None) -> Iterator[io.FileIO | None]:
    """Yield a file that gets its name when the block ends well, and vanishes otherwise.

    It is created on entry, so a block that computes first fails before that if it cannot be
    written. Without a path, yields None.

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
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with _File(partial, path) as file:
            yield file
            with _naming(path):
                os.fsync(file.fileno())
        with _naming(path):
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
