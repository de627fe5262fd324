# SPDX-License-Identifier: Apache-2.0
"""Containers for the tests: trees of a real Debian, and runc (on cgroups of version 1 or 2).

A container's first process reads its standard input to the end, which is a pipe from the test: whatever
becomes of the test, its containers end with it.
"""

import hashlib
import json
import mmap
import os
import shlex
import stat
import subprocess

from harness import CACHE, Failure, Skip, check, equal, mounts_under, sync_source, until

# What containers need of a tree to run Python, Perl, dpkg and apt; the rest would only take time.
LEFT_OUT = ("usr/share/locale", "usr/share/doc", "usr/share/man", "usr/share/perl",
            "usr/share/zoneinfo", "usr/share/bash-completion", "usr/share/lintian", "usr/lib/x86_64-linux-gnu/perl",
            "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/python3.*/test", "var/lib/apt/lists/*_*")

# What dpkg and the servers need to change owners and identities, and to open port 80.
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
                "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"]


# ---- trees --------------------------------------------------------------------------------------

def tree_directory(name):
    directory = os.path.join(CACHE, "trees", name)
    if not os.path.isdir(directory):
        raise Skip("the trees are not made yet: run scripts/images --trees")
    return directory


def make_tree_copy(t, name, target, left_out=LEFT_OUT):
    """A tree with all that its files have, without the parts that no test needs."""
    os.makedirs(target)
    leave = shlex.join("--exclude=./" + path for path in left_out)
    t.run(["sh", "-c", 'tar -C "$0" %s -cf - . | tar -C "$1" -xpf -' % leave, tree_directory(name), target], timeout=60)


def copy_tree(t, tree, *targets):
    for target in targets:
        t.run(["cp", "-a", "--reflink=auto", tree, target], timeout=60)


def scan_trees(t, source):
    """Fill the catalogue of a source; again until no file is too young to be recorded."""
    sync_source(source)

    def known():
        done = t.run(t.foldctl_command() + ["scan", "--json", "--state=" + t.path("state"), source],
                     timeout=100 * t.patience)
        return json.loads(done.stdout)["unrecorded_files"] == 0

    until(known, 60 * t.patience, "every file's stamp is old enough")


def entries(root):
    """Everything below a directory, by its relative path, without following symbolic links."""
    for directory, _, names in os.walk(root):
        yield os.path.relpath(directory, root)
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), root)


def attributes(path):
    """What of a file a copy under another device keeps, and where a symbolic link leads."""
    found = os.lstat(path)
    link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else None
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False)
              for name in os.listxattr(path, follow_symlinks=False)}
    return (found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
            found.st_ino, found.st_nlink, found.st_rdev, link, xattrs)


def digest(content):
    return hashlib.blake2b(content, digest_size=16).digest()


def read_and_map(path):
    """The digest of a file's bytes, read and mapped, which must be the same."""
    with open(path, "rb") as file:
        content = file.read()
        if content:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                check(mapped[:] == content, path + ": read and mapped differ")
    return digest(content)


def picture(root, look=read_and_map):
    """The attributes of everything below a directory, and the bytes of every regular file, or what look() says."""
    found = {}
    for name in entries(root):
        path = os.path.join(root, name)
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        found[name] = (attributes(path), look(path) if regular else None)
    return found


def equal_pictures(found, expected, what):
    equal(sorted(found), sorted(expected), what + ": names")
    for name, (attribute, content) in expected.items():
        equal(found[name][0], attribute, "%s: attributes of %s" % (what, name))
        equal(found[name][1], content, "%s: bytes of %s" % (what, name))


# ---- packages -----------------------------------------------------------------------------------

def build_package(t, version, files, name="sample"):
    """A Debian package of the given files (path -> (bytes, mode)); the path of the .deb."""
    t.need("dpkg-deb")
    root = t.make_dir("package-%s-%s" % (name, version))
    os.makedirs(root + "/DEBIAN")
    with open(root + "/DEBIAN/control", "w") as file:
        file.write("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\n"
                   "Description: a sample\n" % (name, version))
    for path, (content, mode) in files.items():
        target = root + "/" + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)
        os.chmod(target, mode)
    package = t.path("%s_%s.deb" % (name, version))
    t.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, package])
    return package


# ---- runc ---------------------------------------------------------------------------------------

