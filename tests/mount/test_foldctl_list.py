# SPDX-License-Identifier: Apache-2.0
"""foldctl list: every mount of the mount namespace, in whatever state it is; and which mount a path means."""

import json
import os
import signal
import socket
import subprocess

from test_mounts import ABORTED, DEAD, stop_all
from test_program import AS_NOBODY, need_plain_user, unmount_as_nobody
from harness import (MIB, abort_fuse_under, check, equal, make_pages, mounts_under, read_file, socket_of, test, until,
                     write_file)
from users import NOBODY, as_user

TITLES = ["MOUNTPOINT", "SOURCE", "STATE", "PID", "POOL", "SAVED", "WINDOW", "TRANSPORT", "UP"]
KEYS = {"mountpoint", "source", "state", "pid", "owner", "device", "pool_used_bytes", "pool_bytes", "general_profit",
        "window_bytes", "window_budget_bytes", "transport", "uptime_s", "version"}
UNKNOWN = {"pid", "pool_used_bytes", "pool_bytes", "general_profit", "window_bytes", "window_budget_bytes", "transport",
           "uptime_s", "version"}
CONNECTIONS = "/sys/fs/fuse/connections"


def foldctl(t, *words, status=0, user=(), **kwargs):
    return t.run(list(user) + t.foldctl_command() + list(words), status=status, timeout=60 * t.patience, **kwargs)


def listed(t, *before, user=(), **kwargs):
    """What the JSON says of this test's own mounts, by mount point."""
    found = json.loads(foldctl(t, *before, "list", "--json", user=user, **kwargs).stdout)["mounts"]
    own = [mount for mount in found if mount["mountpoint"].startswith(t.directory)]
    for mount in own:
        equal(set(mount), KEYS, "keys of " + mount["mountpoint"])
    by_point = {mount["mountpoint"]: mount for mount in own}
    equal(len(by_point), len(own), "mounts with a place of their own")
    return by_point


def states(t, *before, **kwargs):
    return {os.path.relpath(point, t.directory): mount["state"] for point, mount in listed(t, *before, **kwargs).items()}


def table(t, *before, **kwargs):
    """The lines of this test's own mounts, each as a dictionary by title, cut where the titles stand."""
    output = foldctl(t, *before, "list", **kwargs).stdout
    check(output.endswith("\n"), "the last line does not end")
    title, *lines = output[:-1].split("\n")
    equal(title.split(), TITLES, "titles")
    # SOURCE and STATE begin where their titles do, and the cells of numbers end there.
    source, state, transport = title.index("SOURCE"), title.index("STATE"), title.index("TRANSPORT")
    rows = []
    for line in lines:
        check(line.isprintable() and line == line.rstrip(), "not printable, or with blanks at its end: %r" % line)
        for at in (source, state, transport):
            check(line[at - 2:at] == "  " and line[at] != " ", "not aligned at %d: %r" % (at, line))
        numbers = [line[title.index(name, state) + len(name) - 1] for name in ("PID", "POOL", "SAVED", "WINDOW")]
        check(" " not in numbers, "numbers that do not end under their titles: %r" % line)
        rest = line[state:].split()
        equal(len(rest), len(TITLES) - 2, "words from STATE on in %r" % line)
        row = dict(zip(TITLES, [line[:source - 2].rstrip(), line[source:state - 2].rstrip()] + rest))
        if row["MOUNTPOINT"].startswith(t.directory):
            rows.append(row)
    return rows


def brief(size):
    """Bytes as the table has them."""
    for unit in "BKMGT":
        if size < 1023.5:
            return ("%.0f" if unit == "B" or size >= 99.95 else "%.1f" if size >= 9.995 else "%.2f") % size + unit
        size /= 1024
    raise AssertionError


