# SPDX-License-Identifier: Apache-2.0
"""What changes while a mount runs: `foldctl set` and mount -o remount. Each word is seen to work, not only shown."""

import errno
import json
import os
import random

from counting import cached_bytes_of
from harness import (MIB, PAGE, Failure, check, equal, fails_with, make_pages, read_file, sync_source, test, until,
                     write_file)
from plans import explained, released, turned_out_unique
from test_mounts import end_in_background, flags_of
from test_program import AS_NOBODY, install_for_mount, need_plain_user
from users import USER, as_user

SET = "user [0-9]+ has set "


def ask(t, point, *words, status=0, prefix=()):
    return t.run(list(prefix) + t.foldctl_command() + ["set", point, *words], status=status, timeout=60 * t.patience)


def set_words(t, mount, *words):
    """Say them of a mount, which takes them."""
    mount.expect_log(SET)
    return ask(t, mount.point, *words).stdout


def refused(t, mount, *words):
    """Say them of a mount, which refuses them, and what is said."""
    said = ask(t, mount.point, *words, status=1).stderr
    check(said.startswith("foldctl: ") and said.count("\n") == 1, "said: " + said)
    return said.removeprefix("foldctl: ").strip()


def settings(t, mount):
    return json.loads(ask(t, mount.point, "--json").stdout)["settings"]


# ---- what is shown, and what is refused ----------------------------------------------------------

@test()
def shown_and_said_again(t):
    """Without words, set shows what can be changed, for people and programs; all that it shows can be said again,
    and changes nothing."""
    mount = t.mount(t.make_dir("source"), ["pool=64M", "maps=3M", "passthrough=*.iso", "passthrough=a\\,b", "watch"])
    lines = ask(t, mount.point).stdout.splitlines()
    equal(lines, ["pool=64M", "window=8M  (follows pool)", "maps=3M", "scan=off", "watch",
                  "passthrough=*.iso,passthrough=a\\,b", "passthrough_max=128M", "attr_timeout=1", "entry_timeout=1",
                  "negative_timeout=0"], "what is shown")
    equal(settings(t, mount), {
        "pool": 64 * MIB, "window": 8 * MIB, "maps": 3 * MIB, "scan": "off", "watch": True,
        "passthrough": ["*.iso", "a,b"], "passthrough_max": 128 * MIB, "attr_timeout": 1.0, "entry_timeout": 1.0,
        "negative_timeout": 0.0}, "as JSON")
    words = [line.split("  ")[0] for line in lines]
    equal(ask(t, mount.point, *words).stdout, "", "what changes when all is said again")
    equal(mount.status()["settings"], ",".join(words), "settings in the status")
    equal(set_words(t, mount, "pool=32M,maps=4M", "nowatch"),
          "pool=32M  (was pool=64M)\nmaps=4M  (was maps=3M)\nnowatch  (was watch)\n",
          "what has changed: not the window, which was named meanwhile")
    check("pool=32M" in mount.status()["settings"], "settings in the status")
    check("pool=64M to pool=32M" in mount.log_text(), "the log: " + mount.log_text())
    check("user 0 has set" in mount.log_text(), "the log: " + mount.log_text())


@test(timeout=60)
def nonsense_is_refused_as_at_the_start(t):
    """One rule: the sentence is the same. And all or nothing: what stands beside nonsense does not change."""
    source = t.make_dir("source")
    mount = t.mount(source, ["pool=64M"])
    before = settings(t, mount)
    for word in ("pool=nonsense", "pool=1K", "pool=100T", "window=1Q", "maps=1K", "maps=100%", "scan=now", "scan",
                 "attr_timeout=-1", "entry_timeout=soon", "negative_timeout=1e300", "passthrough=",
                 "passthrough_max=much", "bogus", "transport=pigeon", "seccomp=maybe", "state=here", "pool"):
        at_start = t.run(t.foldfs_command() + [source, t.make_dir("other"), "-o", "pool=64M," + word], status=1).stderr
        said = refused(t, mount, "attr_timeout=9", word)
        equal(said, at_start.removeprefix("foldfs: ").strip(), "what is said of " + word)
    equal(settings(t, mount), before, "settings after nonsense")


