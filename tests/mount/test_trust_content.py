# SPDX-License-Identifier: Apache-2.0
"""Whose bytes are served for whose file: as the owner of equal files, who writes to his or lies about them."""

import fcntl
import json
import mmap
import os
import shutil
import struct
import subprocess

from harness import MIB, PAGE, check, equal, make_pages, read_file, sync_source, test, until, write_file
from test_copies import copies
from test_family import adopted, changed
from plans import explained, plans, released, scan
from users import OTHER, USER, as_user

GROUP = 70003
ROOT = 0
EXT4_IOC_MOVE_EXT = 0xC028660F
SHARED = "shared passthrough"


def put(path, content, uid=ROOT, mode=0o644, gid=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_file(path, content)
    os.chown(path, uid, uid if gid is None else gid)
    os.chmod(path, mode)
    return path


def overwrite(path, content, at=0):
    """In place: the inode stays."""
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), content, at)


def on_disk(*paths):
    """Written back, and out of the cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def state_of(path):
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def lie(path, other, block, starts=(0,), blocks=None):
    """As the owner of both: blocks of PATH, the donor of a defragmentation, get other bytes, and no time of it moves."""
    before, content = state_of(path), read_file(path)
    on_disk(path, other)
    with open(other, "r+b") as defragmented, open(path, "r+b") as donor:
        count = blocks or os.path.getsize(path) // block
        for start in starts:
            request = bytearray(struct.pack("IIQQQQ", 0, donor.fileno(), start, start, count, 0))
            fcntl.ioctl(defragmented.fileno(), EXT4_IOC_MOVE_EXT, request)
    on_disk(path, other)
    equal(state_of(path), before, "what tells of a change")
    check(read_file(path) != content, "the file system did not move anything")
    on_disk(path, other)


def lying_source(t, block=4096, size=64 * MIB):
    """An ext4 on which whoever owns two files can lie, with blocks of that many bytes."""
    source = t.loop_file_system("ext4", size=size, how=("-b", str(block)))
    os.chmod(source, 0o755)
    return source


def plan_of(t, mount, name):
    return explained(t, mount.path(name))["plan"]


# ---- what backs what ----------------------------------------------------------------------------

@test(transports="each", timeout=60)
def a_users_equal_file_never_backs_roots(t):
    """A program of root's that runs from the mount, and equal copies of a user, made before it: whatever he writes
    into those in the source, the program's bytes stay what they are, mapped, read and executed."""
    source = t.make_dir("source")
    content = read_file(shutil.which("sleep"))
    mine = [put("%s/u/sleep%d" % (source, number), content, USER, 0o755) for number in range(6)]
    os.chown(source + "/u", USER, USER)
    put(source + "/bin/sleep", content, ROOT, 0o4755)
    scan(t, source)
    mount = t.mount(source, ["ro", "suid"])
    for name in ("bin/sleep", "u/sleep0"):
        equal(plan_of(t, mount, name), SHARED, name)
    running = subprocess.Popen([mount.path("bin/sleep"), "1000"], user=OTHER, group=OTHER, extra_groups=[])
    with open(mount.path("bin/sleep"), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        as_user(t, USER, lambda: [overwrite(path, bytes(len(content))) for path in mine])
        equal(file.read(), content, "root's program, open")
        equal(mapped[:], content, "root's program, mapped")
        equal(read_file("/proc/%d/exe" % running.pid), content, "root's program, running")
    equal(read_file(mount.path("bin/sleep")), content, "root's program, opened anew")
    equal(read_file(mount.path("u/sleep3")), bytes(len(content)), "the user's own")
    equal(running.poll(), None, "the program's status")
    running.kill()
    running.wait()


def grant(path, uid, may):
    """An ACL that lets the user UID do that (4 reads, 2 writes)."""
    mode = os.stat(path).st_mode
    entries = [(0x01, mode >> 6 & 7, 0xFFFFFFFF), (0x02, may, uid), (0x04, mode >> 3 & 7, 0xFFFFFFFF),
               (0x10, mode >> 3 & 7 | may, 0xFFFFFFFF), (0x20, mode & 7, 0xFFFFFFFF)]
    os.setxattr(path, "system.posix_acl_access",
                struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries))


