# SPDX-License-Identifier: Apache-2.0
"""The files that are read and written: real images, clones of them, synthetic files, a scratch copy."""

import hashlib
import json
import os
import random
import shutil
import subprocess

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
        self.names = sorted(names, key=lambda name: (name.startswith("second-"), "clone" in name, name))
        self.originals = [name for name in self.names if "clone" not in name and not name.startswith("second-")]

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


def key_of(paths, more=""):
    """A name for these files as they are now: others have another."""
    key = hashlib.sha256()
    key.update(more.encode())
    for path in paths:
        st = os.stat(path)
        key.update(f"{path}\0{st.st_size}\0{st.st_mtime_ns}\0".encode())
    return key.hexdigest()[:16]


def count_pages(bench, paths, span):
    """The independent count of what PATHS hold (see unique_pages.c), kept as long as they stay."""
    kept = os.path.join(bench.out_directory, f"count-{key_of(paths, str(span))}.json")
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


# ---- clones that have lived on ------------------------------------------------------------------

CLONE_PAGES = 256  # of its own in each clone
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def copy_file(source, target, reflink=False):
    """A copy with the holes of its source; of the same blocks if REFLINK."""
    how = ["--reflink=always"] if reflink else ["--reflink=never", "--sparse=always"]
    machine.run(["cp", *how, "--", source, target], 600)