@test()
def what_cannot_change_is_refused_by_name(t):
    """Each of these has its reason, and what stands beside it does not change."""
    mount = t.mount(t.make_dir("source"), ["pool=64M"])
    before = settings(t, mount)
    other = "dev" if mount.status()["transport"] == "io_uring" else "io_uring"
    for word in ("transport=" + other, "seccomp=off", "state=/nowhere", "control=/nowhere", "coherence=overlay",
                 "source-stacked", "one-file-system", "pseudo-filesystems", "window=0", "replace", "fsname=x",
                 "nofail"):
        said = refused(t, mount, "pool=32M", word)
        check(said.startswith(word.split("=")[0]) and "cannot change while it is mounted: " in said, "said: " + said)
    check("mount -o remount,ro" in refused(t, mount, "ro"), "said of ro")
    check("for a start" in refused(t, mount, "debug"), "said of debug")
    equal(settings(t, mount), before, "settings")
    direct = t.mount(t.make_dir("source"), ["window=0"], name="direct")
    check("window cannot change" in refused(t, direct, "window=8M"), "window=8M after window=0")
    t.run(t.foldctl_command() + ["set"], status=1)
    t.run(t.foldctl_command() + ["set", "--bogus", mount.point], status=1)


# ---- each word at work ---------------------------------------------------------------------------

def mode_of(path):
    return os.stat(path).st_mode & 0o777


@test()
def timeouts_hold_for_what_is_told_then(t):
    """attr_timeout, entry_timeout and negative_timeout: what the kernel is told from then on goes by them."""
    source = t.make_dir("source")
    for name in ("a", "b", "c"):
        write_file(source + "/" + name, b"content")
        os.chmod(source + "/" + name, 0o600)
    mount = t.mount(source, ["attr_timeout=3600", "entry_timeout=3600"])
    equal(mode_of(mount.path("a")), 0o600, "mode of a")
    os.chmod(source + "/a", 0o644)
    equal(mode_of(mount.path("a")), 0o600, "what the kernel keeps for an hour")
    set_words(t, mount, "attr_timeout=0")
    equal(mode_of(mount.path("b")), 0o600, "mode of b")
    os.chmod(source + "/b", 0o644)
    equal(mode_of(mount.path("b")), 0o644, "what it keeps no more")
    os.rename(source + "/b", source + "/gone")
    check(os.path.exists(mount.path("b")), "a name that it keeps for an hour")
    set_words(t, mount, "entry_timeout=0")
    check(os.path.exists(mount.path("c")), "c")
    os.rename(source + "/c", source + "/gone too")
    check(not os.path.exists(mount.path("c")), "a name that it keeps no more")
    check(not os.path.exists(mount.path("new")), "what is not there")
    write_file(source + "/new", b"")
    check(os.path.exists(mount.path("new")), "it is there, and was not kept as missing")
    set_words(t, mount, "negative_timeout=3600")
    check(not os.path.exists(mount.path("newer")), "what is not there")
    write_file(source + "/newer", b"")
    check(not os.path.exists(mount.path("newer")), "it is kept as missing")