@test(timeout=60, transports="each")
def one_line_each(t):
    """Several mounts, with names of every kind, and bind mounts of one of them: one line for each connection, aligned,
    with the figures of the status and nothing that a terminal could take for a command."""
    names = {"plain": [], "with blanks and ü": ["window=0"], "line\nfeed \x1b[31m\x7f": ["ro"]}
    mounts = {}
    for number, (name, options) in enumerate(names.items()):
        source = t.make_dir("source %d\t\x07" % number if number else "source")
        write_file(source + "/file", make_pages(t.rng, 100) * 2)
        mounts[name] = t.mount(source, options + ["pool=32M"] + ["window=4M"] * ("window=0" not in options), name=name)
        read_file(mounts[name].path("file"))
        mounts[name].audit()  # from here on nothing is under way that changes a figure
    plain = mounts["plain"]
    os.mkdir(plain.source + "/part")
    for what, where in ((plain.point, "bound"), (plain.path("part"), "bound part")):
        t.run(["mount", "--bind", what, t.make_dir(where)])
    found = listed(t)
    equal(set(found), {mount.point for mount in mounts.values()}, "mount points")
    for mount in mounts.values():
        status, line = mount.status(), found[mount.point]
        for key in ("source", "transport", "general_profit", "version"):
            equal(line[key], status[key], key)
        for key, value in (("state", "serving"), ("pid", mount.serving_pid()), ("owner", 0), ("pool_bytes", 32 * MIB),
                           ("pool_used_bytes", status["frames_used"] * 4096), ("window_bytes", status["window"]["bytes"]),
                           ("window_budget_bytes", status["window"]["budget_bytes"])):
            equal(line[key], value, key)
        check(0 <= line["uptime_s"] <= status["uptime_s"], "uptime: %s" % line["uptime_s"])
    rows = {row["MOUNTPOINT"]: row for row in table(t)}
    shown = {"".join(c if c.isprintable() else "?" for c in point) for point in found}
    equal(set(rows), shown, "mount points of the table")
    status, row = plain.status(), rows[plain.point]
    for title, value in (("SOURCE", plain.source), ("STATE", "serving"), ("PID", str(plain.serving_pid())),
                         ("POOL", "%s/32.0M" % brief(status["frames_used"] * 4096)),
                         ("SAVED", brief(status["general_profit"])),
                         ("WINDOW", "%s/4.00M" % brief(status["window"]["bytes"])), ("TRANSPORT", status["transport"])):
        equal(row[title], value, title)
    equal(rows[t.path("with blanks and ü")]["WINDOW"], "off", "a window of 0")
    t.run(["umount", t.path("bound")])
    # The mount itself goes, and a part of it is left.
    t.run(["umount", plain.point])
    equal(states(t)["bound part"], "serving", "the bind mount that is left")
    plain.point = t.path("bound part")


def pending(minor):
    """The sockets of that name: the one that listens, and one for each client in its queue."""
    with open("/proc/net/unix") as sockets:
        return sum(line.rstrip().endswith("/0:%d.sock" % minor) for line in sockets)


def minor_of(mount):
    return mounts_under(mount.point)[0][1]


def stop(mount):
    """Stop its daemon, with no request of its own first question under way."""
    mount.until_asked()
    stop_all(mount.serving_pid())


@test(timeout=120)
def all_are_asked_at_once(t):
    """Two daemons are stopped. Both have the question before one of them goes on, and then both answer: a list that
    asks one after the other would have given up one of them."""
    mounts = [t.mount(t.make_dir("source-%d" % number), name="mnt-%d" % number) for number in range(3)]
    stopped = mounts[:2]
    found = {}
    # On a machine that is slow beyond measure the list may have given up by the time they go on.
    for _ in range(5):
        for mount in stopped:
            stop(mount)
        before = [pending(minor_of(mount)) for mount in stopped]
        with subprocess.Popen(t.foldctl_command() + ["list", "--json"], stdout=subprocess.PIPE, text=True,
                              env=t.environment()) as process:
            try:
                until(lambda: all(pending(minor_of(mount)) > count for mount, count in zip(stopped, before)) or
                      process.poll() is not None, 60 * t.patience, "both are asked")
            finally:
                for mount in stopped:
                    os.kill(mount.serving_pid(), signal.SIGCONT)
            found = {mount["mountpoint"]: mount["state"] for mount in json.loads(process.communicate()[0])["mounts"]}
        if all(found[mount.point] == "serving" for mount in mounts):
            return
    check(False, "states: %s" % found)


