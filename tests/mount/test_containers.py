# SPDX-License-Identifier: Apache-2.0
"""Containers on the mounted tree: copies and variants of a real Debian, run by runc.

Over overlayfs on a read-only mount, and directly from a mount that can be written. What one container
does to its tree no other one sees, and what is equal is in memory once.
"""

import ctypes
import errno
import http.client
import json
import os
import stat

from containers import (LEFT_OUT, Container, build_package, copy_tree, digest, equal_pictures, make_tree_copy,
                        need_containers, overlay, picture, scan_trees)
from counting import cached_bytes
from harness import LIBC, check, equal, read_file, sync_source, test, until, write_file

PRESETS = ("release", "asan")
COPIES = ("one", "two", "three")
VARIANTS = ("web",)

# Start-up of what loads many libraries, and dlopen by name.
LOADS = """
import ctypes, sqlite3, ssl, json, decimal, lzma, bz2, zlib
assert ctypes.CDLL("libz.so.1").zlibVersion
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
print(len({line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}))
"""

# Holds a file mapped and open, and says what it sees there.
HOLDS = """
import hashlib, mmap, sys
file = open(sys.argv[1], "rb")
held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for line in sys.stdin:
    file.seek(0)
    print(hashlib.blake2b(held[:], digest_size=16).hexdigest(),
          hashlib.blake2b(file.read(), digest_size=16).hexdigest(), flush=True)
"""

# Every way to store into a file that must not be written; prints the errno of each (0: it went through).
STORES = """
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def tried(function, *arguments):
    try:
        function(*arguments)
        return 0
    except OSError as error:
        return error.errno
fd = os.open(sys.argv[1], os.O_RDONLY)
found = [tried(os.open, sys.argv[1], os.O_RDWR), tried(os.open, "/proc/self/fd/%d" % fd, os.O_RDWR)]
shared = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
found.append(ctypes.get_errno() if shared == ctypes.c_void_p(-1).value else 0)
readable = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
found.append(ctypes.get_errno() if libc.mprotect(readable, 4096, mmap.PROT_READ | mmap.PROT_WRITE) else 0)
own = mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
own[:4] = b"mine"
print(*found)
"""


def plans(mount):
    return mount.status()["plans"]


def make_copies(t, name="python3", package=None):
    """A source of copies of a tree, with a package installed."""
    source = t.make_dir("source")
    first, *others = [source + "/" + copy for copy in COPIES]
    make_tree_copy(t, name, first)
    if package:
        t.run(["dpkg", "--root=" + first, "-i", package])
    copy_tree(t, first, *others)
    return source


def make_variants(t, source):
    """A few files of their own: added, changed in a byte, of another owner, gone."""
    for variant in VARIANTS:
        tree = source + "/" + variant
        copy_tree(t, source + "/" + COPIES[0], tree)
        write_file(tree + "/etc/hostname", variant.encode())
        for number in range(3):
            write_file(tree + "/srv/own-%d" % number, t.rng.randbytes(30000))
        with open(tree + "/usr/bin/dpkg-query", "r+b") as file:
            file.seek(5000)
            byte = file.read(1)
            file.seek(5000)
            file.write(bytes([byte[0] ^ 255]))
        os.chown(tree + "/usr/bin/apt", 1000, 1000)
        os.unlink(tree + "/usr/bin/tac")


def drop_cached(t, source):
    sync_source(source)
    t.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"])


def not_in_memory_once(mount, pictures):
    """Of each content that several files of the source have, which everybody may read (others back none): where it is
    in memory, if not in one of them. What is in memory nowhere is read once more: somebody else may have dropped the machine's caches meanwhile."""
    members = {}
    for tree, files in pictures.items():
        for name, (attribute, content) in files.items():
            if content is not None and attribute[3] and attribute[0] & stat.S_IROTH:
                members.setdefault(content, {})[attribute[6]] = tree + "/" + name

    def cached(names):
        return [name for name in names if cached_bytes(os.path.join(mount.source, name))]

    found = []
    for names in (list(each.values()) for each in members.values() if len(each) > 1):
        if not cached(names):
            for name in names:
                read_file(mount.path(name))
        if len(cached(names)) != 1:
            found.append((names, cached(names), explained(mount, names[0])))
    return found


