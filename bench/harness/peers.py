# SPDX-License-Identifier: Apache-2.0
"""What serves the files: the source itself, or a FUSE server that is started for the purpose.

A mount is never asked anything by this process itself: what touches it runs in a child under a time
limit, and a child that hangs is freed by aborting the connection.
"""

import json
import os
import shutil
import subprocess
import time

from . import machine
from .machine import BenchError

TRANSPORTS = ("dev", "io_uring")


def mount_device(path):
    """The minor device number of the mount at PATH, which names its FUSE connection, or None."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            words = line.split()
            if words[4].replace("\\040", " ") == path:
                found = int(words[2].split(":")[1])
    return found


def mounts_below(path):
    """Mount points at or below PATH, the innermost first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            point = line.split()[4].replace("\\040", " ")
            if (point + "/").startswith(path.rstrip("/") + "/"):
                found.append(point)
    return found[::-1]


def abort_connection(minor):
    """Make the kernel answer everything that waits for this connection with an error."""
    if minor is None:
        return
    if not os.path.isdir(machine.FUSECTL) or not os.listdir(machine.FUSECTL):
        subprocess.run(["mount", "-t", "fusectl", "none", machine.FUSECTL], check=False,
                       capture_output=True, timeout=20)
    try:
        with open(f"{machine.FUSECTL}/{minor}/abort", "w", encoding="ascii") as switch:
            switch.write("1\n")
    except OSError:
        pass


