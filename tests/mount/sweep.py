# SPDX-License-Identifier: Apache-2.0
"""Calls of foldfs that fail one by one: what foldfs-faulty is told, and scenarios that are run for each n.

A scenario is a list of operations with known results. It is run for n = 1, 2, ...: the n-th call of the
chosen classes fails, until a run reaches no fault any more. Each operation gives the right result, or the
fault's errno and nothing wrong: it is then repeated and succeeds. What must not show (EINTR, short counts,
a pool or worker without memory, and whatever passthrough, the catalogue and a watch need beside the
source) gives the right result at once.

Before all of them, and after those of each kind, a scenario is run with no fault: then it proves that it is
served as its row says, so nothing was given up for good.
"""

import errno
import mmap
import os
import struct

from harness import Failure, PAGE, check, equal, errno_of, mounts_under, read_file, until, write_file
from results import record_result

# Classes of calls, as in tests/crash/faulty.c.
(READ, WRITE, OPEN, OPEN_PATH, HANDLE, STAT, SIZE, COPY, SYNC, NAME, ATTRIBUTE, DIRECTORY, ALLOCATION,
 THREAD) = (1 << bit for bit in range(14))
SOURCE = ALLOCATION - 1
BACKING, REPORT, CATALOGUE, START = (1 << bit for bit in range(14, 18))
# Whatever fails there, the file is served from the window, or what is known of it is forgotten.
MACHINERY = BACKING | REPORT | CATALOGUE
CONTROL = struct.Struct("<IIiIIIq")
STRIDE = int(os.environ.get("FOLDFS_SWEEP_STRIDE", "0"))
SLOW = 60 if STRIDE else 1
MDB_MAP_FULL = -30792


class Faults:
    """What foldfs-faulty is told."""

    def __init__(self, path):
        write_file(path, bytes(PAGE))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), PAGE)

    def arm(self, classes, nth, code):
        CONTROL.pack_into(self.memory, 0, 0, nth, code, 0, 0, 0, self.clock())
        struct.pack_into("<I", self.memory, 0, classes)

    def armed(self):
        return struct.unpack_from("<I", self.memory, 0)[0] != 0

    def disarm(self):
        struct.pack_into("<I", self.memory, 0, 0)

    def arm_again(self, classes):
        """Go on counting where disarm() stopped."""
        struct.pack_into("<I", self.memory, 0, classes)

    def applied(self):
        return CONTROL.unpack_from(self.memory, 0)[4]

    def hit(self):
        return CONTROL.unpack_from(self.memory, 0)[5]

    def clock(self, seconds=None):
        """Set how far CLOCK_REALTIME is ahead of the truth, or tell."""
        if seconds is not None:
            struct.pack_into("<q", self.memory, 24, seconds)
        return CONTROL.unpack_from(self.memory, 0)[6]


def faulty(t):
    """Have the test's mounts be foldfs-faulty's; what they are told."""
    program = os.path.join(t.build, "tests", "crash", "foldfs-faulty")
    if not os.access(program, os.X_OK):
        t.skip("foldfs-faulty is not built here (not for ThreadSanitizer, not without unit tests)")
    faults = Faults(t.path("faults-of-calls"))
    os.environ["FOLDFS_FAULTS"] = t.path("faults-of-calls")
    command = t.foldfs_command()
    t.foldfs_command = lambda: command[:-1] + [program]
    return faults


def mount_faulty(t, source, options, **kwargs):
    faults = faulty(t)
    return t.mount(source, options, **kwargs), faults


class Fault:
    """A kind of fault: which calls, what they say, and which errnos the user may see of it."""

    def __init__(self, classes, code, visible=None):
        self.classes = classes
        self.code = code
        self.visible = {code} if visible is None else visible


# What an errno of the source becomes where it cannot be told from it: a page that is mapped and
# cannot be read is EFAULT to a system call.
IMPLIED = {errno.EFAULT}
FAULTS = {
    "EIO": Fault(SOURCE, errno.EIO),
    "ENOSPC": Fault(WRITE | SIZE | COPY | SYNC | NAME | ATTRIBUTE | OPEN, errno.ENOSPC),
    "EDQUOT": Fault(WRITE | SIZE | COPY | SYNC | NAME, errno.EDQUOT),
    # A limit of the daemon's is none of the client's: ENFILE.
    "EMFILE": Fault(OPEN | OPEN_PATH | THREAD, errno.EMFILE, {errno.ENFILE}),
    "EINTR": Fault(READ | WRITE | OPEN | SIZE | COPY | SYNC | REPORT, errno.EINTR, set()),
    "short": Fault(READ | WRITE | COPY, 0, set()),
    "ENOMEM": Fault(ALLOCATION, errno.ENOMEM),
    "machinery EIO": Fault(MACHINERY, errno.EIO, set()),
    "machinery ENOMEM": Fault(MACHINERY, errno.ENOMEM, set()),
    "catalogue full": Fault(CATALOGUE, MDB_MAP_FULL, set()),
}
SOURCE_KINDS = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EINTR", "short", "ENOMEM")