# Who could back (owner, group, mode), for whom, and whether it may.
PAIRS = {
    "root for root": ((ROOT, ROOT, 0o644), (ROOT, ROOT, 0o600), True),
    "root for a user": ((ROOT, ROOT, 0o755), (USER, USER, 0o600), True),
    "root for anybody": ((ROOT, ROOT, 0o444), (USER, USER, 0o666), True),
    "a user for root": ((USER, USER, 0o644), (ROOT, ROOT, 0o600), False),
    "a user for another": ((USER, USER, 0o644), (OTHER, OTHER, 0o600), False),
    "a user for himself": ((USER, USER, 0o644), (USER, OTHER, 0o600), True),
    "his group's for himself": ((USER, GROUP, 0o664), (USER, GROUP, 0o600), False),
    "his for his group's": ((USER, GROUP, 0o644), (USER, GROUP, 0o660), False),
    "his group's for his group's": ((USER, GROUP, 0o664), (USER, GROUP, 0o660), True),
    "another group's": ((USER, GROUP, 0o664), (USER, OTHER, 0o660), False),
    "root's that a group writes for root": ((ROOT, GROUP, 0o664), (ROOT, GROUP, 0o600), False),
    "anybody's for anybody's": ((USER, USER, 0o666), (USER, USER, 0o606), False),
    "of nobody that is known": ((65534, 65534, 0o644), (65534, 65534, 0o600), False),
    "root's that its group may not read": ((ROOT, ROOT, 0o604), (ROOT, ROOT, 0o600), False),
    "root's that others may not read": ((ROOT, ROOT, 0o640), (ROOT, ROOT, 0o600), False),
    "with an ACL that lets somebody write": ((ROOT, ROOT, 0o664), (ROOT, ROOT, 0o600), False),
    "with an ACL that keeps somebody out": ((ROOT, ROOT, 0o644), (ROOT, ROOT, 0o600), False),
    "in a closed directory": ((ROOT, ROOT, 0o644), (ROOT, ROOT, 0o600), False),
    "in a directory closed to its group": ((ROOT, ROOT, 0o644), (ROOT, ROOT, 0o600), False),
    "in a directory with an ACL": ((ROOT, ROOT, 0o644), (ROOT, ROOT, 0o600), False),
}


def make_pairs(t, source):
    """For each of PAIRS a file that might back, another one that might be backed, and neither equal to others."""
    contents = {}
    for number, (name, (backing, backed, _)) in enumerate(PAIRS.items()):
        contents[name] = make_pages(t.rng, 3) + str(number).encode()
        for which, (uid, gid, mode) in (("backing", backing), ("backed", backed)):
            put(os.path.join(source, name, which, "down", "file"), contents[name], uid, mode, gid)
    grant(source + "/with an ACL that lets somebody write/backing/down/file", USER, 6)
    grant(source + "/with an ACL that keeps somebody out/backing/down/file", USER, 0)
    grant(source + "/in a directory with an ACL/backing", USER, 0)
    os.chmod(source + "/in a closed directory/backing", 0o700)
    os.chmod(source + "/in a directory closed to its group/backing", 0o701)
    return contents


@test(timeout=60)
def who_may_back_whom(t):
    """A file backs another one in shared passthrough if nobody can write to it who could not write to the other, and
    everybody may read it: by owner, group, mode, ACL and the directories above. Each is right all the same."""
    source = t.make_dir("source")
    contents = make_pairs(t, source)
    scan(t, source)
    mount = t.mount(source, ["ro"])
    for name, (_, _, may) in PAIRS.items():
        path = name + "/backed/down/file"
        equal(plan_of(t, mount, path) == SHARED, may, name)
        equal(read_file(mount.path(path)), contents[name], name)
    mount.unmount()
    # It is looked at again with each scan, also where no file has changed.
    os.chmod(source + "/in a closed directory/backing", 0o755)
    os.chmod(source + "/root for root/backing", 0o700)
    scan(t, source)
    mount = t.mount(source, ["ro"], name="again")
    equal(plan_of(t, mount, "in a closed directory/backed/down/file"), SHARED, "once it is open to everybody")
    check(plan_of(t, mount, "root for root/backed/down/file") != SHARED, "backed from what was closed")