@test(timeout=60)
def passthrough_holds_for_later_opens(t):
    """passthrough and passthrough_max: a file that is open keeps its plan, later first opens go by the new words."""
    source = t.make_dir("source")
    for name in ("a.raw", "b.raw", "unique"):
        write_file(source + "/" + name, make_pages(t.rng, 300))
    mount = t.mount(source, ["passthrough_max=0"])
    if mount.status()["passthrough"]:
        t.skip("no kernel passthrough here: " + mount.status()["passthrough"])
    fd = os.open(mount.path("a.raw"), os.O_RDONLY)
    set_words(t, mount, "passthrough=*.raw")
    equal(explained(t, mount.path("a.raw"))["plan"], "window", "plan of what is open")
    equal(explained(t, mount.path("b.raw"))["plan"], "own passthrough", "plan of a later open")
    os.close(fd)
    released(mount)
    with open(mount.path("a.raw"), "rb") as file:
        equal(explained(t, mount.path("a.raw"))["plan"], "own passthrough", "plan when it is opened again")
        set_words(t, mount, "nopassthrough")
        equal(explained(t, mount.path("a.raw"))["plan"], "own passthrough", "plan of what is open")
        equal(file.read(), read_file(source + "/a.raw"), "content")
    released(mount)
    equal(explained(t, mount.path("a.raw"))["plan"], "window", "plan after nopassthrough")
    turned_out_unique(mount, "unique")
    equal(explained(t, mount.path("unique"))["plan"], "window", "plan with passthrough_max=0")
    set_words(t, mount, "passthrough_max=2M")
    equal(explained(t, mount.path("unique"))["plan"], "own passthrough", "plan with passthrough_max=2M")
    set_words(t, mount, "passthrough_max=1M")
    equal(explained(t, mount.path("unique"))["plan"], "window", "plan with passthrough_max=1M")


def max_bytes_of(mount):
    device = os.stat(mount.point).st_dev
    path = "/sys/class/bdi/%d:%d/max_bytes" % (os.major(device), os.minor(device))
    return int(read_file(path)) if os.access(path, os.W_OK) else None


