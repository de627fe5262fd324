# SPDX-License-Identifier: Apache-2.0
"""The standing mount: one mount that lives through many rounds, is watched, audited, and killed.

Its files share most of their pages: the bystanders, which nobody ever changes, and the files that the
mixes and the writers of a crash change. Whatever happens to those, a bystander that changes is the worst
of failures, and is looked for all the time.
"""

import hashlib
import json
import mmap
import os
import random
import time

import harness
import processes
from harness import MIB, PAGE, Failure, check, equal

BYSTANDERS = ("bystander-0", "bystander-1")
COUNTERS = ("hits", "misses", "readahead", "breaks", "merges", "evictions", "fills_discarded",
            "digest_collisions", "bypassed", "adopted")
AUDIT_SECONDS = 120
# Those that say what a life was like; no paths.
OPTIONS = ("pool=", "maps=", "window=", "transport=")
# What a daemon may grow by, once it is warm: malloc's arenas, and what the sanitizers keep.
ALLOWANCE = {"asan": 768 * MIB, "tsan": 1536 * MIB}


class Memory:
    """First, last and highest of what a daemon takes, from when it is warm on."""

    def __init__(self, mount):
        self.mount = mount
        self.warm = False
        self.samples = 0
        self.first = self.last = None
        self.peak = {}
        self.allowance = ALLOWANCE.get(mount.t.preset, 96 * MIB)

    def sample(self):
        status = self.mount.status()
        now = {"resident_bytes": self.mount.daemon_memory(),
               "counted_bytes": status["memory"]["total_bytes"],
               "window_bytes": status["window"]["bytes"]}
        self.samples += 1
        self.last = now
        for name, value in now.items():
            self.peak[name] = max(value, self.peak.get(name, 0))
        self._judge(now)

    def _judge(self, now):
        if not self.warm:
            return
        for name, allowance in (("resident_bytes", self.allowance), ("counted_bytes", 32 * MIB)):
            limit = self.first[name] * 3 // 2 + allowance
            check(now[name] <= limit, "%s of the daemon grew from %d to %d, the limit is %d" % (
                name, self.first[name], now[name], limit))

    def settle(self):
        """Once nothing happens the window is within its budget. While mapped pages are written it may be
        above: the trimmer waits for the kernel to write them back."""
        def is_within():
            window = self.mount.status()["window"]
            return window["bytes"] <= window["budget_bytes"]

        harness.until(is_within, 60 * self.mount.t.patience, "the window is within its budget")
        self._after_first_mix()

    def _after_first_mix(self):
        """From now on it may not grow."""
        self.sample()
        if not self.warm:
            self.warm = True
            self.first = self.last

    def result(self):
        options = [option for option in self.mount.options if option.startswith(OPTIONS)]
        return {"options": ",".join(options), "samples": self.samples,
                "first": self.first or self.last, "last": self.last, "peak": self.peak}


