"""A place named by a path or a URI; every file operation on it goes through pyarrow.fs."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from raytrain.errors import ConfigError, StorageError


@dataclass(frozen=True)
class Location:
    """A folder or file on a local disk or an object store. Immutable, hashable, cheap to send between processes."""

    uri: str

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Location:
        """A local path becomes absolute; `scheme://…` URIs other than file:// are kept as they are.

        Raises ConfigError where nothing stands behind the scheme.
        """
        name = os.fspath(text)
        if name.startswith("file://"):
            name = name.removeprefix("file://")
        if "://" in name:
            if not name.partition("://")[2].strip("/"):
                raise ConfigError(
                    f"`{name}` names no place",
                    why="the bucket behind :// is missing",
                    fix="write for example s3://bucket/folder",
                )
            return cls(name.rstrip("/"))
        return cls(str(Path(name).expanduser().absolute()))

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @property
    def path(self) -> Path:
        """The local path; only for a local location."""
        if not self.is_local:
            raise StorageError(
                f"{self} is not on a local disk", why="it is a URI", fix="copy it to a local folder"
            )
        return Path(self.uri)

    @property
    def name(self) -> str:
        return PurePosixPath(self.uri).name

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.uri.rstrip('/')}/{name}")

    @property
    def parent(self) -> Location:
        return Location(self.uri.rsplit("/", 1)[0])

    def _filesystem(self) -> tuple[Any, str]:
        from pyarrow import fs

        if self.is_local:
            return fs.LocalFileSystem(), self.uri
        try:
            filesystem, path = fs.FileSystem.from_uri(self.uri)
        except (ValueError, OSError) as error:
            raise StorageError(
                f"{self}: storage cannot be reached",
                why=str(error),
                fix="check the scheme (file://, s3://, gs://), the bucket and the credentials in the environment",
            ) from error
        return filesystem, path

    def exists(self) -> bool:
        if self.is_local:
            return self.path.exists()
        from pyarrow import fs

        filesystem, path = self._filesystem()
        with translated_errors(self, "read"):
            return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)

    def children(self) -> list[Location]:
        """Direct children, sorted by name; empty where the folder does not exist."""
        if self.is_local:
            names = sorted(child.name for child in self.path.iterdir()) if self.path.is_dir() else []
            return [self / name for name in names]
        from pyarrow import fs

        filesystem, path = self._filesystem()
        with translated_errors(self, "list"):
            found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted((self / PurePosixPath(info.path).name for info in found), key=lambda child: child.name)

    def size_bytes(self) -> int:
        """What the file, or all files below the folder, take; 0 where there is nothing."""
        from pyarrow import fs

        filesystem, path = self._filesystem()
        with translated_errors(self, "list"):
            found = [filesystem.get_file_info(path)]
            if found[0].type == fs.FileType.Directory or not self.is_local:
                found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
        return sum(one.size or 0 for one in found if one.type == fs.FileType.File)

    def files(self) -> list[StoredFile]:
        """The files below this folder, or this one file, sorted by name; empty where there is nothing."""
        from pyarrow import fs

        filesystem, path = self._filesystem()
        with translated_errors(self, "list"):
            here = filesystem.get_file_info(path)
            if here.type == fs.FileType.File:
                return [StoredFile(self, self.name, here.size, here.mtime_ns or 0)]
            below = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
        found = [one for one in below if one.type == fs.FileType.File]
        names = [str(PurePosixPath(one.path).relative_to(path)) for one in found]
        return sorted(
            (
                StoredFile(self / name, name, one.size, one.mtime_ns or 0)
                for name, one in zip(names, found, strict=True)
            ),
            key=lambda one: one.name,
        )

    def download_to(self, path: Path) -> None:
        """Copy this one file to a local disk, of which only a part need fit in memory."""
        filesystem, own = self._filesystem()
        with (
            translated_errors(self, "read"),
            filesystem.open_input_stream(own) as stream,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(stream, target, 2**20)

    def read_bytes(self) -> bytes:
        with translated_errors(self, "read"):
            if self.is_local:
                return self.path.read_bytes()
            filesystem, path = self._filesystem()
            with filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())

    def write_bytes(self, content: bytes) -> None:
        """Write so that a reader sees the old content or the new, never a part."""
        with translated_errors(self, "write"):
            if self.is_local:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self.path, content)
                return
            filesystem, path = self._filesystem()
            with filesystem.open_output_stream(path) as stream:
                stream.write(content)

    def copy_files_to(self, target: Location) -> None:
        """Copy this folder's files below `target`, which is made."""
        from pyarrow import fs

        source_fs, source_path = self._filesystem()
        target_fs, target_path = target._filesystem()
        with translated_errors(target, "write"):
            target_fs.create_dir(target_path, recursive=True)
            fs.copy_files(
                source_path, target_path, source_filesystem=source_fs, destination_filesystem=target_fs
            )

    def delete(self) -> None:
        """Delete the folder with all that is in it; nothing happens where it is not there."""
        with translated_errors(self, "delete"):
            if self.is_local:
                if self.path.is_dir():
                    shutil.rmtree(self.path)
                else:
                    self.path.unlink(missing_ok=True)
                return
            from pyarrow import fs

            filesystem, path = self._filesystem()
            kind = filesystem.get_file_info(path).type
            if kind == fs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == fs.FileType.File:
                filesystem.delete_file(path)


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it."""

    location: Location
    name: str
    """Below the folder that was listed."""
    size_bytes: int
    modified_ns: int


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, fsync, then rename over it."""
    # Random: of two threads, or two containers with one disk, both may be the process of this number.
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.tmp")
    try:
        with staged.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_WHERE = "storage.path of a recipe, --registry of a registry"
_NO_FOLDER = f"a file stands where a folder is needed; name another place ({_WHERE})"
_NO_RIGHT = f"give this user the right to it, or name another place ({_WHERE})"
_REMEDIES = {
    errno.ENOSPC: f"free space there or name a larger disk ({_WHERE}); what was saved before is whole",
    errno.EDQUOT: f"raise the quota or name another disk ({_WHERE}); what was saved before is whole",
    errno.EROFS: f"the disk is mounted read-only; name a place that can be written ({_WHERE})",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
}


@contextmanager
def translated_errors(location: Location | Path, action: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError with the remedy for its cause."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, location, action) from error


def storage_error(error: OSError, location: Location | Path, action: str) -> StorageError:
    """The same fault with the place and the remedy for its cause."""
    number = error.errno or _number_in_words(error)
    return StorageError(
        f"cannot {action} {error.filename or location}",
        why=os.strerror(number) if number else str(error),
        fix=_REMEDIES.get(number, "check that the storage is reachable, then run the same command again"),
    )


def _number_in_words(error: OSError) -> int:
    """Of a folder's copy, whose error has words for each file and no number of its own; 0 where none stands there."""
    found = re.search(r"\[Errno (\d+)\]", str(error)) if isinstance(error, shutil.Error) else None
    return int(found[1]) if found else 0


def is_storage_fault(error: OSError) -> bool:
    """Whether the place it names is at fault; a file that is not there may as well be a fault of ours."""
    return error.filename is not None and error.errno in _REMEDIES.keys() - {errno.ENOENT}