def explained(mount, name):
    return json.loads(mount.t.run(mount.t.foldctl_command() + ["explain", "--json", mount.path(name)]).stdout)


@test(suite="full", timeout=120, presets=PRESETS)
def copies_and_variants(t):
    """Copies and variants of a tree in a read-only mount: every file is what it is in the source; when all have
    been read and mapped, each content is in memory once; and root cannot store into any of it."""
    source = make_copies(t, "base")
    make_variants(t, source)
    scan_trees(t, source)
    expected = {tree: picture(source + "/" + tree) for tree in COPIES + VARIANTS}
    mount = t.mount(source, ["ro", "suid", "dev"])
    drop_cached(t, source)
    for tree, files in expected.items():
        equal_pictures(picture(mount.path(tree)), files, tree)
    wrong = not_in_memory_once(mount, expected)
    check(not wrong, "%d contents are not in memory once: %s" % (len(wrong), wrong[:5]))
    held = [os.open(mount.path(tree, "usr/bin/perl"), os.O_RDONLY) for tree in expected]
    equal(plans(mount)["shared"], len(held), "files that share their backing file")
    for fd in held:
        os.close(fd)
    stores = t.run(["python3", "-c", STORES, mount.path("one", "usr/bin/perl")]).stdout.split()
    equal(stores, [str(code) for code in (errno.EROFS, errno.EROFS, errno.EACCES, errno.EACCES)], "stores")
    for tree in expected:
        equal(digest(read_file(mount.path(tree, "usr/bin/perl"))),
              expected[tree]["usr/bin/perl"][1], "perl of %s after the stores" % tree)


def starts(container):
    """Programs that load many libraries, dlopen, Perl, and what apt and dpkg say."""
    check(int(container.python(LOADS)) > 15, "few libraries were loaded")
    equal(container.run("perl", "-MPOSIX", "-MSocket", "-e", "print POSIX::floor(6.9) * 7"), "42", "perl")
    check(container.run("apt-get", "--version").startswith("apt "), "apt-get --version")
    lines = container.run("dpkg", "-l").splitlines()
    check(sum(line.startswith("ii") for line in lines) > 80, "dpkg -l: " + lines[-1])


def packages(t):
    """Two versions of a package: data larger than a page, and a program."""
    built = {}
    for version in ("1", "2"):
        files = {"usr/lib/sample/data": (t.rng.randbytes(200000), 0o644),
                 "usr/bin/sample": (b"#!/bin/sh\necho version %s\n" % version.encode(), 0o755)}
        built[version] = (build_package(t, version, files), digest(files["usr/lib/sample/data"][0]).hex())
    return built


def package_directory(t, package):
    """A directory with that package alone, to be seen in a container."""
    directory = t.make_dir("packages")
    os.link(package, directory + "/sample.deb")
    return directory


def has_version(container, version, data):
    equal(container.run("dpkg-query", "-W", "-f", "${Version}", "sample"), version, "version by dpkg")
    equal(container.run("sample"), "version %s\n" % version, "version by the program")
    found = container.python("import hashlib; print(hashlib.blake2b(open('/usr/lib/sample/data', 'rb').read(),"
                             " digest_size=16).hexdigest())")
    equal(found, data + "\n", "the package's data")


def unread(tree):
    """A picture without the bytes: any change of them would change st_ctime."""
    return picture(tree, lambda path: None)