@test(timeout=60, alone=True)
def window_is_trimmed_to(t):
    """A smaller window: the kernel's cache of the mount comes down to it, and the limit of changed pages with it. A
    larger one: more stays."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 48 * 256)
    write_file(source + "/file", content)
    sync_source(source)
    mount = t.mount(source, ["pool=128M", "window=64M", "passthrough_max=0"])
    fd = os.open(mount.path("file"), os.O_RDONLY)

    def cached():
        return cached_bytes_of(fd, len(content))

    def read():
        equal(os.pread(fd, len(content), 0), content, "content")

    limit = max_bytes_of(mount)
    read()
    check(cached() >= 40 * MIB, "only %d bytes are cached with window=64M" % cached())
    set_words(t, mount, "window=4M")
    until(lambda: cached() <= 5 * MIB, 20 * t.patience, lambda: "%d bytes are cached with window=4M" % cached())
    window = mount.status()["window"]
    equal(window["budget_bytes"], 4 * MIB, "window.budget_bytes")
    check(window["bytes"] <= 4 * MIB, "window.bytes is %d" % window["bytes"])
    check(limit is None or max_bytes_of(mount) <= MIB, "max_bytes is %r" % max_bytes_of(mount))
    read()
    until(lambda: cached() <= 5 * MIB, 20 * t.patience, lambda: "%d bytes are cached with window=4M" % cached())
    set_words(t, mount, "window=64M")
    read()
    check(cached() >= 40 * MIB, "only %d bytes are cached with window=64M again" % cached())
    # The kernel rounds to parts of a millionth of memory that can be changed.
    check(limit is None or abs(max_bytes_of(mount) - limit) <= limit // 50,
          "max_bytes with window=64M again is %r, and was %r" % (max_bytes_of(mount), limit))
    os.close(fd)


@test(timeout=60)
def maps_are_trimmed_to(t):
    """Smaller maps: what is known of files that nobody has open goes at once."""
    source = t.make_dir("source")
    for number in range(2000):
        write_file("%s/%d" % (source, number), make_pages(t.rng, 2, distinct=1) + b"%d" % number)
    mount = t.mount(source, ["maps=16M", "passthrough_max=0"])
    for number in range(2000):
        read_file(mount.path(str(number)))
    released(mount)
    before = mount.status()["memory"]["maps_bytes"]
    check(before > 400 << 10, "maps take %d bytes" % before)
    set_words(t, mount, "maps=64K")
    until(lambda: mount.status()["memory"]["maps_bytes"] <= 128 << 10, 20 * t.patience,
          lambda: "maps take %d bytes" % mount.status()["memory"]["maps_bytes"])
    set_words(t, mount, "maps=16M")
    for number in range(2000):
        read_file(mount.path(str(number)))
    check(mount.status()["memory"]["maps_bytes"] > before // 2, "with maps=16M again, they take %d bytes" %
          mount.status()["memory"]["maps_bytes"])


@test(timeout=90)
def scan_begins_and_ends(t):
    """scan=background: what was not read is known afterwards. scan=off: the scan ends, and its memory goes."""
    source = t.make_dir("source")
    write_file(source + "/small", make_pages(t.rng, 100))
    os.utime(source + "/small", ns=(10 ** 18, 10 ** 18))
    mount = t.mount(source)
    if not mount.status()["passthrough"]:
        equal(explained(t, mount.path("small"))["plan"], "window", "plan before the scan")

        def known():
            # A stamp that is too young is not recorded.
            set_words(t, mount, "scan=off")
            set_words(t, mount, "scan=background")
            until(lambda: not mount.status()["memory"]["scan_bytes"], 30 * t.patience, "the scan has ended")
            return explained(t, mount.path("small"))["plan"] == "own passthrough"
        until(known, 30 * t.patience, "what a scan has read is known")
    set_words(t, mount, "scan=off")
    write_file(source + "/large", make_pages(t.rng, 128 * 256, distinct=64))
    set_words(t, mount, "scan=background")
    set_words(t, mount, "scan=off")
    equal(mount.status()["memory"]["scan_bytes"], 0, "memory of a scan that was ended")


@test(timeout=90)
def watch_begins_and_ends(t):
    """watch: what changed before is seen when it begins, what changes then at once; nowatch: not any more."""
    source = t.make_dir("source")
    for name in ("before", "during", "after"):
        write_file(source + "/" + name, b"a" * 3 * PAGE)
    mount = t.mount(source, ["attr_timeout=3600", "entry_timeout=3600"])
    files = {name: os.open(mount.path(name), os.O_RDONLY) for name in ("before", "during")}

    def content(name):
        return os.pread(files[name], 1, PAGE)

    def change(name):
        with open(source + "/" + name, "r+b") as file:
            os.pwrite(file.fileno(), b"b" * PAGE, PAGE)

    for name in files:
        equal(content(name), b"a", "content of " + name)
    change("before")
    equal(content("before"), b"a", "what is not noticed of a file that is open")
    set_words(t, mount, "watch")
    until(lambda: content("before") == b"b", 20 * t.patience, "a change from before the watch is seen", every=0.002)
    change("during")
    until(lambda: content("during") == b"b", 20 * t.patience, "a change during the watch is seen", every=0.002)
    # Opened and cached when the look at all that was known is over.
    files["after"] = os.open(mount.path("after"), os.O_RDONLY)
    equal(content("after"), b"a", "content of after")
    set_words(t, mount, "nowatch")
    events = mount.status()["watch"]["events"]
    change("after")
    equal(content("after"), b"a", "what is not noticed without the watch")
    equal(mount.status()["watch"]["events"], events, "watch.events")
    for _ in range(5):
        set_words(t, mount, "watch")
        set_words(t, mount, "nowatch")
    set_words(t, mount, "watch")
    until(lambda: content("after") == b"b", 20 * t.patience, "it is seen with the watch again", every=0.002)
    for fd in files.values():
        os.close(fd)


# ---- the pool ------------------------------------------------------------------------------------

class Load:
    """Processes that read a mount's files and compare, write to files of their own and compare, until stop()."""

    def __init__(self, t, mount, contents, readers=2, writers=1):
        self.t = t
        self.stopped = t.path("stop-%d" % len(t.mounts))
        self.rounds = [t.path("rounds-%d" % number) for number in range(readers + writers)]
        for path in self.rounds:
            write_file(path, b"")
        self.children = [t.fork(self._read, self.rounds[number], mount, contents, number) for number in range(readers)]
        self.children += [t.fork(self._write, self.rounds[number], mount, number)
                          for number in range(readers, readers + writers)]

    def _until_stopped(self, path, step):
        with open(path, "ab", buffering=0) as rounds:
            while not os.path.exists(self.stopped):
                step()
                rounds.write(b".")

    def _read(self, path, mount, contents, number):
        rng = random.Random(self.t.seed * 100 + number)
        names = sorted(contents)
        files = {name: os.open(mount.path(name), os.O_RDONLY) for name in names}

        def step():
            name = rng.choice(names)
            length = rng.choice((PAGE, 64 * PAGE, MIB))
            at = rng.randrange(len(contents[name]) - length)
            equal(os.pread(files[name], length, at), contents[name][at:at + length], "content of %s at %d" % (name, at))
        self._until_stopped(path, step)

    def _write(self, path, mount, number):
        rng = random.Random(self.t.seed * 100 + number)
        model = bytearray(rng.randbytes(4 * MIB))
        name = "written-%d" % number
        write_file(mount.path(name), model)
        fd = os.open(mount.path(name), os.O_RDWR)

        def step():
            at = rng.randrange(len(model) - 3 * PAGE)
            part = rng.randbytes(rng.randrange(1, 3 * PAGE))
            os.pwrite(fd, part, at)
            model[at:at + len(part)] = part
            at = rng.randrange(len(model) - 8 * PAGE)
            equal(os.pread(fd, 8 * PAGE, at), bytes(model[at:at + 8 * PAGE]), "what was written at %d" % at)
        self._until_stopped(path, step)

    def goes_on(self):
        """Each of them does something from now on."""
        before = [os.path.getsize(path) for path in self.rounds]

        def all_did():
            for child in self.children:
                if child.ended():
                    raise Failure("one of the load has ended")
            return all(os.path.getsize(path) > was for path, was in zip(self.rounds, before))
        until(all_did, 60 * self.t.patience, "all of the load goes on")

    def stop(self):
        write_file(self.stopped, b"")
        self.t.join(self.children, 120)