def data_pages(path):
    """(first page, pages) of each stretch of PATH that is not a hole."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at, size = 0, os.fstat(fd).st_size
        while at < size:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            yield begin // PAGE, max((at - begin) // PAGE, 1)
    finally:
        os.close(fd)


def content_pages(path):
    """(first page, pages) of each stretch of PATH that has content. What the file system calls data is not the same
    at all times: blocks that were never written are holes until somebody has read them."""
    begin = end = 0
    with open(path, "rb") as file:
        for first, count in data_pages(path):
            for page in range(first, first + count):
                file.seek(page * PAGE)
                if not any(file.read(PAGE)):
                    continue
                if page != end and end > begin:
                    yield begin, end - begin
                begin, end = begin if page == end and end > begin else page, page + 1
    if end > begin:
        yield begin, end - begin


def diverge(path, seed, stretches, pages=CLONE_PAGES):
    """Give PATH some pages of its own, in STRETCHES; the same for the same seed."""
    chance = random.Random(seed)
    weights = [count for _, count in stretches]
    with open(path, "r+b") as file:
        for first, count in chance.choices(stretches, weights, k=pages):
            file.seek((first + chance.randrange(count)) * PAGE)
            file.write(chance.randbytes(PAGE))
        file.flush()
        os.fsync(file.fileno())


def boot_image(bench):
    """The Debian that boots, made now if it is not there."""
    bench.progress("looking for the image that boots (scripts/images --boot)")
    done = subprocess.run([os.path.join(TOP, "scripts", "images"), "--boot"], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        raise BenchError("scripts/images --boot could not make the image")
    return os.path.join(done.stdout.strip().splitlines()[-1], "root.img")


def clone_names(count):
    return [f"clone{number:02}.img" for number in range(count)]


def clones_key(image, more=""):
    """A name for clones of IMAGE as make_clones() makes them."""
    return key_of([image], "by content" + more)


def clones(bench, image, count):
    """The directory of COUNT clones of IMAGE as it is now, beside the other data of the bench."""
    return make_clones(bench, os.path.join(bench.cache, "bench", f"clones-{clones_key(image)}"), image, count)


def make_clones(bench, directory, image, count, reflink=False):
    """COUNT clones of IMAGE in DIRECTORY, each with a few pages of its own; what is there is kept."""
    os.makedirs(directory, exist_ok=True)
    base = image
    if reflink:
        base = os.path.join(directory, "origin.img")
        if not os.path.exists(base):
            copy_file(image, base + ".new")
            os.rename(base + ".new", base)
    stretches = list(content_pages(image))
    for number, name in enumerate(clone_names(count)):
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            bench.progress(f"making {path}")
            copy_file(base, path + ".new", reflink)
            diverge(path + ".new", number, stretches)
            os.rename(path + ".new", path)
    return directory


def more_images(bench, images):
    """A directory of the images and a second clone of each: twice as many as there are. None if it can't be: the
    images are linked, so it has to be on their file system."""
    directory = os.path.join(bench.cache, "bench", "images")
    os.makedirs(directory, exist_ok=True)
    for name in os.listdir(directory):
        if name.removeprefix("second-") not in images.names or _is_stale(images, directory, name):
            os.unlink(os.path.join(directory, name))
    for number, (name, path) in enumerate(zip(images.names, images.paths())):
        linked, second = os.path.join(directory, name), os.path.join(directory, f"second-{name}")
        if not os.path.exists(linked):
            try:
                os.link(path, linked)
            except OSError:
                copy_file(path, linked)
        if not os.path.exists(second):
            bench.progress(f"making {second}")
            copy_file(path, second + ".new")
            diverge(second + ".new", 1000 + number, list(data_pages(path)))
            os.rename(second + ".new", second)
    return Images(bench, directory)


def _copy_differences(original, changed, target):
    """TARGET, which is as ORIGINAL, becomes as CHANGED: only the pages that differ are written."""
    with open(original, "rb") as before, open(changed, "rb") as after, open(target, "r+b") as file:
        while True:
            at, old, new = after.tell(), before.read(MIB), after.read(MIB)
            if not new:
                return
            if old == new:
                continue
            for page in range(0, len(new), PAGE):
                if old[page:page + PAGE] != new[page:page + PAGE]:
                    file.seek(at + page)
                    file.write(new[page:page + PAGE])


def reflink_images(bench, images, directory):
    """The images in DIRECTORY, clones by reflink: they share their blocks, but for the pages that differ."""
    for name, path in zip(images.names, images.paths()):
        target = os.path.join(directory, name)
        if os.path.exists(target):
            continue
        bench.progress(f"making {target}")
        stem = name.removeprefix("second-").replace("-clone", "")
        original = os.path.join(images.directory, stem)
        if stem == name or stem not in images.names:
            copy_file(path, target + ".new")
        else:
            copy_file(os.path.join(directory, stem), target + ".new", reflink=True)
            _copy_differences(original, path, target + ".new")
        os.rename(target + ".new", target)


def _is_stale(images, directory, name):
    made = os.stat(os.path.join(directory, name)).st_mtime
    return os.stat(os.path.join(images.directory, name.removeprefix("second-"))).st_mtime > made


# ---- synthetic files ----------------------------------------------------------------------------

def shared_files(bench, percent, count, size):
    """A directory of COUNT files of SIZE bytes, PERCENT of whose pages are the same in all of them, spread evenly;
    the others are in no other file."""
    directory = os.path.join(bench.cache, "bench", "sharing", f"{percent:03}-{count}-{size >> 20}")
    os.makedirs(directory, exist_ok=True)
    names = [f"file{number}.bin" for number in range(count)]
    for number, name in enumerate(names):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            continue
        bench.progress(f"making {path}")
        common, own = random.Random(1), random.Random(f"{percent} {number}")
        with open(path + ".new", "wb") as file:
            for page in range(size // PAGE):
                same = common.randbytes(PAGE)
                file.write(same if _is_common(page, percent) else own.randbytes(PAGE))
        os.rename(path + ".new", path)
    return directory, names


def _is_common(page, percent):
    """True for PERCENT of any hundred pages in a row."""
    return page * 37 % 100 < percent


def shared_unique_bytes(percent, count, size):
    """What such files hold when every page is counted once."""
    pages = size // PAGE
    common = sum(1 for page in range(pages) if _is_common(page, percent))
    return (common + count * (pages - common)) * PAGE