@test(timeout=60)
def who_has_it_open_for_writing(t):
    """A file that somebody has open for writing, or mapped so, from before the mount or from when it was his, backs
    nothing as long as he has; nor does one that changed hands since the scan."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 20)
    backing = put(source + "/a", content, USER)
    lingering = os.open(backing, os.O_RDWR)
    os.chown(backing, ROOT, ROOT)
    put(source + "/private", content, ROOT, 0o600)
    scan(t, source)
    mount = t.mount(source, ["ro"])
    for name in ("a", "private"):
        check(plan_of(t, mount, name) != SHARED, name + " shared, of what was open for writing when it was scanned")
    mount.unmount()
    os.close(lingering)
    scan(t, source)
    mount = t.mount(source, ["ro"], name="after")
    equal(plan_of(t, mount, "private"), SHARED, "closed and scanned")
    mapped = os.open(backing, os.O_RDWR)
    with mmap.mmap(mapped, len(content)):
        os.close(mapped)
        check(plan_of(t, mount, "private") != SHARED, "shared from what is mapped for writing")
    equal(plan_of(t, mount, "private"), SHARED, "when that is over, and nothing was written")
    os.chown(backing, USER, USER)
    check(plan_of(t, mount, "private") != SHARED, "shared from what is another's now")


@test(transports="each", timeout=60)
def what_backs_is_given_away(t):
    """Root's file backs another one, which somebody has open, and is given to a user, who writes into it: whoever opens
    the other one from then on has its own bytes."""
    source = t.make_dir("source")
    content = make_pages(t.rng, 20)
    for name in ("a", "b"):
        put(source + "/" + name, content)
    put(source + "/private", content, ROOT, 0o600)
    scan(t, source)
    mount = t.mount(source, ["ro", "attr_timeout=0", "entry_timeout=0"], audit=False)
    with open(mount.path("private"), "rb") as first:
        equal(plans(mount)["shared"], 1, "shared")
        equal(first.read(), content, "by the first")
        for name in ("a", "b"):
            os.chown(source + "/" + name, USER, USER)
            as_user(t, USER, overwrite, source + "/" + name, bytes(len(content)))
        for _ in range(2):
            equal(read_file(mount.path("private")), content, "opened when both are the user's")
    released(mount)
    equal(read_file(mount.path("private")), content, "opened when nobody has it open")


# ---- what was compared with what ----------------------------------------------------------------

@test(timeout=60)
def a_class_rests_on_who_may_speak(t):
    """Files are compared with a trusted one, or with one of their own writers: a user who lies about the file that
    the scan came upon first harms his own files alone."""
    source = lying_source(t)
    content = make_pages(t.rng, 16)
    mine = [put("%s/u/%d" % (source, number), content, USER) for number in range(3)]
    donor = put(source + "/u/donor", make_pages(t.rng, 16), USER)
    sync_source(source)
    scan(t, source)
    as_user(t, USER, lie, mine[0], donor, 4096)
    # Equal, by what was recorded of his.
    for name, uid in (("root0", ROOT), ("root1", ROOT), ("other0", OTHER), ("other1", OTHER)):
        put(source + "/" + name, content, uid)
    sync_source(source)
    scan(t, source)
    mount = t.mount(source, ["ro"])
    for name in ("root0", "root1", "other0", "other1"):
        with open(mount.path(name), "rb") as file:
            equal(plans(mount)["shared"], 1, name + " is shared")
            equal(file.read(), content, name)
            equal(mount.audit(idle=False)["checks"]["backing"]["checked"], 1, "backing files that were audited")
        released(mount)


def clones(t, source, owners):
    """Files of those owners with most pages in common; contents by name."""
    base = t.rng.randbytes(256 * PAGE)
    contents = {}
    for name, uid in owners:
        contents[name] = changed(t, base, t.rng.sample(range(200, 256), 3))
        put(source + "/" + name, contents[name], uid, 0o600)
    sync_source(source)
    return contents


@test(transports="each", timeout=60, variants={"read": [], "no window": ["window=0"]})
def a_lie_is_not_adopted(t, options):
    """A user's file is like a victim's, and was when both were compared; then he changes it and no time moves. What he
    reads of it through the mount is nobody else's, neither read nor stored through a mapping; root's is for all."""
    source = lying_source(t, 1024)
    contents = clones(t, source, (("his", USER), ("donor", USER), ("victim", OTHER), ("roots", ROOT), ("own", USER)))
    scan(t, source)
    mount = t.mount(source, options + ["passthrough_max=0"])
    as_user(t, USER, lie, source + "/his", source + "/donor", 1024, range(1, 800, 4), 1)
    read_file(mount.path("his"))
    told = adopted(mount)
    equal(read_file(mount.path("victim")), contents["victim"], "the victim's")
    equal(adopted(mount), told, "adopted for the victim, before root has read")
    equal(read_file(mount.path("roots")), contents["roots"], "root's")
    equal(adopted(mount), told, "adopted for root")
    mount.expect_log("opened behind the mount")  # its release may come after our look at the source
    with open(mount.path("victim"), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        for page in range(100):
            mapped[page * PAGE] = ord("!")
        mapped.flush()
    model = bytearray(contents["victim"])
    model[0:100 * PAGE:PAGE] = b"!" * 100
    equal(read_file(source + "/victim"), bytes(model), "the victim's source")
    mount.audited = False  # what the user's file is said to hold is his own lie
    mount.unmount()
    mount = t.mount(source, options + ["passthrough_max=0"], name="again")
    read_file(mount.path("roots"))
    read_file(mount.path("own"))
    check(adopted(mount) > 0, "a user's file has nothing of root's")
    equal(read_file(mount.path("own")), contents["own"], "the user's other one")


@test(timeout=60)
def nothing_outlives_a_change_of_hands(t):
    """A user's file adopts what he tells of another one of his, which is a lie; root takes it over through the mount,
    and reads what it holds."""
    source = lying_source(t, 1024)
    contents = clones(t, source, (("his", USER), ("donor", USER), ("taken", USER)))
    scan(t, source)
    mount = t.mount(source, ["window=0", "passthrough_max=0"], audit=False)
    as_user(t, USER, lie, source + "/his", source + "/donor", 1024, range(1, 800, 4), 1)
    read_file(mount.path("his"))
    read_file(mount.path("taken"))
    check(adopted(mount) > 0, "nothing was adopted from his other file")
    os.chown(mount.path("taken"), ROOT, ROOT)
    equal(read_file(mount.path("taken")), contents["taken"], "when it is root's")
    mount.audit(idle=False)


# ---- kept copies --------------------------------------------------------------------------------

def opens_shared(mount, name, content):
    with open(mount.path(name), "rb") as file:
        equal(file.read(), content, name)
        shared = plans(mount)["shared"]
    released(mount)
    return shared


@test(transports="full", timeout=60)
def a_copy_is_compared_before_it_is_served(t):
    """coherence=overlay: the copy that is to back equal files is asked for by an open of a user's, who has lied about his.
    Root's is served right, in this mount and the next; and no copy has his bytes."""
    source = lying_source(t)
    content = make_pages(t.rng, 16)
    roots = put(source + "/etc/root", content, ROOT)
    mine = put(source + "/u/mine", content, USER)
    donor = put(source + "/u/donor", make_pages(t.rng, 16), USER)
    sync_source(source)
    scan(t, source)
    as_user(t, USER, lie, mine, donor, 4096)
    for name in ("one", "two"):
        mount = t.mount(source, ["coherence=overlay"], name=name, audit=False)
        as_user(t, USER, read_file, mount.path("u/mine"))
        until(lambda: opens_shared(mount, "etc/root", content), 20 * t.patience, "root's is shared")
        equal([read_file(copy) for copy in copies(t)], [content], "the copies")
        mount.unmount()
    equal(read_file(roots), content, "root's")