@test(suite="full", timeout=120, presets=PRESETS)
def containers_over_overlayfs(t):
    """Containers with overlayfs over copies in a read-only mount: programs start, a package is built, installed and
    upgraded in one of them; the others, and the source, stay as they are."""
    need_containers(t)
    built = packages(t)
    source = make_copies(t, package=built["1"][0])
    scan_trees(t, source)
    expected = {tree: unread(source + "/" + tree) for tree in COPIES}
    mount = t.mount(source, ["ro", "suid", "dev"])
    roots = [overlay(t, mount.path(tree), "overlay-" + tree) for tree in COPIES]
    binds = {package_directory(t, built["2"][0]): "/mnt"}
    containers = [Container(t, root, binds=binds) for root in roots]
    for container in containers[:t.scaled(3, 1)]:
        starts(container)
    check(plans(mount)["shared"] > 0, "nothing is shared while containers run: %r" % plans(mount))
    upgrades_alone(containers, built)
    builds_and_installs(containers[1])
    for container in containers:
        container.end()
    for root in roots:
        t.run(["umount", root])
    for tree in COPIES:
        equal_pictures(unread(source + "/" + tree), expected[tree], "the source of " + tree)


def upgrades_alone(containers, built):
    """The first container upgrades a package that all of them use; the others see nothing of it, by what they
    have mapped and open, by name, and by dpkg."""
    holders = [container.start("python3", "-c", HOLDS, "/usr/lib/sample/data") for container in containers]
    old, new = built["1"][1], built["2"][1]
    for holder in holders:
        equal(holder.ask("?"), "%s %s" % (old, old), "mapped and read before the upgrade")
    containers[0].run("apt-get", "install", "-y", "/mnt/sample.deb")
    has_version(containers[0], "2", new)
    for container in containers[1:]:
        has_version(container, "1", old)
    for holder in holders:
        equal(holder.ask("?"), "%s %s" % (old, old), "mapped and read by who had it open")
        holder.end()


def builds_and_installs(container):
    """dpkg-deb inside, then dpkg."""
    container.run("sh", "-ec", """
        mkdir -p /tmp/p/DEBIAN /tmp/p/opt
        printf 'Package: inside\\nVersion: 7\\nArchitecture: all\\nMaintainer: N <n@n>\\nDescription: x\\n' >/tmp/p/DEBIAN/control
        echo content >/tmp/p/opt/inside
        dpkg-deb -b /tmp/p /tmp/inside.deb
        dpkg -i /tmp/inside.deb""")
    equal(container.run("cat", "/opt/inside"), "content\n", "what was installed")
    equal(container.run("dpkg-query", "-W", "-f", "${Version}", "inside"), "7", "version by dpkg")


@test(suite="full", timeout=120, presets=PRESETS)
def containers_read_write(t):
    """Containers directly on trees of one mount that can be written, with coherence=overlay: a package is installed
    in all of them, upgraded in one, a file overwritten in place; the others see nothing of it, and the source has it."""
    need_containers(t)
    built = packages(t)
    source = make_copies(t, package=built["1"][0])
    scan_trees(t, source)
    before = {tree: digest(read_file("%s/%s%s" % (source, tree, interpreter(source)))) for tree in COPIES}
    mount = t.mount(source, ["coherence=overlay", "suid", "dev"])
    binds = {package_directory(t, built["2"][0]): "/mnt"}
    containers = [Container(t, mount.path(tree), binds=binds) for tree in COPIES]
    starts(containers[0])
    for container in containers:
        container.python(LOADS)
    # The copies that back equal files are made at the first open; from the next one on they are used.
    until(lambda: data_is_shared(mount), 20 * t.patience, "the package's data is shared")
    upgrades_alone(containers, built)
    builds_and_installs(containers[1])
    overwrites_alone(containers, source, before)
    for container in containers:
        container.end()
    equal(digest(read_file(source + "/one/usr/lib/sample/data")).hex(), built["2"][1], "the source of the upgraded one")
    equal(digest(read_file(source + "/two/usr/lib/sample/data")).hex(), built["1"][1], "the source of another")


def data_is_shared(mount):
    """Whether the package's data, once open, shares its backing file."""
    path = mount.path("two", "usr/lib/sample/data")
    fd = os.open(path, os.O_RDONLY)
    plan = explained(mount, "two/usr/lib/sample/data")["plan"]
    os.close(fd)
    return plan == "shared passthrough"


def interpreter(source):
    """Python's program, whose name tells its version."""
    return "/usr/bin/" + os.readlink(source + "/two/usr/bin/python3")


