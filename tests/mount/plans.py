# SPDX-License-Identifier: Apache-2.0
"""What tests of plans have in common: which plans are in use, and sources of which a scan knows."""

import json
import os

from harness import make_pages, read_file, until, write_file


def plans(mount):
    return mount.status()["plans"]


def turned_out_unique(mount, *names):
    """Read files whole, so that they are known to share nothing from then on."""
    for name in names:
        read_file(mount.path(name))
    released(mount)


def released(mount):
    """Wait for the last release of every file: the kernel sends it some time after the close."""
    until(lambda: not any(plans(mount).values()), 10, lambda: "all released; open are %r" % plans(mount))


def explained(t, path):
    return json.loads(t.run(t.foldctl_command() + ["explain", "--json", path]).stdout)


def scan(t, source):
    """Stamps that are too young to be trusted are not recorded: again until all files are."""
    def known():
        done = json.loads(t.run(t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), source]).stdout)
        return done["unrecorded_files"] == 0
    until(known, 20, "every file's stamp is old enough")


EQUAL = ("a", "b", "sub/c", "d")
# Everybody may read them, and no two of those that are not root's have one owner.
MODES_OF_EQUAL = {"a": (0, 0o644), "b": (0, 0o755), "sub/c": (1002, 0o444), "d": (1003, 0o744)}


def equal_files(t, count=60):
    """A scanned source of files that are equal as a whole, of several owners and modes, and one that nearly is."""
    source = t.make_dir("source")
    t.make_dir("source", "sub")
    content = make_pages(t.rng, count)
    for number, name in enumerate(EQUAL):
        write_file(source + "/" + name, content)
        uid, mode = MODES_OF_EQUAL[name]
        os.chown(source + "/" + name, uid, 1000)
        os.chmod(source + "/" + name, mode)
        os.utime(source + "/" + name, ns=(10 ** 18, 10 ** 18 + number))
    write_file(source + "/nearly", content[:-1] + bytes([content[-1] ^ 1]))
    scan(t, source)
    return source, content
