"""The one place that writes: files and folders appear complete, or not at all."""

import ctypes
import errno
import glob
import hashlib
import io
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_KEPT = 40  # characters that the name of a partial file repeats of a longer name
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # of Linux and of macOS


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
        file = _File(partial, path)
        yield file
        with _naming(path):
            _sync(file.fileno())
            _keep_mode(path, partial)
            file.close()
            _move(partial, path)
    finally:
        # An interruption may come before `file` is set; nothing may mask the error that came first.
        for clean_up in (lambda: file.close(), partial.unlink):
            with suppress(OSError, NameError):
                clean_up()


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write or replace a file; raises OutputError."""
    with output(Path(path)) as file:
        file.write(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write or replace a text file: UTF-8, its line ends as they are; raises OutputError."""
    write_bytes(path, text.encode())


@contextmanager
def output_folder(
    path: str | os.PathLike, *, last: str = "", keep_others: bool = False
) -> Iterator[Path]:
    """Yield a new folder that replaces the one at `path`, if any, when the block ends well.

    Otherwise it vanishes and the old one stays as it was. Files that are replaced hand on their
    permissions. Failures to write are plain OSErrors.

    Two folders change places in one step, so that a reader sees the old or the new one. Where they
    cannot (mount points, the current folder, some network disks), files move one by one into the
    old folder, the file named `last` after all others; it is absent meanwhile.

    Parameters
    ----------
    path : path of a folder
    last : str, name of the file that makes the content complete
    keep_others : bool
        Whether files and folders that the new folder lacks stay in their place.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path, "partial")
    try:
        try:
            partial.mkdir()
        except OSError:
            if not path.is_dir():
                raise
            partial = _beside(path / path.name, "partial")  # the folder around is read-only
            partial.mkdir()
        yield partial
        for entry in (*partial.rglob("*"), partial):
            descriptor = os.open(entry, os.O_RDONLY)
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)
            _keep_mode(path / entry.relative_to(partial), entry)
        if not _swap_in(partial, path, keep_others=keep_others):
            _move_in(partial, path, last, keep_others=keep_others)
        with suppress(OSError):
            descriptor = os.open(path.parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial_folders(path: Path) -> None:
    """Remove what `output_folder` left of this path where its process was killed."""
    for folder in (path.parent, path):
        for partial in folder.glob(f".{glob.escape(_short(path.name))}.????????.partial"):
            shutil.rmtree(partial, ignore_errors=True)


def _swap_in(partial: Path, path: Path, *, keep_others: bool) -> bool:
    """Put `partial` in the place of `path` in one step; False if only single files can move.

    What is to stay is linked into the new folder first: whenever the program dies, it is complete
    in one of the two.
    """
    if partial.parent == path or (path.exists() and Path.cwd().is_relative_to(path)):
        return False
    others = set(os.listdir(path)) - set(os.listdir(partial)) if path.exists() else set()
    try:
        if not others or not keep_others:
            _replace_folder(partial, path)
            return True
        for name in others:
            _link(path / name, partial / name)
        _exchange(partial, path)
        return True
    except OSError as error:
        if not others and error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
    for name in others if keep_others else ():
        if (partial / name).is_dir() and not (partial / name).is_symlink():
            shutil.rmtree(partial / name)
        else:
            (partial / name).unlink(missing_ok=True)
    return False


def _replace_folder(partial: Path, path: Path) -> None:
    """Exchange two folders, or rename the old one away; on any failure put it back."""
    if not path.exists():
        os.rename(partial, path)
        return
    with suppress(OSError):
        _exchange(partial, path)
        return
    retired = _beside(path, "old")
    os.rename(path, retired)
    try:
        os.rename(partial, path)
    except BaseException:
        with suppress(OSError):
            os.rename(retired, path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


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


def _link(source: Path, target: Path) -> None:
    """Give a file, or all files of a folder, a second name."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    else:
        os.link(source, target, follow_symlinks=False)


def _move_in(partial: Path, path: Path, last: str, *, keep_others: bool) -> None:
    """Move the files of `partial` one by one to `path`, the one named `last` after all others."""
    new = sorted(os.listdir(partial), key=lambda name: (name == last, name))
    if last:
        (path / last).unlink(missing_ok=True)
    for entry in [] if keep_others else list(path.iterdir()):
        if entry.name not in new and entry != partial:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in new:
        if (partial / name).is_dir():
            shutil.rmtree(path / name, ignore_errors=True)
        _move(partial / name, path / name)


def _move(source: Path, target: Path) -> None:
    """Replace `target`, also where it is a mount point or on another disk."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno == errno.EBUSY:  # a file that is a mount point keeps its place
            shutil.copyfile(source, target)
        elif error.errno == errno.EXDEV:
            shutil.move(source, target)
        else:
            raise


def _keep_mode(old: Path, new: Path) -> None:
    """Give a new file the permissions of the one that it replaces, where there is one."""
    with suppress(OSError):  # some disks have no permissions
        if old.exists():
            new.chmod(stat.S_IMODE(old.stat().st_mode))


def _sync(descriptor: int) -> None:
    """Wait until a file or folder is on the disk, as far as the file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if error.errno not in _UNSUPPORTED and not is_folder:
            raise


def _beside(path: Path, kind: str) -> Path:
    """A hidden name of its own in the same folder; the name of `path` may be as long as allowed."""
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(4)}.{kind}")


def _short(name: str) -> str:
    """A name; of a long one its beginning and a hash, which tells it from others that begin so."""
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return name if len(name) <= _KEPT else f"{name[:_KEPT]}-{digest}"


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