class Scenario:
    """Operations, in run(). Each is repeated after the fault; `model` is what files must hold."""

    directory = "scenario"
    leaves = {"filler"}  # in the source, when it is over
    kinds = SOURCE_KINDS
    options = ("pool=1M", "attr_timeout=0", "entry_timeout=0", "passthrough_max=0")
    strides = {"quick": 150, "full": 60}  # where tests/crash/run says none
    seconds = 20
    log = None  # a pattern of what the daemon may say of a fault

    def __init__(self, mount, source, faults, fault, rng):
        self.mount = mount
        self.top = mount.path(self.directory)
        self.below = os.path.join(source, self.directory)
        self.faults = faults
        self.fault = fault
        self.rng = rng
        self.model = {}
        self.open = {}

    @classmethod
    def begin(cls, t, source):
        """What the source has before the mount."""
        t.make_dir("source", "filler")
        for number in range(60):
            write_file("%s/filler/%d" % (source, number), b"x")

    @classmethod
    def prepare(cls, t, source):
        """What it has before each run."""

    def run(self):
        raise NotImplementedError

    def path(self, name):
        return os.path.join(self.top, name)

    def do(self, what, call, *args, done=None, content=False, failed=None):
        """CALL(*ARGS), once more if the fault hit it. DONE: errno that says that it was done the first
        time. CONTENT: of an open file, which does not depend on memory. FAILED() checks what a failure
        leaves, before the call is repeated."""
        try:
            return call(*args)
        except OSError as error:
            code = error.errno
        except Failure as failure:
            raise Failure("%s: %s" % (what, failure))
        name = errno.errorcode.get(code, code)
        check(self.faults.applied(), "%s: %s, and nothing had failed" % (what, name))
        check(code in self.fault.visible | (IMPLIED if self.fault.visible else set()),
              "%s: %s shows, of a fault in class %d" % (what, name, self.faults.hit()))
        check(not (content and self.fault.code == errno.ENOMEM), "%s: fails without memory" % what)
        if failed:
            failed()
        try:
            return call(*args)
        except OSError as error:
            check(error.errno == done, "%s: %s when repeated" % (
                what, errno.errorcode.get(error.errno, error.errno)))

    def close(self, fd):
        """Closed whatever it says: close(2) tells of an error, and is never repeated."""
        code = errno_of(os.close, fd)
        check(not code or self.faults.applied() and code in self.fault.visible, "close: errno %d" % code)

    # -- pieces of content

    def create(self, name):
        def call():
            self.open[name] = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o644)
        self.do("create " + name, call)
        self.model[name] = bytearray()

    def serves_the_source(self, name):
        """Whatever a change that failed has left: the mount has what the source has."""
        self.drop_cache(name)
        wanted = read_file(os.path.join(self.below, name))
        equal(os.pread(self.open[name], len(wanted) + PAGE, 0), wanted, "%s after a change that failed" % name)

    def write(self, name, length, at):
        part = self.rng.randbytes(length)

        def call():
            done = 0
            while done < length:
                done += os.pwrite(self.open[name], part[done:], at + done)
        self.do("write %s" % name, call, content=True, failed=lambda: self.serves_the_source(name))
        model = self.model[name]
        if len(model) < at + length:
            model += bytes(at + length - len(model))
        model[at:at + length] = part

    def read(self, name, length, at, fd=None):
        fd = self.open[name] if fd is None else fd
        wanted = bytes(self.model[name][at:at + length])

        def call():
            found = os.pread(fd, length, at)
            # A read that runs into an error gives what is before it.
            if len(found) < len(wanted) and self.faults.applied() and self.fault.visible and \
                    self.fault.code != errno.ENOMEM and wanted.startswith(found):
                found = os.pread(fd, length, at)
            equal(found, wanted, "content of " + name)
        self.do("read %s" % name, call, content=True)

    def drop_cache(self, name):
        os.posix_fadvise(self.open[name], 0, 0, os.POSIX_FADV_DONTNEED)

    # -- files that are there before

    def known(self, *names):
        """Files of the source, whose content is the model."""
        for name in names:
            self.model[name] = bytearray(read_file(os.path.join(self.below, name)))

    def opened(self, name, flags=os.O_RDONLY):
        """A descriptor; `open` has the latest one of each name."""
        self.open[name] = self.do("open " + name, os.open, self.path(name), flags)
        return self.open[name]

    def read_all(self, name, fd=None):
        for at in range(0, len(self.model[name]) + PAGE, 100 * 1024):
            self.read(name, 100 * 1024, at, fd)

    def read_mapped(self, name, mapped, content=None):
        """By a system call, which a page that cannot be read fails; a touch would be SIGBUS."""
        wanted = bytes(self.model[name] if content is None else content)
        memory = os.memfd_create("sweep")

        def touch():
            done = 0
            while done < len(wanted):
                done += os.pwrite(memory, memoryview(mapped)[done:len(wanted)], done)
        self.do("read mapped " + name, touch, content=True)
        equal(os.pread(memory, len(wanted) + 1, 0), wanted, "mapped " + name)
        os.close(memory)

    def as_in_the_source(self):
        for name, model in self.model.items():
            equal(read_file(os.path.join(self.below, name)), bytes(model), "%s in the source" % name)

    def settled(self):
        """No request is under way: the kernel releases a file some time after its close. The daemon is not
        asked, for that would make calls."""
        minor = next(minor for point, minor, _ in mounts_under(self.mount.point) if point == self.mount.point)
        path = "/sys/fs/fuse/connections/%d/waiting" % minor
        until(lambda: read_file(path) == b"0\n", 10, "no request is under way")

    def proves(self, what, figure, wanted):
        """FIGURE(status), without a fault."""
        if not self.faults.armed():
            found = figure(self.mount.status())
            check(wanted(found), "%s: %r" % (what, found))

    def proves_plan(self, kind, files):
        self.proves("files of plan " + kind, lambda status: status["plans"][kind], lambda found: found == files)