def settings(rootfs, readonly, binds, arguments):
    """The configuration of a container, from runc's own example."""
    given = json.loads(subprocess.run(
        ["sh", "-c", 'd=$(mktemp -d) && cd "$d" && runc spec && cat config.json; rm -rf "$d"'], check=True, timeout=30,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout)
    process = given["process"]
    process.update(terminal=False, args=arguments, noNewPrivileges=False)
    process["env"] += ["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "PYTHONDONTWRITEBYTECODE=1"]
    process["capabilities"] = {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")}
    process.pop("rlimits", None)
    given["root"] = {"path": rootfs, "readonly": readonly}
    for point in ("/run", "/tmp"):
        given["mounts"].append({"destination": point, "type": "tmpfs", "source": "tmpfs",
                                "options": ["nosuid", "nodev", "mode=1777", "size=64m"]})
    for outside, inside in binds.items():
        given["mounts"].append({"destination": inside, "type": "bind", "source": outside,
                                "options": ["bind", "ro"]})
    return given


class Container:
    """A running container over a root file system. end() must be called, or used as a context."""

    def __init__(self, t, rootfs, readonly=False, binds=None):
        self.t = t
        self.name = "foldfs-test-%d-%d" % (os.getpid(), len(os.listdir(t.make_dir("bundles"))))
        bundle = t.make_dir("bundles", self.name)
        with open(bundle + "/config.json", "w") as file:
            json.dump(settings(rootfs, readonly, binds or {}, ["cat"]), file)
        with open(bundle + "/log", "wb") as log:
            self.process = subprocess.Popen(self._runc("run", "--bundle", bundle, self.name), stdin=subprocess.PIPE,
                                            stdout=log, stderr=log)
        self.log = bundle + "/log"
        t.at_end(self._remove)
        until(self._is_up, 20 * t.patience, "container %s runs" % self.name)

    def _runc(self, *words):
        return ["runc", "--root", self.t.path("runc"), *words]

    def _state(self):
        done = self.t.run(self._runc("state", self.name), status=None)
        return json.loads(done.stdout) if done.returncode == 0 else {"status": "none"}

    def _is_up(self):
        if self.process.poll() is not None:
            with open(self.log) as log:
                raise Failure("the container ended with status %d: %s" % (self.process.returncode, log.read()))
        return self._state()["status"] == "running"

    def pid(self):
        """The first process, as seen from outside."""
        return self._state()["pid"]

    def command(self, *arguments):
        return self._runc("exec", self.name, *arguments)

    def run(self, *arguments, status=0, timeout=60):
        """What a program inside prints; it must end with that status."""
        return self.t.run(self.command(*arguments), timeout=timeout * self.t.patience, status=status).stdout

    def python(self, text, *arguments):
        return self.run("python3", "-c", text, *arguments)

    def start(self, *arguments):
        """A program inside that goes on; it is asked and answers by its standard input and output."""
        return Inside(self, arguments)

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            equal(self.process.wait(20 * self.t.patience), 0, "status of container " + self.name)

    def _remove(self):
        """For a test that failed: nothing of it may be left."""
        if self.process.poll() is None:
            subprocess.run(self._runc("delete", "--force", self.name), timeout=20, stderr=subprocess.DEVNULL)
            self.process.stdin.close()
            self.process.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.end()
        else:
            self._remove()


class Inside:
    """A Python program in a container that answers each line that it is sent with one line."""

    def __init__(self, container, arguments):
        self.process = subprocess.Popen(container.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def end(self):
        self.process.stdin.close()
        equal(self.process.wait(20), 0, "status of the program inside")


def need_containers(t):
    """Skip where runc cannot run a container even on a plain directory."""
    t.need("runc")
    tree = tree_directory("base")
    bundle = t.make_dir("probe")
    with open(bundle + "/config.json", "w") as file:
        json.dump(settings(tree, True, {}, ["true"]), file)
    done = t.run(["runc", "--root", t.path("runc"), "run", "--bundle", bundle, "foldfs-probe-%d" % os.getpid()],
                 timeout=60, status=None)
    if done.returncode:
        t.skip("runc cannot run containers here: " + (done.stderr.strip().splitlines() or ["it does not say why"])[-1])


def overlay(t, lower, name):
    """overlayfs over a tree of a read-only mount; its directory. The test unmounts it before the mount below."""
    upper, work, merged = (t.make_dir(name, part) for part in ("upper", "work", "merged"))
    t.run(["mount", "-t", "overlay", "overlay", "-o",
           "lowerdir=%s,upperdir=%s,workdir=%s" % (lower, upper, work), merged])

    def after_a_failure():
        if mounts_under(merged):
            t.run(["umount", "-l", merged])

    t.at_end(after_a_failure)
    return merged