def make_files(t, source, count, mib):
    contents = {"file-%d" % number: make_pages(t.rng, mib * 256) for number in range(count)}
    for name, content in contents.items():
        write_file(source + "/" + name, content)
    sync_source(source)
    return contents


def used_bytes(mount):
    return mount.status()["frames_used"] * PAGE


@test(timeout=180, alone=True)
def a_smaller_pool_gives_its_memory_back(t):
    """From some hundred MiB to 16: the memory of the daemon comes down to it, while files are read, written and
    compared; nothing fails. (A sanitizer has memory of its own: there the daemon's count is looked at.)"""
    source = t.make_dir("source")
    contents = make_files(t, source, 4, t.scaled(56, 12))
    size = sum(map(len, contents.values()))
    mount = t.mount(source, ["pool=256M", "window=8M", "passthrough_max=0"])
    for name, content in contents.items():
        equal(read_file(mount.path(name)), content, "content of " + name)
    check(used_bytes(mount) > size * 9 // 10, "the pool has %d bytes of %d" % (used_bytes(mount), size))
    load = Load(t, mount, contents)
    load.goes_on()
    if not t.sanitized:
        check(mount.daemon_memory() > size, "the daemon has %d bytes" % mount.daemon_memory())
    set_words(t, mount, "pool=16M")
    until(lambda: mount.status()["memory"]["pool_bytes"] <= 17 * MIB, 30 * t.patience,
          lambda: "the pool takes %d bytes" % mount.status()["memory"]["pool_bytes"])
    if not t.sanitized:
        until(lambda: mount.daemon_memory() <= 17 * MIB + 32 * MIB, 30 * t.patience,
              lambda: "the daemon has %d bytes" % mount.daemon_memory())
    check(used_bytes(mount) <= 16 * MIB, "frames_used is %d bytes" % used_bytes(mount))
    load.goes_on()
    load.stop()
    mount.audit()
    for name, content in contents.items():
        equal(read_file(mount.path(name)), content, "content of " + name)


@test(timeout=120)
def a_larger_pool_keeps_more(t):
    """A pool that grows, to more than it began with: what did not fit is kept, and read without the source."""
    source = t.make_dir("source")
    contents = make_files(t, source, 2, 24)
    mount = t.mount(source, ["pool=8M", "window=1M", "passthrough_max=0"])

    def read_all():
        for name, content in contents.items():
            equal(read_file(mount.path(name)), content, "content of " + name)

    read_all()
    check(used_bytes(mount) <= 8 * MIB, "the pool has %d bytes" % used_bytes(mount))
    set_words(t, mount, "pool=96M", "window=1M")
    equal(mount.status()["frames_total"] * PAGE, 96 * MIB, "size of the pool")
    read_all()
    check(used_bytes(mount) >= 47 * MIB, "the pool has %d bytes" % used_bytes(mount))
    misses = mount.status()["misses"]
    read_all()
    equal(mount.status()["misses"], misses, "misses, when all is in the pool")


@test(timeout=90)
def window_and_maps_follow_the_pool(t):
    """What was not named follows the pool, as at the start; what was named stays."""
    mount = t.mount(t.make_dir("source"), ["pool=64M", "maps=3M"])
    set_words(t, mount, "pool=128M")
    found = settings(t, mount)
    equal((found["pool"], found["window"], found["maps"]), (128 * MIB, 16 * MIB, 3 * MIB), "pool, window, maps")
    equal(mount.status()["window"]["budget_bytes"], 16 * MIB, "window.budget_bytes")
    said = refused(t, mount, "pool=90%", "maps=20%")
    check("more than all of the memory" in said, "said: " + said)


@test(timeout=300, alone=True)
def ten_times_in_a_row_under_load(t):
    """All that can be changed, ten times in a row, while files are read, written and compared; then an audit."""
    source = t.make_dir("source")
    contents = make_files(t, source, 4, t.scaled(16, 6))
    mount = t.mount(source, ["pool=64M", "window=8M", "passthrough_max=0"])
    load = Load(t, mount, contents, readers=3, writers=2)
    for number in range(10):
        set_words(t, mount, *[
            ("pool=2M", "window=1M", "maps=64K", "watch", "scan=background", "attr_timeout=0"),
            ("pool=96M", "window=32M", "maps=8M", "nowatch", "scan=off", "attr_timeout=1"),
        ][number % 2])
        load.goes_on()
    load.stop()
    mount.audit()


# ---- remount -------------------------------------------------------------------------------------

@test(timeout=60)
def remounted_with_own_words(t):
    """mount -o remount: foldfs's words and the kernel's at once; all words of before change nothing; what is refused
    changes nothing of both."""
    source = t.make_dir("source")
    mount = t.mount(source, ["pool=64M", "nosuid"])
    mount.expect_log(SET)
    command = t.foldfs_command() + [source, mount.point, "-o"]
    again = ",".join(mount.options)
    equal(t.run(command + ["remount,rw,user_id=0,nofail," + again]).stderr, "", "what is said of the same words")
    check("has set" not in mount.log_text(), "the log: " + mount.log_text())
    t.run(command + ["remount,noexec,pool=32M,attr_timeout=9," + "passthrough=*.iso"])
    check("noexec" in flags_of(mount.point)[0], "noexec")
    found = settings(t, mount)
    equal((found["pool"], found["attr_timeout"], found["passthrough"]), (32 * MIB, 9.0, ["*.iso"]), "settings")
    before = flags_of(mount.point), found
    for words, reason in (("exec,pool=16M,seccomp=off", "seccomp cannot change while it is mounted"),
                          ("exec,pool=nonsense", "pool=nonsense is not a size"),
                          ("exec,pool=16M,bogus", "unknown option 'bogus'")):
        said = t.run(command + ["remount," + words], status=1).stderr
        check(said.startswith("foldfs: ") and reason in said, "said: " + said)
        equal((flags_of(mount.point), settings(t, mount)), before, "flags and settings after " + words)
    with open(mount.path("file"), "wb"):
        said = t.run(command + ["remount,ro,pool=16M"], status=1).stderr
        check("open for writing" in said, "said: " + said)
        equal(settings(t, mount)["pool"], 32 * MIB, "pool, when the kernel has refused the rest")


@test(timeout=60)
def remounted_by_mount_and_fstab(t):
    """By mount(8), with what a line of fstab says: what differs is set, the same words change nothing."""
    source, point = t.make_dir("source"), t.make_dir("mnt")
    install_for_mount(t)
    line = "transport=dev,pool=32M,window=2M,nofail,state=" + t.path("state")
    write_file(t.path("fstab"), ("%s %s fuse.foldfs %s 0 0\n" % (source, point, line)).encode())
    t.run(["mount", "--fstab", t.path("fstab"), point])

    def pool():
        return json.loads(ask(t, point, "--json").stdout)["settings"]["pool"]

    equal(pool(), 32 * MIB, "pool")
    t.run(["mount", "--fstab", t.path("fstab"), "-o", "remount,pool=48M", point])
    equal(pool(), 48 * MIB, "pool, named beside fstab's words")
    t.run(["mount", "--fstab", t.path("fstab"), "-o", "remount,ro", point])
    equal(pool(), 32 * MIB, "pool, when fstab is said again")
    fails_with(errno.EROFS, "a new file", write_file, point + "/new", b"content")
    said = t.run(["mount", "-t", "fuse.foldfs", "-o", "remount,rw,coherence=overlay", source, point], status=None)
    check(said.returncode and "coherence cannot change" in said.stderr, "said: " + said.stderr)
    fails_with(errno.EROFS, "a new file", write_file, point + "/new", b"content")
    end_in_background(t, point)


# ---- who may -------------------------------------------------------------------------------------

@test(timeout=60)
def a_plain_users_mount(t):
    """Its owner and root may change it, nobody else. What the owner's rights do not allow is refused as at the start,
    and what was changed before that showed is set back."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("mnt")
    for path in (source, point):
        os.chown(path, 65534, 65534)
    os.chmod(t.directory, 0o1777)  # the state
    mount = t.mount(source, ["pool=64M"], user="nobody", transport="dev")
    mount.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
    mount.expect_log(SET)
    ask(t, point, "pool=32M", "attr_timeout=3", prefix=AS_NOBODY)
    check("user 65534 has set" in mount.log_text(), "the log: " + mount.log_text())
    equal(settings(t, mount)["pool"], 32 * MIB, "pool set by its owner")
    ask(t, point, "pool=16M")
    check("user 0 has set" in mount.log_text(), "the log: " + mount.log_text())
    t.run(t.foldfs_command() + [source, point, "-o", "remount,noexec,pool=24M"])
    equal(settings(t, mount)["pool"], 24 * MIB, "pool set by root's remount")
    check("noexec" in flags_of(point)[0], "noexec")
    install_for_mount(t)
    t.run(["mount", "-o", "remount,pool=22M", point])
    equal(settings(t, mount)["pool"], 22 * MIB, "pool set by mount(8)")
    t.run(AS_NOBODY + t.foldfs_command() + [source, point, "-o", "remount,pool=20M"])
    equal(settings(t, mount)["pool"], 20 * MIB, "pool set by its owner's remount")
    said = ask(t, point, "watch", status=1, prefix=AS_NOBODY).stderr
    check("watch needs root's rights" in said, "said: " + said)
    before = settings(t, mount)
    check(not before["watch"] and before["scan"] == "off", "watch and scan")
    # A scan of this takes seconds.
    write_file(source + "/large", make_pages(t.rng, 128 * 256, distinct=64))
    ask(t, point, "attr_timeout=1", "watch", "scan=background", status=1, prefix=AS_NOBODY)
    equal(settings(t, mount), before, "settings, when the watch is refused")
    equal(mount.status()["memory"]["scan_bytes"], 0, "memory of a scan that was set back")
    as_user(t, USER, lambda: ask(t, point, "pool=8M", status=1))
    equal(settings(t, mount)["pool"], 20 * MIB, "pool")
