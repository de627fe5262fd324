# SPDX-License-Identifier: Apache-2.0
"""Bugs that foldfs-planted has one at a time (planted.c); each must be found.

The table says for each what it stands for and what a round that is to find it is like. A bug of the
pool's books alone shows in no byte: such a one is the audit's to find, or the count's after all files are
gone.
"""

import os
import subprocess
import time

import rounds

ATTEMPTS = 6  # rounds, each with another seed

SIMPLE = {}
# Races: on io_uring misses are read one after the other.
SEVERAL = {"processes": 1, "threads": 4, "transport": "dev"}
DIRECT = {"processes": 1, "threads": 16, "files": 24, "transport": "dev", "options": {"window": "0"}}
SCANNED = {"scan": True}
BEHIND = {"behind": True, "options": {"window": "1M"}}
OWN = {"words": ["passthrough=f[13579]"]}
# Files that are equal as a whole.
OVERLAY = {"kind": "overlay", "processes": 1, "threads": 3, "files": 24}
READ_ONLY = {"kind": "ro", "processes": 1, "threads": 3, "files": 24, "believe": False}

BUGS = {
    "missed_truncate": ("truncate leaves the slots as they were", SIMPLE),
    "cut_page_kept": ("truncate to within a page keeps that page's old bytes", SIMPLE),
    "forgotten_open_trunc": ("O_TRUNC and truncate(2) to 0 leave the slots as they were", SIMPLE),
    "missed_fallocate": ("punch and zero-range leave the slots as they were", SIMPLE),
    "missed_copy": ("copy_file_range leaves the slots as they were", SIMPLE),
    "missed_stream": ("a large write leaves the slots as they were", SIMPLE),
    "lost_break": ("a write leaves the slot at the frame that it shared", SIMPLE),
    "lost_zero": ("a write of zeroes leaves the slot at its frame", SIMPLE),
    "lost_write_back": ("write-back of stores through mappings leaves the slots as they were", SIMPLE),
    "one_page_too_few": ("a write that ends within a page leaves that page's slot", SIMPLE),
    "written_in_place": ("a write changes the frame that others share", SIMPLE),
    "slots_before_source": ("a write sees to the slots first and to the source then", SIMPLE),
    "lost_source_write": ("some writes change the pool and not the source", SIMPLE),
    "stale_fill": ("a fill is published though the page was written meanwhile", SEVERAL),
    "lost_generation": ("a slot is believed though its frame lives another life", SIMPLE),
    "no_grace_period": ("a frame's memory is used again while readers copy it", DIRECT),
    "unverified_sharing": ("pages share for equal digests, unequal bytes", SIMPLE),
    "private_frame_shared": ("a private frame is written in place, but the index knows it", SIMPLE),
    "dirty_tail": ("the frame of a short last page has no zeroes behind the end", SIMPLE),
    "zero_by_its_head": ("a page that begins with zeroes is taken for zero", SIMPLE),
    "double_free": ("a frame is given back to the pool twice", SIMPLE),
    "double_drop": ("a slot drops its user twice", SIMPLE),
    "leaked_user": ("a slot does not drop its user", SIMPLE),
    "foreign_change_unseen": ("an open does not compare the source's stamp", BEHIND),
    "kept_kin": ("what was changed is still taken for what the scan had found", SCANNED),
    "stale_window": ("an open lets the kernel keep what was changed behind the mount", BEHIND),
    "kept_orphan": ("what is known of a file stays when its last name has gone", SIMPLE),
    "two_files": ("a file that is opened twice is taken for two", SIMPLE),
    "kept_after_own": ("what was known of a file stays when it is written in passthrough", OWN),
    "written_object": ("an open for writing gets the file that backs equal ones", OVERLAY),
    "joined_by_writer": ("an open for writing joins the inode of who reads what was", OVERLAY),
    "unawaited_writer": ("the file's next inode does not wait for the writer for whom it is", OVERLAY),
    "class_for_ever": ("a file that was changed is served as one of those that it was equal to", OVERLAY),
    "unchecked_member": ("what backs equal files is not compared with what it was", READ_ONLY),
}

# Wrong books: how they are found, where it is not by a byte.
BOOKS = {"double_drop": "audit", "leaked_user": "audit", "kept_orphan": "leak"}
# That the daemon does not start, or the tool does not, finds nothing.
FINDINGS = ("model", "audit", "leak", "crash", "hang", "sanitizer")

# What no round of the tool does, or too rarely to wait for: the mount test that finds it, and its variant.
ELSEWHERE = {
    "unheeded_report": ("a change that fanotify reports is not heeded", "watch.content_is_followed", []),
    "unseen_lease": ("nobody asks whether a lease is still held", "lease.changed_beside_our_own_changes"),
    "unsaid_opening": ("an open of ours does not say that it has begun",
                       "lease.opened_at_the_same_time_by_clients_alone"),
    "young_stamp": ("a stamp that may be given again is kept", "lease.a_young_stamp_is_not_kept"),
    "lost_flush": ("fsync does not reach the source", "crash.flushed_survives_power_loss", []),
    "lost_drop": ("pages that came back while they were being written stay", "content.dropped_while_being_written"),
    "early_answer": ("a direct write is answered before what was read beside it is gone",
                     "content.read_beside_a_direct_write", ([], os.O_DIRECT)),
    "shared_for_ever": ("an open joins readers whose file was changed since",
                        "equal.equal_file_that_changes_while_it_is_open"),
}


class Found:
    def __init__(self, name):
        self.name = name
        self.how = None  # None: not found
        self.text = ""
        self.operations = 0
        self.seconds = 0.0

    def line(self):
        return "%-22s %-9s %6d operations %5.1f s  %s" % (
            self.name, self.how or "NOT FOUND", self.operations, self.seconds, BUGS[self.name][0])


def daemon_of(build):
    return os.path.join(build, "tests", "torture", "foldfs-planted")


def names_of(build):
    """The bugs that the program has: the table above must have the same."""
    return subprocess.run([daemon_of(build)], env={"FOLDFS_PLANTED": "list"}, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.split()


def config_of(name, seed, transports):
    overrides = {"processes": 1, "threads": 1, "files": 6, "behind": False, "words": [], "scan": False}
    options = {"pool": "1M", "window": "256K", "maps": "1M", "passthrough_max": "0"}
    wanted = dict(BUGS[name][1]) if name else {}
    options.update(wanted.pop("options", {}))
    overrides.update(wanted, options=options)
    overrides.setdefault("kind", "pages")
    return rounds.random_config(seed, transports, 4000, overrides)


def find(preset, build, base, name, seed, transports):
    """Play rounds until the bug is found."""
    place = rounds.Place(preset, build, base, daemon_of(build), name)
    place.leak_seconds = 2
    found = Found(name)
    start = time.monotonic()
    for attempt in range(ATTEMPTS):
        result = rounds.play(place, config_of(name, seed + attempt, transports))
        found.operations += result.operations
        found.text = result.text
        if result.outcome == BOOKS[name] if name in BOOKS else result.outcome in FINDINGS:
            found.how = result.outcome
            break
        if result.outcome != "ok":
            found.text = "%s, not by %s" % (result.outcome, BOOKS.get(name, "what it does"))
            break
    found.seconds = time.monotonic() - start
    return found


def is_healthy(preset, build, base, seed, transports):
    """The same daemon without a bug: nothing may be found. The text of what was, or None."""
    place = rounds.Place(preset, build, base, daemon_of(build))
    result = rounds.play(place, config_of(None, seed, transports))
    return None if result.outcome == "ok" else "%s: %s" % (result.outcome, result.text)