@test(timeout=90)
def stopped_and_full(t):
    """A daemon that is stopped is silent, with its pid, and one whose queue is full is silent too; the others are
    listed in full. foldctl does not touch the mounts: nothing waits in them."""
    living = t.mount(t.make_dir("source"), name="living")
    silent = t.mount(t.make_dir("source-2"), name="silent", transport="dev")
    full = t.mount(t.make_dir("source-3"), name="full", transport="dev")
    for mount in (silent, full):
        stop(mount)
    path, clients = socket_of(full), []
    try:
        for _ in range(100):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            clients.append(client)
            if client.connect_ex(path):
                break
        found = listed(t)
        equal({os.path.basename(point): line["state"] for point, line in found.items()},
              {"living": "serving", "silent": "silent", "full": "silent"}, "states")
        equal(found[silent.point]["pid"], silent.serving_pid(), "pid of the one that is stopped")
        for mount, unknown in ((silent, UNKNOWN - {"pid"}), (full, UNKNOWN)):
            equal({key for key in KEYS if found[mount.point][key] is None}, unknown, "what is unknown")
        for mount in (silent, full) if os.path.ismount(CONNECTIONS) else ():
            equal(read_file("%s/%d/waiting" % (CONNECTIONS, minor_of(mount))), b"0\n", "requests that wait")
    finally:
        for client in clients:
            client.close()
        for mount in (silent, full):
            os.kill(mount.serving_pid(), signal.SIGCONT)
    # The daemon has answered, or dropped, those that were in its queue.
    until(lambda: set(states(t).values()) == {"serving"}, 60 * t.patience, lambda: "serving again: %s" % states(t))


@test(timeout=60, transports="each", variants={"killed": "kill", "aborted": "abort"})
def dead(t, how):
    """A mount whose daemon was killed, and one that was aborted, is dead until it is unmounted; then it is gone."""
    other = t.mount(t.make_dir("source"), name="other")
    mount = t.mount(t.make_dir("source-2"), name="mnt", audit=False)
    if how == "kill":
        mount._end()
    else:
        mount.expect_log(ABORTED)
        mount.expect_log(DEAD)
        abort_fuse_under(mount.point)
        mount.ended(1)
    found = listed(t)
    equal((found[mount.point]["state"], found[other.point]["state"]), ("dead", "serving"), "states")
    equal({key for key in KEYS if found[mount.point][key] is None}, UNKNOWN, "what is unknown")
    (row,) = [row for row in table(t) if row["MOUNTPOINT"] == mount.point]
    equal([row[title] for title in TITLES], [mount.point, mount.source, "dead"] + ["-"] * 6, "its line")
    t.run(["umount", mount.point])
    equal(states(t), {"other": "serving"}, "after it is unmounted")


@test(timeout=90, transports="none")
def elsewhere_is_not_dead(t):
    """A mount with -o control=DIR is unreachable without that directory, also if a daemon that was killed has left a
    socket of the same device number; with the directory it is listed in full."""
    t.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"])
    t.at_end(lambda: t.run(["umount", "/mnt"]))
    if not os.path.ismount(CONNECTIONS):
        t.skip("fusectl is not mounted, and tells no age of a connection")
    source = t.make_dir("source")
    for _ in range(20):
        old = t.mount(source, name="old", audit=False, transport="dev")
        left = socket_of(old)
        old.kill()
        mount = t.mount(source, ["control=/mnt/place"], transport="dev", audit=False)
        same = left == socket_of(mount)
        equal(states(t), {"mnt": "unreachable"}, "without the directory")
        for words, more in ((("--control=/mnt/place",), {}), ((), {"FOLDFS_CONTROL": "/mnt/place"})):
            line = listed(t, *words, env=dict(t.environment(), **more))[mount.point]
            equal((line["state"], line["pid"]), ("serving", mount.serving_pid()), "with the directory")
        mount.unmount()
        if same:
            check(os.path.exists(left), "the socket that was left has gone")
            os.unlink(left)
            return
    t.skip("others mount too much here: the device number was never given out again to the next one")


@test(timeout=60, transports="none")
def plain_users(t):
    """Root lists a plain user's mount in full; a plain user their own in full, and root's by what the list of mounts
    says. With -o fsname= and subtype= a mount is listed as well, with its source as the daemon knows it."""
    need_plain_user(t)
    source, point = t.make_dir("source"), t.make_dir("users")
    os.chmod(t.directory, 0o1777)
    for path in (source, point):
        os.chown(path, NOBODY, NOBODY)
    roots = t.mount(t.make_dir("source-2"), ["state=" + t.path("roots-state")], name="roots", transport="dev")
    users = t.mount(source, ["fsname=mine", "subtype=special"], name="users", user="nobody", transport="dev")
    users.expect_log("no kernel passthrough, because the daemon has no CAP_SYS_ADMIN")
    # Root is refused by a plain user's mount, also before it serves: the user is answered.
    as_user(t, NOBODY, os.stat, users.point)
    for who, own, states_of in (((), [roots, users], {"roots": "serving", "users": "serving"}),
                                (AS_NOBODY, [users], {"roots": "private", "users": "serving"})):
        found = listed(t, user=who)
        equal({os.path.basename(point): line["state"] for point, line in found.items()}, states_of, "states")
        for mount in (roots, users):
            line = found[mount.point]
            equal(line["source"], mount.source, "source")
            equal(line["owner"], NOBODY if mount is users else 0, "owner")
            equal({key for key in KEYS if line[key] is None}, set() if mount in own else UNKNOWN, "what is unknown")
        for mount in own:
            equal(found[mount.point]["pid"], mount.serving_pid(), "pid")
        equal([row["STATE"] for row in table(t, user=who)], list(states_of.values()), "states in the table")
    # Its own source means the mount to the user, and not to root, as anybody can claim any source.
    foldctl(t, "status", source, user=AS_NOBODY)
    said = foldctl(t, "status", source, status=1).stderr
    check("no foldfs mount of yours serves it" in said, "said to root: " + said)
    unmount_as_nobody(t, users)


