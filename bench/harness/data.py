# SPDX-License-Identifier: Apache-2.0
"""The files that are read and written: real images, unique files, a scratch copy."""

import hashlib
import json
import os
import shutil

from . import machine
from .machine import BenchError

PAGE = 4096
MIB = 1 << 20


class Images:
    """The images that scripts/images makes: package sets first, then the diverged clones."""

    def __init__(self, bench, directory):
        self.bench = bench
        self.directory = directory
        names = sorted(name for name in os.listdir(directory)
                       if name.endswith((".img", ".raw")) and
                       os.path.isfile(os.path.join(directory, name)))
        if not names:
            raise BenchError(f"no images (*.img) in {directory}")
        self.names = sorted(names, key=lambda name: ("clone" in name, name))
        self.originals = [name for name in self.names if "clone" not in name]

    def paths(self, names=None):
        return [os.path.join(self.directory, name) for name in names or self.names]

    def pairs(self, count):
        """COUNT names, each image followed by its clone where it has one."""
        chosen = []
        for name in self.originals:
            stem = name.rsplit(".", 1)[0]
            chosen.append(name)
            chosen += [other for other in self.names if "clone" in other and
                       other.startswith(stem)]
        return chosen[:count]


def count_pages(bench, paths, span):
    """The independent count of what PATHS hold (see unique_pages.c), kept as long as they stay."""
    key = hashlib.sha256()
    key.update(str(span).encode())
    for path in paths:
        st = os.stat(path)
        key.update(f"{path}\0{st.st_size}\0{st.st_mtime_ns}\0".encode())
    kept = os.path.join(bench.out_directory, f"count-{key.hexdigest()[:16]}.json")
    try:
        with open(kept, encoding="ascii") as file:
            return json.load(file)
    except (OSError, ValueError):
        pass
    count = json.loads(machine.run([bench.tool("unique_pages"), "--span", str(span), *paths], 600))
    with open(kept + ".new", "w", encoding="ascii") as file:
        json.dump(count, file)
    os.rename(kept + ".new", kept)
    return count


def densest_offset(bench, paths, span):
    """Where SPAN bytes have the fewest zero pages: the middle one of what PATHS have each."""
    count = count_pages(bench, paths, span)
    return sorted(file["dense_offset"] for file in count["files"])[len(paths) // 2]


def unique_files(bench, count, size):
    """A directory of COUNT files of SIZE random bytes that share nothing; made once."""
    directory = os.path.join(bench.cache, "bench", "unique")
    os.makedirs(directory, exist_ok=True)
    paths = []
    for number in range(count):
        path = os.path.join(directory, f"unique{number}.bin")
        paths.append(path)
        if os.path.exists(path) and os.path.getsize(path) == size:
            continue
        bench.progress(f"making {path}")
        with open(path + ".new", "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        os.rename(path + ".new", path)
    return directory, paths


class Scratch:
    """Two equal files, cut from an image, to write on; the second stays as it is."""

    def __init__(self, bench, image, offset, size):
        self.directory = os.path.join(bench.cache, "bench", "scratch")
        self.target = os.path.join(self.directory, "a.img")
        self.twin = os.path.join(self.directory, "b.img")
        self.size = size
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        for path in (self.target, self.twin):
            self._copy(image, offset, path)

    def _copy(self, source, offset, target):
        """SIZE bytes from OFFSET, written out in full: no holes and nothing shared on disk."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        out = os.open(target, flags, 0o600)
        try:
            with open(source, "rb") as file:
                file.seek(offset)
                left = self.size
                while left:
                    chunk = file.read(min(left, MIB))
                    if not chunk:
                        raise BenchError(f"{source} is too short")
                    left -= os.write(out, chunk)
            os.fsync(out)
        finally:
            os.close(out)

    def restore(self):
        """The first file is again what the second is, on the same blocks of the disk."""
        self._copy(self.twin, 0, self.target)

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)
