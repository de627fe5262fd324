# SPDX-License-Identifier: Apache-2.0
"""A source that is an overlayfs: links that it parts when one of them is written, and links that it does not."""

import os

from harness import MIB, PAGE, check, equal, read_file, test, write_file

PLANS = {
    "window": ["passthrough_max=0"],
    "direct": ["passthrough_max=0,window=0"],
    "passthrough": ["passthrough=*,source-stacked"],
    "anew": ["passthrough_max=0,entry_timeout=0,attr_timeout=0"],
}


def overlay(t, options, content):
    """Two names of one file in the lower layer: first, second."""
    lower, upper, point = t.tmpfs(name="lower"), t.tmpfs(name="upper"), t.make_dir("overlay")
    write_file(lower + "/first", content)
    os.link(lower + "/first", lower + "/second")
    for name in ("files", "work"):
        os.mkdir(upper + "/" + name)
    result = t.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s/files,workdir=%s/work,%s" % (
        lower, upper, upper, options), point], status=None)
    if result.returncode:
        t.skip("no such overlayfs here: " + result.stderr.strip())
    t.at_end(lambda: t.run(["umount", point]))
    return point


def overwrite(path):
    with open(path, "r+b") as file:
        file.seek(5 * PAGE)
        file.write(b"n" * PAGE)


def append(path):
    with open(path, "ab") as file:
        file.write(b"n" * PAGE)


def replace(path):
    write_file(path, b"n" * 3 * PAGE)


def cut(path):
    os.truncate(path, 2 * PAGE)


def cut_and_append(path):
    cut(path)
    append(path)


CHANGES = {function.__name__: function for function in (overwrite, append, replace, cut, cut_and_append)}


def part(t, options, change, name):
    other = "second" if name == "first" else "first"
    old = t.rng.randbytes(MIB)
    source = overlay(t, "index=off", old)
    mount = t.mount(source, options)
    for each in (name, other):
        os.stat(mount.point + "/" + each)
    # Who has it open already sees its first page before the change, and the rest after it.
    with open(mount.point + "/" + name, "rb") as early, open(mount.point + "/" + other, "rb") as apart:
        equal(os.pread(early.fileno(), PAGE, 0), old[:PAGE], "the first page")
        change(mount.point + "/" + name)
        for page in range(0, MIB, PAGE):
            os.pread(early.fileno(), PAGE, page)
            equal(os.pread(apart.fileno(), PAGE, page), old[page:page + PAGE], "%s, by an old descriptor" % other)
    new = read_file(source + "/" + name)
    check(new != old, "the change is in the source, under the name %s" % name)
    equal(read_file(source + "/" + other), old, "%s in the source" % other)
    for _ in range(2):
        equal(read_file(mount.point + "/" + name), new, name + " by the mount")
        equal(read_file(mount.point + "/" + other), old, other + " by the mount")


@test(timeout=60, variants={"%s.%s" % (plan, change): (PLANS[plan], CHANGES[change])
                            for plan in PLANS for change in CHANGES})
def links_are_parted_by_a_write(t, how):
    """Without an index what is written by one name of a lower file is in that name alone, as in the source."""
    options, change = how
    part(t, options, change, "first")


@test(timeout=60, variants=CHANGES)
def links_are_parted_by_a_write_to_the_other(t, change):
    """The same by the name that was looked up last."""
    part(t, PLANS["window"], change, "second")


def check_joined(t, mount, source, first, second):
    with open(mount.point + "/" + first, "r+b") as one, open(mount.point + "/" + second, "r+b") as two:
        for round_ in range(20):
            content = t.rng.randbytes(PAGE)
            os.pwrite((one, two)[round_ % 2].fileno(), content, 7 * PAGE)
            equal(os.pread((two, one)[round_ % 2].fileno(), PAGE, 7 * PAGE), content, "by the other name")
    stats = [os.stat(mount.point + "/" + name) for name in (first, second)]
    equal([stat.st_nlink for stat in stats], [2, 2], "links")
    equal(stats[0].st_ino, stats[1].st_ino, "number of both names")
    equal(read_file(source + "/" + second), read_file(source + "/" + first), "in the source")


@test(timeout=60, variants=PLANS)
def links_of_the_upper_layer_stay_one_file(t, options):
    """What has two names there is one file: what is written by one is read by the other at once."""
    source = overlay(t, "index=off", b"")
    write_file(source + "/third", t.rng.randbytes(MIB))
    os.link(source + "/third", source + "/fourth")
    check_joined(t, t.mount(source, options), source, "third", "fourth")


@test(timeout=60)
def links_are_made_of_a_lower_file(t):
    """A link to a file of the lower layer, made through the mount: copied up, and one file."""
    source = overlay(t, "index=off", t.rng.randbytes(MIB))
    mount = t.mount(source, PLANS["window"])
    read_file(mount.point + "/first")
    os.link(mount.point + "/first", mount.point + "/third")
    check_joined(t, mount, source, "first", "third")
    old = read_file(source + "/second")
    check(read_file(source + "/first") != old, "the third name has changed the first alone")
    equal(read_file(mount.point + "/second"), old, "the second name")


@test(timeout=60)
def links_stay_one_file_with_an_index(t):
    """With index=on overlayfs keeps the names of a lower file together, and so does the mount."""
    source = overlay(t, "index=on", t.rng.randbytes(MIB))
    mount = t.mount(source, PLANS["window"])
    check_joined(t, mount, source, "first", "second")