# ---- running them ----

def clean_up(scenario, mount, source):
    for path in (source, mount.point):
        equal(set(os.listdir(path)), scenario.leaves, "what the scenario leaves in " + path)


def run_once(t, scenario, mount, source, faults, fault, what):
    def run():
        try:
            scenario(mount, source, faults, fault, t.rng).run()
        except BaseException:
            print("the fault: %s, class %d" % (what, faults.hit()))
            raise

    t.rng.random()  # other bytes in each run: the pool must not know them yet
    t.join([t.fork(run)], seconds=scenario.seconds)


def run_without_fault(t, scenario, mount, source, faults):
    scenario.prepare(t, source)
    run_once(t, scenario, mount, source, faults, Fault(0, 0, set()), "none")


def strides(t, scenario=Scenario):
    """n, again and again further; the first one at random."""
    stride = STRIDE or scenario.strides[t.suite]
    nth = 1 + t.rng.randrange(stride) if stride > 1 else 1
    while True:
        yield nth
        nth += stride


def sweep(t, scenario, mount, source, faults, kind):
    """Every STRIDE-th fault of a kind. Returns how many applied."""
    fault = FAULTS[kind]
    for applied, nth in enumerate(strides(t, scenario)):
        scenario.prepare(t, source)
        faults.arm(fault.classes, nth, fault.code)
        run_once(t, scenario, mount, source, faults, fault, "%s in call %d" % (kind, nth))
        faults.disarm()
        clean_up(scenario, mount, source)
        if not faults.applied():
            return applied


def tell(t, applied):
    """How many faults of each kind APPLIED: into the results, and in words for a sweep of all."""
    check(sum(applied.values()) or STRIDE > 1, "no fault applied")
    for kind, count in applied.items():
        check(count or STRIDE != 1, "no fault of kind %s applied" % kind)
    record_result(t, faults=applied)
    return "%d faults of %d kinds, each followed by a full comparison" % (
        sum(applied.values()), len(applied)) if STRIDE else None


def fail_every_call(t, scenario, options, descriptors=None):
    source = t.make_dir("source")
    scenario.begin(t, source)
    mount, faults = mount_faulty(t, source, list(scenario.options) + options, limit_nofile=descriptors)
    if scenario.log:
        mount.expect_log(scenario.log)
    kept = [os.open(mount.path("filler", str(number)), os.O_PATH) for number in range(60 if descriptors else 0)]
    run_without_fault(t, scenario, mount, source, faults)
    applied = {}
    for kind in scenario.kinds:
        applied[kind] = sweep(t, scenario, mount, source, faults, kind)
        run_without_fault(t, scenario, mount, source, faults)
        print("%s: %d faults" % (kind, applied[kind]), flush=True)
    for fd in kept:
        os.close(fd)
    mount.unmount()  # which audits: no frame is lost
    return tell(t, applied)