@test(transports="full", timeout=60)
def a_users_copy_serves_himself(t):
    """coherence=overlay: where nobody trusted has the content, a user's copy serves his files, and not another's; one
    of a file that lies is never made; root's takes its place."""
    source = lying_source(t)
    content = make_pages(t.rng, 16)
    first = put(source + "/root", content, ROOT)
    for name, uid in (("a", USER), ("b", USER), ("other", OTHER)):
        put(source + "/" + name, content, uid)
    donor = put(source + "/donor", make_pages(t.rng, 16), USER)
    sync_source(source)
    scan(t, source)
    kept = source + "/root.kept"
    os.rename(first, kept)  # not there under the name that is known
    mount = t.mount(source, ["coherence=overlay"])
    until(lambda: opens_shared(mount, "a", content), 20 * t.patience, "the user's is shared")
    equal(opens_shared(mount, "b", content), 1, "his other one")
    equal(opens_shared(mount, "other", content), 0, "another's, shared")
    os.rename(kept, first)
    scan(t, source)
    until(lambda: opens_shared(mount, "other", content), 20 * t.patience, "another's is shared with root's")
    equal(opens_shared(mount, "a", content), 1, "the user's, still")
    mount.unmount()
    # Without root's, a lie is found out by the class's digest.
    for copy in copies(t):
        os.unlink(copy)
    os.rename(first, kept)
    as_user(t, USER, lie, source + "/a", donor, 4096)
    mount = t.mount(source, ["coherence=overlay"], name="again", audit=False)
    for _ in range(3):
        read_file(mount.path("a"))
        released(mount)
    until(lambda: opens_shared(mount, "b", content), 20 * t.patience, "his honest one is shared")
    equal([read_file(copy) for copy in copies(t)], [content], "the copies")