class Standing:
    """The mount, its source, and what is counted over all its lives."""

    def __init__(self, t, rng, transports, totals):
        self.t = t
        self.rng = rng
        self.transports = transports
        self.totals = totals
        self.source = t.make_dir("source")
        self.lives = []
        self.scanned = False  # before this life
        self.replaced = False  # a process that served was killed in this life
        self.mount = None
        self.memory = None
        self.audited = 0.0
        size = t.scaled(24, 6) * MIB
        self.base = harness.make_pages(rng, size // PAGE, distinct=size // PAGE // 2)
        for name in BYSTANDERS:
            harness.write_file(os.path.join(self.source, name), self.base)
        harness.sync_source(self.source)

    # -- lives

    def start(self):
        """A new life: the next transport, other budgets, the same files. Half of all lives know from a scan what
        their files have in common: each transport in turn."""
        transport = self.transports[len(self.lives) % len(self.transports)]
        self.scanned = (len(self.lives) + 1) // 2 % 2 == 1
        if self.scanned:
            self.scan()
        options = ["pool=%dM" % self.t.scaled(16, 4), "maps=1M",
                   "window=" + self.rng.choice(("4M", "1M", "0"))]
        self.replaced = False
        self.mount = self.t.mount(self.source, options, name="mnt-%d" % len(self.lives), transport=transport)
        self.mount.expect_log("opened behind the mount")
        self.memory = Memory(self.mount)
        self.lives.append(self.memory)

    def scan(self):
        command = self.t.foldctl_command() + ["scan", "--state=" + self.t.path("state"), self.source]
        self.t.run(command, timeout=AUDIT_SECONDS * self.t.patience)
        self.totals["scans"] += 1

    def count(self):
        """Add what this life has counted, before it ends."""
        status = self.mount.status()
        # What was counted before a death is lost with its process.
        check(status["adopted"] > 0 or not self.scanned or self.replaced, "no page was adopted, though a scan knows of clones")
        for name in COUNTERS:
            self.totals[name] += status[name]

    def stop(self):
        """In order: the daemon must end with status 0 and have logged nothing."""
        self.memory.sample()
        self.count()
        self.mount.unmount()
        self.check_reports()

    def kill(self):
        """kill -9, whatever it is at."""
        self.count()
        self.memory.sample()
        self.mount.kill()
        self.totals["kills"] += 1

    def replace(self):
        """kill -9 of the process that serves. Where another one takes over, nobody notices anything but a pause."""
        serving = self.mount.serving_pid()
        # One that dies within a second of its start counts as one that always does.
        if serving == self.mount.process.pid or processes.age_of(serving) < 1.1:
            return
        if not self.replaced:
            self.mount.expect_log("has died of signal 9: another one takes over")
        self.replaced = True
        os.kill(serving, signal.SIGKILL)
        harness.until(lambda: self.mount.serving_pid() not in (serving, self.mount.process.pid), 60 * self.t.patience,
                      "another process serves")
        # The kernel cannot answer this itself: it waits until that one answers.
        check(not os.path.exists(self.mount.path("not-there")), "a name that is not there")
        self.totals["takeovers"] += 1

    # -- watching

    def watch(self):
        """Alive, silent, within bounds; audited every few seconds."""
        check(self.mount.process.poll() is None, "foldfs ended with status %s; its log: %s" % (
            self.mount.process.returncode, self.mount.log_text()[-4000:]))
        self.mount.check_log()
        self.check_reports()
        self.memory.sample()
        if time.monotonic() - self.audited > 3:
            self.audit()

    def check_reports(self):
        for name in sorted(os.listdir(self.t.directory)):
            if name.startswith("sanitizer."):
                with open(self.t.path(name), errors="replace") as report:
                    raise Failure("sanitizer report:\n" + report.read()[:8000])

    def audit(self):
        """foldctl audit beside whatever goes on. 1 is a difference; all but 0 is a failure."""
        command = self.t.foldctl_command() + ["audit", "--json", self.mount.point]
        done = self.t.run(command, timeout=AUDIT_SECONDS * self.t.patience, status=None)
        check(done.returncode == 0, "foldctl audit: status %d: %s%s" % (
            done.returncode, done.stdout[-6000:], done.stderr[-2000:]))
        json.loads(done.stdout)
        self.totals["audits"] += 1
        self.audited = time.monotonic()

    # -- files

    def make_clones(self, names):
        """Copies of the bystanders, made through the mount, and read, so that they are shared."""
        for name in names:
            harness.write_file(self.mount.path(name), self.base)
            equal(hash_of(self.mount.path(name)), hash_of_bytes(self.base), name + ", just written")

    def check_files(self):
        """Through the mount every file is what the source has; a bystander is what it always was."""
        for name in sorted(os.listdir(self.source)):
            expected = hash_of(os.path.join(self.source, name))
            equal(hash_of(self.mount.path(name)), expected, name + ": hash through the mount, and of the source")
            if name in BYSTANDERS:
                equal(expected, hash_of_bytes(self.base), name + " has changed")

    def read_bystanders(self, seed, stop, reads):
        """A process of its own: random pages, by pread and through a mapping, until STOP says so."""
        rng = random.Random(seed)
        files = [open(self.mount.path(name), "rb", buffering=0) for name in BYSTANDERS]
        maps = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in files]
        while not stop[0]:
            which, at = rng.randrange(len(files)), rng.randrange(len(self.base) - 1)
            length = rng.choice((1, 100, PAGE, 5 * PAGE))
            found = (os.pread(files[which].fileno(), length, at) if rng.random() < 0.5
                     else maps[which][at:at + length])
            equal(found, self.base[at:at + length], "%s at byte %d" % (BYSTANDERS[which], at))
            reads[0] += 1


def hash_of_bytes(content):
    return hashlib.blake2b(content).hexdigest()


def hash_of(path):
    digest = hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(MIB):
            digest.update(part)
    return digest.hexdigest()


class Shared:
    """A few 64-bit numbers that child processes and we see alike."""

    def __init__(self, count):
        self.memory = mmap.mmap(-1, 8 * count)
        self.view = memoryview(self.memory).cast("Q")

    def __getitem__(self, index):
        return self.view[index]

    def __setitem__(self, index, value):
        self.view[index] = value
