# SPDX-License-Identifier: Apache-2.0
"""The scenario metadata: create, stat, open, chmod, list and unlink many files.

"stat, first" follows a drop of the kernel's names and attributes, so each file is looked up; "stat, again"
is answered by the kernel, which both servers allow for a day. Every round works on a directory of its own.
"as a user": a client that is not root against one that is, on foldfs: what acting as the caller costs.
"""

import json
import os
import resource
import shutil

from . import machine, others
from .peers import Foldfs, FoldfsForUser, Native, PassthroughHp
from .timed import Turns

FILES = 100_000
SPARE_DESCRIPTORS = 2_000  # directories of the files, and what a server has open besides
QUICK_FILES = 5_000
ROUNDS = 5
LIMIT = 0.95
DAY = 86400

# Name, what is done, how often: what the kernel answers is over in a moment.
CASES = (("create", "create", 1), ("stat, first", "stat", 1), ("stat, again", "stat", 10), ("open", "open", 1),
         ("chmod", "chmod", 1), ("list", "list", 1), ("unlink", "unlink", 1))
# Of what the kernel has to ask for first.
COLD = ("create", "stat, first", "list")


class Names:
    """Work for Turns: one case over all files."""

    metric = "ops_per_s"
    compare_sums = False

    def __init__(self, case, op, passes, files):
        self.case = f"{case}, {files:,} files"
        self.cold = case in COLD
        self.op = op
        self.passes = passes
        self.files = files

    def run(self, bench, served, names, _seed):
        command = [bench.tool("names"), self.op, os.path.join(served.path, names[0]), str(self.files),
                   str(self.passes)] + ([str(served.uid)] if served.uid else [])
        return json.loads(machine.run(command, 600, served.abort))


def _round(bench, all_turns, subject, directory, seed):
    """All cases in their order, in a new directory NAMES[0] of the source."""
    work = os.path.join(directory, all_turns[0].names[0])
    os.mkdir(work)
    os.chown(work, subject.uid, subject.uid)
    try:
        with bench.started([subject]):
            for turns in all_turns:
                if turns.work.cold:
                    machine.drop_caches()
                turns.take(subject, seed)
    finally:
        shutil.rmtree(work)


def metadata(bench):
    """See the head of this file."""
    if not machine.is_root():
        bench.note("metadata: needs root, to drop the caches")
        return
    directory = os.path.join(bench.cache, "bench", "names")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    try:
        _measure(bench, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _files_for_peers(bench):
    """passthrough_hp keeps a descriptor for each file that it was asked of: where a process may have fewer than
    there are files to be, everybody gets fewer."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if not bench.wants("passthrough_hp") or most > FILES + SPARE_DESCRIPTORS:
        return FILES
    return max((most - SPARE_DESCRIPTORS) // 1000 * 1000, QUICK_FILES)


def _measure(bench, directory):
    count = min(QUICK_FILES if bench.quick else FILES, _files_for_peers(bench))
    all_turns = [Turns(bench, "metadata", Names(case, op, passes, count), ["files"])
                 for case, op, passes in CASES]
    subjects = [Native(directory)] if bench.wants("native") else []
    for transport in bench.transports:
        for kind in (Foldfs, FoldfsForUser):
            subjects.append(kind(bench, directory, transport, pool="64M", attr_timeout=DAY, entry_timeout=DAY))
        if bench.wants("passthrough_hp"):
            subjects.append(PassthroughHp(bench, directory, transport, "cached"))
    beside = [kind(bench, directory) for name, kind in (("bindfs", others.Bindfs), ("mergerfs", others.Mergerfs))
              if not bench.quick and bench.wants(name)]
    for seed in range(1, ROUNDS + 1):
        for subject in subjects + (beside if seed == 1 else []):
            _round(bench, all_turns, subject, directory, seed)
    state = f"{ROUNDS} rounds; one of bindfs and mergerfs"
    for turns in all_turns:
        for transport in bench.transports:
            turns.judge(transport, "passthrough_hp", transport, LIMIT, state)
            turns.judge(transport, "native", None, None, state)
            turns.judge(transport, "foldfs", transport, LIMIT, state, ours="as a user")
        for subject in beside:
            turns.judge(bench.transports[-1], subject.name, subject.transport, None, state)


SCENARIOS = {"metadata": metadata}
