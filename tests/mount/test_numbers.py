# SPDX-License-Identifier: Apache-2.0
"""Inode numbers: one for each object, however many file systems are below the source."""

import os

from harness import check, equal, read_file, test, write_file

SUBVOLUMES = 24


def numbers_below(top):
    """Path below the top -> inode number, as stat says, of all that is there."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = os.lstat(path).st_ino
    return found


def check_distinct(numbers, links=()):
    """No two have one number, but for the names that are links of one file."""
    owners = {}
    for path, number in numbers.items():
        owners.setdefault(number, []).append(path)
    shared = [sorted(paths) for paths in owners.values() if len(paths) > 1]
    equal(sorted(shared), sorted(sorted(names) for names in links), "names with one number")


def check_lists(top, numbers):
    """Directories list the numbers that stat gives; with the look-ups of a first list and without."""
    for _ in range(3):
        for directory, _, _ in os.walk(top):
            for entry in os.scandir(directory):
                path = os.path.relpath(entry.path, top)
                equal(entry.inode(), numbers[path], "number of %s in the list" % path)


def subvolumes(t):
    source = t.loop_file_system("btrfs", size=400 << 20)
    t.run(["btrfs", "-q", "subvolume", "create", source + "/00"])
    write_file(source + "/00/one", b"base")
    os.link(source + "/00/one", source + "/00/two")
    write_file(source + "/00/file", b"base")
    os.mkdir(source + "/00/sub")
    for i in range(1, SUBVOLUMES):
        t.run(["btrfs", "-q", "subvolume", "snapshot", source + "/00", "%s/%02d" % (source, i)])
        write_file("%s/%02d/one" % (source, i), b"content %d" % i)
    t.run(["btrfs", "-q", "subvolume", "snapshot", source + "/00", source + "/07/sub/inner"])
    return source


@test(timeout=90)
def subvolumes_have_numbers_of_their_own(t):
    """24 subvolumes with the same inode numbers: copies are right, and numbers stay what they are."""
    source = subvolumes(t)
    mount = t.mount(source)
    numbers = numbers_below(mount.point)
    check_distinct(numbers, [["%02d/one" % i, "%02d/two" % i] for i in range(SUBVOLUMES)] +
                   [["07/sub/inner/one", "07/sub/inner/two"]])
    check_lists(mount.point, numbers)
    t.run(["tar", "cf", t.path("copy.tar"), "-C", mount.point, "."])
    t.run(["tar", "xf", t.path("copy.tar"), "-C", t.make_dir("copy")])
    for path in numbers:
        if not os.path.isdir(source + "/" + path):
            equal(read_file(t.path("copy", path)), read_file(source + "/" + path), "copy of " + path)
    mount.unmount()

    # The devices of subvolumes are numbered as they are met: here from the last one on, and others.
    image = t.path("loop.img")
    t.run(["umount", source])
    t.tmpfs(name="between")
    t.run(["mount", "-o", "loop", image, source])
    for i in reversed(range(SUBVOLUMES)):
        os.stat("%s/%02d/one" % (source, i))
    again = t.mount(source, name="again")
    for path in sorted(numbers, reverse=True):
        equal(os.lstat(again.point + "/" + path).st_ino, numbers[path], "number of %s the next time" % path)
    again.unmount()


@test(timeout=60)
def file_systems_mounted_below_have_numbers_of_their_own(t):
    """20 tmpfs below the source, all of whose files have the same numbers, on a mount point each."""
    source = t.make_dir("source")
    write_file(source + "/own", b"own")
    for i in range(20):
        point = t.tmpfs(name="source/%02d" % i)
        write_file(point + "/file", b"%d" % i)
        os.mkdir(point + "/directory")
    mount = t.mount(source)
    numbers = numbers_below(mount.point)
    check_distinct(numbers)
    check_lists(mount.point, numbers)
    equal(numbers["own"], os.stat(source + "/own").st_ino, "number of the source's own file")
    mount.unmount()
    again = t.mount(source, name="again")
    for path in sorted(numbers, reverse=True):
        equal(os.lstat(again.point + "/" + path).st_ino, numbers[path], "number of %s the next time" % path)


def layers(t, options):
    """An overlayfs of nine layers, on a file system each, with a file in each, and a tmpfs below it."""
    lower = [t.tmpfs(name="layer-%d" % i) for i in range(8)]
    for i, layer in enumerate(lower):
        write_file("%s/file-%d" % (layer, i), b"layer %d" % i)
        os.mkdir("%s/directory-%d" % (layer, i))
        os.makedirs(layer + "/merged")
        write_file("%s/merged/file-%d" % (layer, i), b"layer %d" % i)
    upper = t.tmpfs(name="upper")
    os.mkdir(upper + "/files")
    os.mkdir(upper + "/work")
    point = t.make_dir("overlay")
    result = t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s/files,workdir=%s/work,%s" % (
        ":".join(lower), upper, upper, options), point], status=None)
    if result.returncode:
        t.skip("no such overlayfs here: " + result.stderr.strip())
    t.at_end(lambda: t.run(["umount", point]))
    os.mkdir(point + "/below")
    write_file(t.tmpfs(name="overlay/below") + "/file", b"below")
    return point


@test(timeout=60, variants={"xino": "xino=on", "no-xino": "xino=off"})
def numbers_of_an_overlayfs(t, options):
    """It uses the uppermost bits of its numbers, or shows devices of its layers; what is written moves to another."""
    source = layers(t, options)
    mount = t.mount(source)
    numbers = numbers_below(mount.point)
    check_distinct(numbers)
    check_lists(mount.point, numbers)
    for path, number in numbers.items():
        full = os.path.join(mount.point, path)
        if os.path.isfile(full):
            t.run(t.foldctl_command() + ["explain", full])
            with open(full, "ab") as file:
                file.write(b"more")
                os.fstat(file.fileno())
            check(read_file(full).endswith(b"more"), "%s shows what was written" % path)
    check_distinct(numbers_below(mount.point))
    check_lists(mount.point, numbers_below(mount.point))
    equal(mount.audit()["files_unreachable"], 0, "files that the audit does not find in the source")
