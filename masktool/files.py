"""Writing files so that nobody ever sees half of one, and fingerprints of what was read.

Whatever is not finished stands under a name of its own beside its target and is locked by the process that writes it.
The lock goes with the process, however that ends, so that the next run in the same directory knows what nobody will
finish, and removes it; what another process is still writing stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from masktool.errors import MasktoolError
from masktool.messages import parameter

if sys.platform != "win32":
    import fcntl

HASH_CHUNK_BYTES = 1 << 20
TEMPORARY_PREFIX = ".masktool-tmp-"
LONGEST_SUFFIX = 16
"""Most characters of the target's suffix that a temporary name keeps: some writers look at the suffix."""
PUBLIC, PRIVATE = 0o666, 0o600
"""Modes of new files: for everybody, less the user's umask; for the user alone."""
MOST_WRITERS = 20
"""Directories of one name, by as many other processes, that are set aside before it is given up."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Error numbers of the system for a disk that is full, damaged or read-only, or a quota or file size limit reached."""

_CLEANED: set[Path] = set()
"""Directories in which this process has removed leftovers: once each, for some hold many thousand files."""


def check_target(target: str | os.PathLike[str]) -> Path:
    """Returns the file that writing to a path would replace: for a symbolic link, the file that the link names.

    Raises:
        MasktoolError: the path is that of a directory, a device, a FIFO or anything else that is no ordinary file.
    """
    target = Path(target)
    try:
        found = Path(os.path.realpath(target)) if target.is_symlink() else target
        kind = found.stat().st_mode
    except FileNotFoundError:
        return found
    except OSError as error:
        raise cannot_write(target, error) from error
    if not stat.S_ISREG(kind):
        raise MasktoolError(
            f"the output is {describe_mode(kind)}",
            where=target,
            expected="a file",
            fix="choose another with " + parameter("path"),
        )
    return found


def describe_mode(mode: int) -> str:
    """Returns in words the kind of a path that is no ordinary file, by its mode."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


class CannotWriteError(MasktoolError):
    """The operating system refuses to write; no fault of the image at hand, so that a run over many images ends."""


def cannot_write(target: Path, error: OSError) -> CannotWriteError:
    """Returns the error for a target that the operating system refuses to write."""
    return CannotWriteError(
        "cannot write", where=target, got=error.strerror or error, fix="choose another output with " + parameter("path")
    )


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turns an OSError within the block into a MasktoolError about the target."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], *, mode: int = PUBLIC) -> Iterator[Path]:
    """Yields a temporary path in the target's directory and renames it to ``target`` when the block succeeds.

    The bytes are on the disk before the name is. A symbolic link stays, and what it names is replaced.

    Args:
        target: path of the file to write; its directory is made where there is none.
        mode: mode of a new file, less the umask; a file that is replaced keeps its own mode, unless ``mode`` is
            private.

    Raises:
        MasktoolError: the directory cannot be made or written, or the target is no ordinary file.
    """
    target = Path(target)
    place = check_target(target)
    with writing(target):
        place.parent.mkdir(parents=True, exist_ok=True)
    temporary, stack = choose_name(place.parent, place.suffix), contextlib.ExitStack()
    try:  # begins before there is anything: a signal may come between any two steps
        with writing(target):
            lock = make_file(temporary, mode)
        stack.callback(os.close, lock)
        with full_disk(target):
            yield temporary
        with writing(target):
            if mode != PRIVATE and place.exists():
                temporary.chmod(stat.S_IMODE(place.stat().st_mode))
            replace_durably(temporary, place)
    finally:
        clean(temporary)
        stack.close()


@contextlib.contextmanager
def full_disk(target: Path) -> Iterator[None]:
    """Turns the OSError of a disk that takes no more, within the block, into a MasktoolError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise cannot_write(target, error) from error
        raise


@contextlib.contextmanager
def temporary_directory(parent: Path | None = None) -> Iterator[Path]:
    """Yields a directory for the user alone that is removed with all it holds when the block ends.

    Args:
        parent: directory in which the new one is made; None takes the system's directory for temporary files.

    Raises:
        OSError: the directory cannot be made.
    """
    directory = choose_name(Path(tempfile.gettempdir()) if parent is None else parent)
    stack = contextlib.ExitStack()
    try:
        stack.callback(os.close, make_directory(directory))
        yield directory
    finally:
        clean(directory)
        stack.close()


def clean(temporary: Path) -> None:
    """Removes an unfinished file, also where a signal comes meanwhile; one that stays is left to the next run."""
    try:
        discard(temporary)
    except BaseException:
        discard(temporary)
        raise


