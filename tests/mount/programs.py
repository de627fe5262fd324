# SPDX-License-Identifier: Apache-2.0
"""Programs that do what they are told, one call at a time: open files, lock and unlock them, close them, end, die."""

import errno
import fcntl
import functools
import os
import pickle
import signal
import socket
import struct

from harness import Failure
from users import become

POSIX, OFD, FLOCK = "posix", "ofd", "flock"
HOW = (POSIX, OFD, FLOCK)
READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


def range_of(kind, start, length):
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0)


def lock(fd, how, kind, start=0, length=0, wait=False):
    """Lock or unlock, as the calling process does it. The errno; 0 if it has worked."""
    try:
        if how == FLOCK:
            operation = {READ: fcntl.LOCK_SH, WRITE: fcntl.LOCK_EX, NONE: fcntl.LOCK_UN}[kind]
            fcntl.flock(fd, operation | (0 if wait else fcntl.LOCK_NB))
        elif how == OFD:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, range_of(kind, start, length))
        else:
            fcntl.fcntl(fd, fcntl.F_SETLKW if wait else fcntl.F_SETLK, range_of(kind, start, length))
    except OSError as error:
        return error.errno
    return 0


def in_the_way(fd, how, kind, start=0, length=0):
    """(type, start, length, pid) of a lock that would be in the way; None if there is none."""
    command = fcntl.F_OFD_GETLK if how == OFD else fcntl.F_GETLK
    found = struct.unpack("hhqqi0q", fcntl.fcntl(fd, command, range_of(kind, start, length)))
    return None if found[0] == NONE else (found[0], *found[2:5])


def answer(function, args):
    try:
        return function(*args)
    except OSError as error:
        return error


def interrupted(*_):
    raise InterruptedError(errno.EINTR, "a signal")


RUNNING = []


def ends_programs(function):
    """A test at whose end, before that of its mounts, its programs are ended."""
    @functools.wraps(function)
    def and_end(*args):
        try:
            function(*args)
        finally:
            while RUNNING:
                RUNNING.pop().kill()
    return and_end


class Program:
    """A process that does what it is told."""

    CALLS = {"open": os.open, "close": os.close, "dup": os.dup, "lock": lock, "in_the_way": in_the_way,
             "pread": os.pread, "pwrite": os.pwrite, "size": lambda fd: os.fstat(fd).st_size, "end": lambda: None}

    def __init__(self, t, uid=None):
        self.t = t
        self.here, there = socket.socketpair()
        self.child = t.fork(self._run, there, uid)
        self.pid = self.child.pid
        there.close()
        self.here.settimeout(60)
        self.alive = True
        RUNNING.append(self)

    def _run(self, there, uid):
        self.here.close()
        if uid:
            become(uid)
        reader = there.makefile("rb")
        signal.signal(signal.SIGUSR1, interrupted)
        name = None
        while name != "end":
            name, args = pickle.load(reader)
            there.sendall(pickle.dumps(answer(self.CALLS[name], args)))

    def send(self, name, *args):
        self.here.sendall(pickle.dumps((name, args)))

    def result(self):
        try:
            result = pickle.loads(self.here.recv(65536))
        except TimeoutError:
            raise Failure("a program gives no answer")
        if isinstance(result, OSError):
            raise result
        return result

    def call(self, name, *args):
        self.send(name, *args)
        return self.result()

    def open(self, path, flags=os.O_RDWR):
        return self.call("open", path, flags)

    def lock(self, fd, how, kind, *more):
        return self.call("lock", fd, how, kind, *more)

    def interrupt(self):
        os.kill(self.pid, signal.SIGUSR1)

    def end(self):
        """It ends by itself, and closes what it has open."""
        self.call("end")
        self.alive = False
        self.t.join([self.child])
        self.here.close()

    def kill(self):
        if not self.alive:
            return
        self.alive = False
        os.kill(self.pid, signal.SIGKILL)
        self.child.may_die_of = signal.SIGKILL
        self.t.join([self.child])
        self.here.close()