@test(transports="none")
def wrong_words(t):
    """list takes no mount point; it reports that its output did not arrive; and without a mount there are titles."""
    said = foldctl(t, "list", "/somewhere", status=1).stderr
    check("'/somewhere' is one argument too many" in said, "said: " + said)
    said = foldctl(t, "list", "--nonsense", status=1).stderr
    check("--nonsense" in said, "said: " + said)
    for words in (["list"], ["list", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(t.foldctl_command() + words, stdout=full, stderr=subprocess.PIPE, env=t.environment(),
                                  text=True, check=False, timeout=60)
        equal(done.returncode, 1, "status with a full disk")
        check("cannot write the output" in done.stderr, "said: " + done.stderr)
    equal(table(t), [], "lines of this test's own mounts")
    equal(listed(t), {}, "the same in JSON")


# ---- which mount is meant ------------------------------------------------------------------------

@test(timeout=60, transports="none", variants={"plain": [], "fsname": ["fsname=mine,subtype=special"]})
def by_any_path(t, options):
    """status, audit and explain take a mount point, a path within it and its source, whatever the mount is called;
    so with a bind mount beside, which is the same mount."""
    source = t.make_dir("source")
    os.mkdir(source + "/part")
    content = make_pages(t.rng, 20)
    write_file(source + "/part/file", content)
    mount = t.mount(source, options, transport="dev")
    equal(read_file(mount.path("part/file")), content, "content")
    bind = t.make_dir("bind")
    t.run(["mount", "--bind", mount.path("part"), bind])
    os.symlink(source, t.path("link"))
    for path in (mount.point, mount.path("part"), mount.path("part/file"), source, t.path("link"), source + "/", bind):
        equal(json.loads(foldctl(t, "status", "--json", path).stdout)["source"], source, "status of " + path)
        foldctl(t, "audit", path)
    answers = {foldctl(t, "explain", path + "/part/file").stdout for path in (mount.point, source, t.path("link"))}
    equal(len(answers), 1, "answers of explain")
    check(answers.pop().startswith(mount.path("part/file") + ": "), "explain does not name the file of the mount")
    said = foldctl(t, "explain", t.path("log-0"), status=1).stderr
    check("is not on a foldfs mount" in said, "of a file elsewhere: " + said)
    said = foldctl(t, "status", t.directory, status=1).stderr
    check("nothing is mounted on" in said, "of a directory elsewhere: " + said)
    t.run(["umount", bind])


@test(timeout=60, transports="none")
def a_source_that_is_mounted_twice(t):
    """A source of two mounts means none of them: each verb refuses, and names both. Once one is gone, it means the
    other one."""
    source = t.make_dir("source")
    write_file(source + "/file", make_pages(t.rng, 20))
    first, second = (t.mount(source, name=name, transport="dev") for name in ("first", "second"))
    for words, status in ((["status", source], 1), (["audit", source], 2), (["explain", source + "/file"], 1),
                          (["scan", source], 1)):
        done = foldctl(t, *words, status=status)
        check(first.point in done.stderr and second.point in done.stderr and source in done.stderr,
              "%s: said: %s" % (words, done.stderr))
        equal((done.stdout, done.stderr.count("\n")), ("", 1), "lines of %s" % words)
    for mount in (first, second):
        equal(json.loads(foldctl(t, "status", "--json", mount.point).stdout)["mountpoint"], mount.point, "by its name")
    second.unmount()
    equal(json.loads(foldctl(t, "status", "--json", source).stdout)["mountpoint"], first.point, "the one that is left")
    check(first.point in foldctl(t, "explain", source + "/file").stdout, "explain of the one that is left")
    foldctl(t, "audit", source)
    foldctl(t, "scan", source)