@test(transports="full", timeout=60)
def audit_finds_wrong_copies(t):
    """A copy, or a file that backs others, of which bytes are others than they were and no time has moved: differences."""
    source = lying_source(t)
    t.loop_file_system("ext4", name="kept", how=("-b", "4096"))
    content = make_pages(t.rng, 16)
    for name in ("a", "b"):
        put(source + "/" + name, content)
    sync_source(source)
    state = "--state=" + t.path("kept")
    t.run(t.foldctl_command() + ["scan", "--json", state, source])
    donors = [put(directory + "/donor", make_pages(t.rng, 16)) for directory in (t.path("kept"), source)]
    mount = t.mount(source, ["coherence=overlay", "state=" + t.path("kept")], audit=False)
    until(lambda: opens_shared(mount, "a", content), 20 * t.patience, "shared")
    report = mount.audit(idle=False)
    equal(report["checks"]["objects"], {"checked": 1, "different": 0, "unsteady": 0}, "the copies")
    equal((mount.status()["copies"], mount.status()["copies_bytes"]), (1, len(content)), "told by the status")
    (copy,) = (os.path.join(top, name) for top, _, names in os.walk(t.path("kept")) for name in names
               if os.path.basename(top) == "objects")
    lie(copy, donors[0], 4096)
    equal(differences(t, mount)["objects"]["different"], 1, "of a copy")
    mount.unmount()
    mount = t.mount(source, ["ro", "state=" + t.path("kept")], name="ro", audit=False)
    with open(mount.path("b"), "rb") as file:
        equal(plans(mount)["shared"], 1, "shared")
        equal(file.read(), content, "b")
        equal(mount.audit(idle=False)["checks"]["backing"]["checked"], 1, "files that are backed")
        for name in ("a", "b"):
            lie(source + "/" + name, donors[1], 4096)
            found = differences(t, mount)["backing"]["different"]
            if found:
                break
        equal(found, 1, "of a file that is backed")


def differences(t, mount):
    result = t.run(t.foldctl_command() + ["audit", "--json", mount.point], timeout=60 * t.patience, status=None)
    return json.loads(result.stdout)["checks"]


@test(transports="full", timeout=60)
def copies_go_with_what_they_are_copies_of(t):
    """A copy is removed when the last of the files that had its content is: through the mount, by unlink or by another
    file's rename over it; and with the next scan, be it foldctl's or the mount's."""
    source = t.make_dir("source")
    contents = [make_pages(t.rng, 10) for _ in range(4)]
    for number, content in enumerate(contents):
        for name in ("a", "b"):
            put("%s/%d/%s" % (source, number, name), content)
    scan(t, source)
    mount = t.mount(source, ["coherence=overlay"])
    for number, content in enumerate(contents):
        until(lambda: opens_shared(mount, "%d/a" % number, content), 20 * t.patience, "%d is shared" % number)
    equal(mount.status()["copies"], 4, "copies")
    os.unlink(mount.path("0/a"))
    os.unlink(mount.path("0/b"))
    until(lambda: len(copies(t)) == 3, 20 * t.patience, "unlinked: a copy goes")
    os.unlink(mount.path("1/a"))
    write_file(mount.path("new"), b"new")
    os.rename(mount.path("new"), mount.path("1/b"))
    until(lambda: mount.status()["copies"] == 2, 20 * t.patience, "renamed over: a copy goes")
    for name in ("a", "b"):
        os.unlink("%s/2/%s" % (source, name))
    equal(len(copies(t)), 2, "copies, before anybody has looked")
    scan(t, source)
    equal(len(copies(t)), 1, "copies after foldctl's scan")
    equal(opens_shared(mount, "3/b", contents[3]), 1, "the last one is shared")
    mount.unmount()
    for name in ("a", "b"):
        os.unlink("%s/3/%s" % (source, name))
    mount = t.mount(source, ["coherence=overlay", "scan=background"], name="again")
    until(lambda: not copies(t), 20 * t.patience, "copies are gone after the mount's scan")
    until(lambda: not mount.status()["copies"], 20 * t.patience, "told by the status")
