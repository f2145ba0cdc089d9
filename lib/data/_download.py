"""Fetching one file so that it is whole and right, or not there: resumed, checked against its hash, then renamed.

What has arrived stays beside the target as ``NAME.part``; the next call goes on from there (HTTP ``Range``).  Only a
file with the right hash gets the target's name, in one step (`os.replace`).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lib import runtime

CHUNK = 1 << 18
TIMEOUT = 30
"""Seconds without a word from the server."""
TRIES = 3
"""Attempts at one address, as long as each brings something."""


class DataUnavailable(RuntimeError):
    """Files that are neither on this machine nor to be had; the text says which, and where to put them."""


class DamagedFile(RuntimeError):
    """What was fetched has not the published hash; it is not kept, and no other file is touched."""


class NoRoom(DataUnavailable):
    """The folder of the downloads cannot be written, or its device is full; the text says which and what to do."""


def fault(path: Path, hashes: Mapping[str, str]) -> str | None:
    """What is wrong with a file, in words; None where its hashes are as they should be.

    Args:
        path: of the file.
        hashes: algorithm of `hashlib` -> hex digest, e.g. {"sha256": "9f86..."}.
    """
    try:
        with path.open("rb") as stream:
            for name, expected in hashes.items():
                stream.seek(0)
                found = hashlib.file_digest(stream, name).hexdigest()
                if found != expected:
                    size = path.stat().st_size
                    return f"{path} is damaged: {name} {found} of {size:,} bytes, expected {expected}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return None


def download(urls: Sequence[str], target: Path, hashes: Mapping[str, str], size: int | None = None) -> Path:
    """Fetch a file from the first address that has it whole.

    Args:
        urls: of the same file.
        target: where it belongs; an older file there is replaced, unless its hashes are right.
        hashes: as for `fault`.
        size: in bytes where it is known; the server's word where not.

    Returns:
        The target.

    Raises:
        DamagedFile: what was fetched has another hash; it is removed.
        NoRoom: the device is full or the folder cannot be written.
        DataUnavailable: no address could be reached, or the connection broke; what has arrived is kept.
    """
    part = target.with_name(f"{target.name}.part")
    reasons, damaged = [], False
    with _writing(target.parent), _locked(part) as stream:
        if target.exists() and fault(target, hashes) is None:  # another process was quicker
            return target
        for url in urls:
            try:
                _whole(url, stream, part, hashes, size)
            except (_Broken, http.client.HTTPException) as error:
                reasons.append(f"{url}: {error}")
                damaged |= isinstance(error, _Wrong)
                continue
            os.fsync(stream.fileno())
            os.replace(part, target)
            return target
        kept = stream.seek(0, os.SEEK_END)
    text = f"{target.name} could not be fetched: {'; '.join(reasons)}"
    if damaged:
        raise DamagedFile(f"{text}; it was not kept")
    raise DataUnavailable(text + (f"; {kept:,} bytes are kept, call again to go on from there" if kept else ""))


class _Broken(Exception):
    """The network's fault, as opposed to that of the disk, which raises `OSError` too."""


class _Wrong(_Broken):
    """The address has another file."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Errors of the disk said in words that help."""
    hint = "or set COMPANION_CACHE to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        if name in ("ENOSPC", "EDQUOT"):
            raise NoRoom(f"no space left in {folder} ({error.strerror}): free some, {hint}") from error
        if name in ("EACCES", "EPERM", "EROFS"):
            raise NoRoom(f"no permission to write in {folder} ({error.strerror}): get it, {hint}") from error
        raise NoRoom(f"cannot write in {folder} ({error}): mend it, {hint}") from error


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The half file, open for reading and appending, to one process at a time; it goes where nothing has arrived."""
    while True:
        with part.open("a+b") as stream:
            try:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX)  # freed by the system when the process ends, however it ends
            except ImportError:  # Windows: two at once would spoil the half file, and the hash would show it
                pass
            if not part.exists() or not os.path.samestat(part.stat(), os.fstat(stream.fileno())):
                continue  # whoever held it has renamed it
            try:
                yield stream
            finally:
                if part.exists() and not stream.seek(0, os.SEEK_END):
                    part.unlink()
            return


def _whole(url: str, stream: IO[bytes], part: Path, hashes: Mapping[str, str], size: int | None) -> None:
    """Fetch what is missing and check all of it; where a continued file is wrong, once more from nothing."""
    resumed = stream.seek(0, os.SEEK_END)
    for attempt in range(1, TRIES + 1):
        before = stream.seek(0, os.SEEK_END)
        try:
            _append(url, stream, part, size)
            break
        except (_Broken, http.client.HTTPException):
            stream.flush()
            if attempt == TRIES or stream.seek(0, os.SEEK_END) <= before:
                raise
    stream.flush()
    wrong = fault(part, hashes)
    if wrong:
        stream.truncate(0)
        if not resumed:
            raise _Wrong(wrong.replace(str(part), "the file there"))
        _whole(url, stream, part, hashes, size)


def _append(url: str, stream: IO[bytes], part: Path, size: int | None) -> None:
    """Fetch what is missing at the end of the half file, or everything where the server cannot continue."""
    have = stream.tell()
    if size is not None and have >= size:  # only its hash is left to look at
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies behind what we have: it is whole, or not this file
            return
        raise _Broken(f"{error.code} {error.reason}") from error
    except OSError as error:  # no network, no such host, a timeout
        raise _Broken(str(getattr(error, "reason", error))) from error
    with response:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            stream.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        whole = have + int(length) if length else size
        free = shutil.disk_usage(part.parent).free
        if whole and whole - have > free:
            raise OSError(errno.ENOSPC, f"{whole - have:,} bytes needed, {free:,} free")
        steps = -(-(whole - have) // CHUNK) if whole else None
        for chunk in runtime.progress(_chunks(response), f"{part.stem} (256 KiB each)", steps):
            stream.write(chunk)
    got = stream.seek(0, os.SEEK_END)
    if whole and got < whole:
        raise _Broken(f"the connection ended after {got:,} of {whole:,} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except OSError as error:
            raise _Broken(str(error)) from error
        if not chunk:
            return
        yield chunk