@contextlib.contextmanager
def atomic_directory(target: Path, *, beside: Path | None = None, replace: bool = False) -> Iterator[Path]:
    """Yields a temporary directory and renames it to ``target`` when the block succeeds: nobody ever sees half of it.

    The bytes are on the disk before the name is. A directory that is replaced is set aside first, so that for a moment
    there is none; it comes back where the new one cannot be named.

    Args:
        target: path of the directory to write; its parent is made where there is none.
        beside: directory, on the same file system, in which the temporary one is made; None takes the target's parent.
        replace: whether a directory of that name is replaced.

    Raises:
        MasktoolError: the directory cannot be made, or there is one that is not to be replaced.
    """
    parent = target.parent if beside is None else beside
    with contextlib.ExitStack() as stack:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            private = stack.enter_context(temporary_directory(parent))
            made = private / "new"
            made.mkdir()
        with full_disk(target):
            yield made
        with writing(target):
            for path in sorted(made.rglob("*"), reverse=True):
                synchronise(path)
            synchronise(made)
            name_directory(made, target, private / "old" if replace else None)
            synchronise(target.parent)


def name_directory(made: Path, target: Path, aside: Path | None) -> None:
    """Gives a finished directory its name; one of that name is set aside, or where nothing is to be, an error.

    Another process may name a directory of its own between any two steps: then that one is set aside too.

    Args:
        made: directory that is finished.
        target: path that it gets.
        aside: beginning of the paths to which directories of that name are moved; None to replace none.

    Raises:
        OSError: the directory cannot be named; what was set aside first is back.
    """
    moved: list[Path] = []
    for attempt in range(MOST_WRITERS):
        if aside is None and target.exists():
            break
        if aside is not None:
            with contextlib.suppress(FileNotFoundError):
                moved.append(target.rename(f"{aside}-{attempt}"))
        try:
            made.rename(target)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and aside is not None:
                continue
            if moved:
                moved[-1].rename(target)
            raise
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))


def discard(temporary: Path) -> None:
    """Removes a file, or a directory with all it holds; errors are ignored, so that an earlier one is reported."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_durably(temporary: Path, target: Path) -> None:
    """Renames a file once its bytes are on the disk, and waits until the new name is on the disk too."""
    synchronise(temporary)
    temporary.replace(target)
    synchronise(target.parent)


def synchronise(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names where the file system can tell, are on the disk."""
    if path.is_dir() and sys.platform == "win32":  # its directories cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def choose_name(parent: Path, suffix: str = "") -> Path:
    """Returns a unique path for an unfinished file, in a directory from which leftovers are removed first."""
    remove_leftovers(parent)
    return parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{suffix if len(suffix) <= LONGEST_SUFFIX else ''}"


def make_file(path: Path, mode: int = PUBLIC) -> int:
    """Makes an empty file that this process has locked; returns the lock, a file descriptor.

    Raises:
        OSError: the file cannot be made.
    """
    while True:  # again where another process took it for a leftover before it was locked
        lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        if take_lock(lock, path):
            return lock
        os.close(lock)


def make_directory(path: Path) -> int:
    """Makes an empty directory, for the user alone, locked by this process; returns the lock, a file descriptor.

    Raises:
        OSError: the directory cannot be made.
    """
    while True:
        path.mkdir(0o700)
        try:
            lock = open_directory(path)
        except FileNotFoundError:  # as above
            continue
        if take_lock(lock, path):
            return lock
        os.close(lock)


def open_directory(path: Path) -> int:
    """Returns a file descriptor to lock a directory by; that of the null device where directories cannot be opened."""
    return os.open(os.devnull if sys.platform == "win32" else path, os.O_RDONLY)


def take_lock(lock: int, path: Path) -> bool:
    """Locks a new file or directory; returns False where another process took it for a leftover before that."""
    if sys.platform == "win32":
        return True
    with contextlib.suppress(OSError):  # a file system without locks: nobody can lock it then, nor remove it
        fcntl.flock(lock, fcntl.LOCK_EX)
    return is_still(lock, path)


def is_still(descriptor: int, path: Path) -> bool:
    """Tells whether a path still leads to the file behind an open descriptor."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def remove_leftovers(directory: Path) -> None:
    """Removes the unfinished files that killed runs have left in a directory; never one that a process still writes."""
    if directory.absolute() in _CLEANED or sys.platform == "win32":  # it has no locks that any file takes
        return
    _CLEANED.add(directory.absolute())
    remove_abandoned(directory)


def remove_abandoned(directory: Path) -> None:
    """Removes the unfinished files in a directory that no process writes any more, whenever they were left there."""
    with contextlib.suppress(OSError):  # writing says what is wrong with it
        with os.scandir(directory) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
        for path in found:
            remove_leftover(path)


def remove_leftover(path: Path) -> None:
    """Removes a temporary file or directory of this user unless a process holds its lock."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # gone by now, another user's, or locked: not ours to remove
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.getuid() or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_still(descriptor, path):
                return
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