def overwrites_alone(containers, source, before):
    """A program's file is written in place in one container, while the others run it."""
    path = interpreter(source)
    holders = [container.start("python3", "-c", HOLDS, path) for container in containers[1:]]
    old = before["one"].hex()
    for holder in holders:
        equal(holder.ask("?"), "%s %s" % (old, old), "before")
    containers[0].run("perl", "-e", 'open F, "+<", "%s" or die $!; seek F, 65536, 0; print F "X" x 5000; close F or die $!'
                      % path)
    changed = read_file(source + "/one" + path)
    equal(changed[65536:70536], b"X" * 5000, "the source of who wrote")
    equal(containers[0].run("sh", "-c", "tail -c +65537 %s | head -c 5000" % path), "X" * 5000, "by who wrote")
    for holder, tree in zip(holders, COPIES[1:]):
        equal(holder.ask("?"), "%s %s" % (old, old), "mapped and read by another container")
        equal(digest(read_file(source + "/" + tree + path)), before[tree], "the source of " + tree)
        holder.end()
    for container in containers[1:]:
        container.python("import ssl")


NGINX = """
worker_processes 1;
daemon off;
error_log /run/error.log;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
  access_log off;
  sendfile on;
  client_body_temp_path /run/a; proxy_temp_path /run/b; fastcgi_temp_path /run/c;
  uwsgi_temp_path /run/d; scgi_temp_path /run/e;
  server { listen 127.0.0.1:80; root /usr; }
}
"""

# What the server does not need; there are many trees.
NOT_SERVED = LEFT_OUT + ("usr/share", "var/lib/dpkg", "var/cache", "usr/lib/apt")
SERVED = ("bin/perl", "bin/dpkg", "lib/x86_64-linux-gnu/libc.so.6", "bin/apt")


def in_network_of(pid, function, *arguments):
    """In a child process: call something in the network of a container."""
    fd = os.open("/proc/%d/ns/net" % pid, os.O_RDONLY)
    check(LIBC.setns(fd, 0) == 0, "setns: %s" % os.strerror(ctypes.get_errno()))
    os.close(fd)
    function(*arguments)


def fetch_all(expected, rounds, seconds):
    """Get every file from the server on port 80, which may still be starting."""
    def answers():
        try:
            http.client.HTTPConnection("127.0.0.1", 80, timeout=20).connect()
            return True
        except ConnectionRefusedError:
            return False

    until(answers, seconds, "the server answers")
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
    for _ in range(rounds):
        for name, content in expected.items():
            connection.request("GET", "/" + name)
            answer = connection.getresponse()
            equal(answer.status, 200, "status of " + name)
            equal(digest(answer.read()), content, name)


@test(suite="full", timeout=300, presets=PRESETS)
def web_servers(t):
    """nginx in a container on each of sixteen copies of a tree, which serve files of their trees with
    sendfile, at the same time: the right bytes, in memory once."""
    need_containers(t)
    source = t.make_dir("source")
    trees = ["tree-%d" % number for number in range(t.scaled(16, 3))]
    first, *others = [source + "/" + tree for tree in trees]
    make_tree_copy(t, "nginx", first, NOT_SERVED)
    copy_tree(t, first, *others)
    scan_trees(t, source)
    content = {name: digest(read_file("%s/usr/%s" % (first, name))) for name in SERVED}
    write_file(t.make_dir("conf") + "/nginx.conf", NGINX.encode())
    mount = t.mount(source, ["ro", "suid", "dev"])
    drop_cached(t, source)
    binds = {t.path("conf"): "/mnt"}
    containers = [Container(t, mount.path(tree), readonly=True, binds=binds) for tree in trees]
    servers = [container.start("nginx", "-c", "/mnt/nginx.conf") for container in containers]
    clients = [t.fork(in_network_of, container.pid(), fetch_all, content, t.scaled(20, 5), 60 * t.patience)
               for container in containers]
    t.join(clients, 150)
    for name in SERVED:
        cached = [tree for tree in trees if cached_bytes("%s/%s/usr/%s" % (source, tree, name))]
        equal(len(cached), 1, "trees of which usr/%s is in memory" % name)
    for container, server in zip(containers, servers):
        container.end()
        server.process.wait(20 * t.patience)