def _parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _threads_of(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


class Native:
    """The files where they are."""

    name = "native"
    transport = None
    uid = 0

    def __init__(self, source):
        self.path = source

    def start(self):
        pass

    def stop(self):
        pass

    def abort(self):
        pass


class Mount:
    """A FUSE server in the foreground, with its mount point."""

    uid = 0  # whose work is done on it; 0: root's

    def __init__(self, bench, name, transport, command):
        self.bench = bench
        self.name = name
        self.transport = transport
        self.path = os.path.join(bench.work, f"{name}-{bench.next_number()}")
        self.log_path = self.path + ".log"
        # {} stands for the mount point.
        self.command = [self.path if word == "{}" else word for word in command]
        self.process = None
        self.minor = None

    def start(self):
        os.makedirs(self.path, exist_ok=True)
        self.bench.mounted.append(self)
        with open(self.log_path, "ab") as log:
            command = self.bench.in_group(self.command)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while self.minor is None:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start: {self.last_words()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} did not mount: {self.last_words()}")
            time.sleep(0.01)
            self.minor = mount_device(self.path)
        machine.run(["stat", "--", self.path], 20, self.abort)

    def serving_pid(self):
        """The process that serves: of foldfs a child of its keeper, the one that has threads."""
        found = [(_threads_of(pid), int(pid)) for pid in os.listdir("/proc")
                 if pid.isdigit() and _parent_of(pid) == self.process.pid]
        threads, pid = max(found, default=(0, 0))
        return pid if threads > 1 else self.process.pid

    def last_words(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            lines = log.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def abort(self):
        abort_connection(self.minor)

    def stop(self):
        """Unmount and wait for the server's end; by force where it must be."""
        if self not in self.bench.mounted:
            return
        forced = None
        for command in (["umount", self.path], ["umount", "-l", self.path]):
            if mount_device(self.path) is None:
                break
            try:
                done = subprocess.run(command, timeout=60, capture_output=True, check=False)
                forced = forced or (done.stderr.decode().strip() if done.returncode else None)
            except subprocess.TimeoutExpired:
                forced = "umount had no end"
                self.abort()
        forced = self._wait_for_end() or forced
        self.bench.mounted.remove(self)
        self.minor = None
        if forced:
            self.bench.note(f"{self.name} ({self.transport}) had to be ended by force: {forced}")
        elif self.process.returncode:
            self.bench.note(f"{self.name} ended with status {self.process.returncode}: "
                            f"{self.last_words()}")

    def _wait_for_end(self):
        """None, or why the server had to be made to end. A mount that a mount namespace made
        meanwhile has a copy of lives on after the umount: then the connection is aborted."""
        try:
            self.process.wait(timeout=10)
            return None
        except subprocess.TimeoutExpired:
            self.abort()
        try:
            self.process.wait(timeout=20)
            return "it had not ended 10 s after the umount (is it in another mount namespace?)"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=20)
            return "it did not even end when its connection was aborted"

    def anonymous_bytes(self):
        """What the server's own memory takes, and its part in shared files."""
        figures = {}
        with open(f"/proc/{self.serving_pid()}/smaps_rollup", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    figures[words[0].rstrip(":")] = int(words[1]) * 1024
        return figures["Rss"], figures.get("Pss_Anon", 0) + figures.get("Pss_Shmem", 0)


class Foldfs(Mount):
    """What is measured. Without a state= of the caller's it begins with an empty catalogue each time, as it
    does with an empty pool."""

    def __init__(self, bench, source, transport, **options):
        self.state = None
        if "state" not in options:
            self.state = options["state"] = os.path.join(bench.work, f"state-{bench.next_number()}")
        words = [f"transport={transport}"]
        words += [key if value is True else f"{key}={value}" for key, value in options.items()]
        super().__init__(bench, "foldfs", transport,
                         [bench.tool("foldfs"), source, "{}", "-f", "-o", ",".join(words)])

    def status(self):
        out = machine.run([self.bench.tool("foldctl"), "status", self.path, "--json"], 20)
        return json.loads(out)

    def start(self):
        if self.state:
            shutil.rmtree(self.state, ignore_errors=True)
        super().start()
        used = self.status()["transport"]
        if used not in (self.transport, "none"):
            raise BenchError(f"foldfs took transport {used} where {self.transport} was asked for")


USER = 70001  # any that is not root


class FoldfsForUser(Foldfs):
    """foldfs with a client that is not root: what acting as the caller costs."""

    uid = USER

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.name = "as a user"


def scan(bench, source, state):
    """Let the catalogue in STATE know all of SOURCE: until nothing is too young to be recorded."""
    bench.progress(f"foldctl scan {source}")
    os.sync()
    command = [bench.tool("foldctl"), "scan", "--json", f"--state={state}", source]
    deadline = time.monotonic() + 600
    while json.loads(machine.run(command, 600))["unrecorded_files"]:
        if time.monotonic() > deadline:
            raise BenchError("foldctl scan does not come to an end")


def catalogue_of(bench, source):
    """What a scan knows of SOURCE, which nothing changes during the run: the state, made once."""
    if source not in bench.catalogues:
        state = os.path.join(bench.work, f"scanned-{bench.next_number()}.state")
        scan(bench, source, state)
        bench.catalogues[source] = state
    return bench.catalogues[source]


class NullFuse(Mount):
    """The floor; shows the same names and sizes as the source's FILES, with other bytes. With
    BUFFER it answers from that much memory instead of a buffer that stays in the processor."""

    def __init__(self, bench, files, transport, buffer=None, **options):
        if buffer:
            options["buffer"] = buffer
        words = [f"transport={transport}"] + [f"{key}={value}" for key, value in options.items()]
        shown = [f"{os.path.basename(path)}:{os.path.getsize(path)}" for path in files]
        super().__init__(bench, "null_fuse_memory" if buffer else "null_fuse", transport,
                         [bench.tool("null_fuse"), "-f", "-o", ",".join(words), "{}", *shown])


class PassthroughHp(Mount):
    """libfuse's own example. MODE cached: its cached mode (write-back cache, attributes for a day);
    writethrough: cached reads without the write-back cache; direct: every read comes to the server;
    passthrough: the kernel's passthrough."""

    FLAGS = {
        "cached": ["--nopassthrough"],
        "writethrough": ["--nopassthrough", "--nocache"],
        "direct": ["--nopassthrough", "--direct-io"],
        "passthrough": [],
    }

    def __init__(self, bench, source, transport, mode):
        uring = ["-o", "io_uring"] if transport == "io_uring" else []
        super().__init__(bench, "passthrough_hp", transport,
                         [bench.tool("passthrough_hp"), "--foreground", *self.FLAGS[mode], *uring,
                          source, "{}"])
        self.mode = mode
