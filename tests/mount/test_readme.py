# SPDX-License-Identifier: Apache-2.0
"""README.md and docs/containers.md: what they say to type works as typed."""

import os
import re

from containers import need_containers, tree_directory
from harness import MIB, ROOT, check, equal, mounts_under, read_file, test, until, write_file
from images import boot_directory, copy_image
from runner import name_of, namespace_of, processes_in

# What the walk-through writes to. In the test's own mount namespace these are directories of the test.
REDIRECTED = ("/srv", "/mnt", "/var/lib", "/run")
# What is not for a test to do: its result is taken as there.
INSTALLS = "scripts/build && cmake --install build/release && apt-get install -y runc util-linux-extra\n"


def blocks(document, title):
    """The shell blocks of a section, or of a paragraph that begins with its title in bold."""
    text = read_file(os.path.join(ROOT, document)).decode()
    section = re.search(r"^(?:## %s\n|\*\*%s\.\*\*)(.*?)(?:^## |^\*\*|\Z)" % (re.escape(title), re.escape(title)), text,
                        re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def programs(t):
    """A directory of the build's programs, as `cmake --install` would have put them on the path."""
    directory = t.make_dir("bin")
    for name, command in (("foldfs", t.foldfs_command()), ("foldctl", t.foldctl_command())):
        with open(os.path.join(directory, name), "w") as script:
            script.write("#!/bin/sh\nexec %s \"$@\"\n" % " ".join(command))
        os.chmod(os.path.join(directory, name), 0o755)
    return directory


def wrap(directory, name, words):
    """Have the program NAME called with WORDS besides."""
    path = os.path.join(directory, name)
    with open(path, "w") as script:
        script.write("#!/bin/sh\nexec /usr/bin/%s \"$@\" %s\n" % (name, words))
    os.chmod(path, 0o755)


def redirect(t):
    for place in REDIRECTED:
        if not os.path.isdir(place):
            continue
        t.run(["mount", "--bind", t.make_dir("machine", place.lstrip("/")), place])
        t.at_end(lambda place=place: t.run(["umount", "--recursive", "--lazy", place]))


def unmounted_and_ended(t):
    """No mount is left, and no daemon."""
    equal(mounts_under("/mnt/trees") + mounts_under("/srv/containers"), [], "mounts that are left")

    def daemons():
        here = processes_in(namespace_of(os.getpid()))
        return [pid for pid in here if "foldfs" in name_of(pid).split(" ")[0]]

    until(lambda: not daemons(), 20 * t.patience, "the daemon has ended")


def resident(fincore):
    """Of fincore's table: the files of which something is in memory."""
    rows = [line.split() for line in fincore.splitlines() if re.search("/srv/trees/.*/usr/bin/python3", line)]
    equal(len(rows), 4, "rows of fincore in: " + fincore)
    return [row[-1] for row in rows if row[0] != "0B"]


@test(suite="full", timeout=240, presets=("release",))
def containers(t):
    """The walk-through with containers, block after block, in one shell each as root in a checkout: they run,
    equal files are in memory once, the tree that was written to is the only one that changes, and nothing is
    left mounted."""
    need_containers(t)
    t.need("fincore")
    tree_directory("python3")
    shared, end = blocks("docs/containers.md", "Trees below overlayfs")
    written, = blocks("docs/containers.md", "Containers that write to their trees")
    check(INSTALLS in shared, "the walk-through begins otherwise: " + shared)
    environment = dict(t.environment(), PATH=programs(t) + ":" + os.environ["PATH"])
    redirect(t)

    def typed(block):
        return t.run(["sh", "-eu", "-c", block], cwd=ROOT, env=environment, timeout=200).stdout

    printed = typed(shared.replace(INSTALLS, ""))
    equal(len(re.findall(r"^OpenSSL \d", printed, re.MULTILINE)), 4, "containers that ran, in: " + printed)
    check(re.search(r"shared passthrough.*equal", printed), "what explain says, in: " + printed)
    equal(len(resident(printed)), 1, "files that are in memory, in: " + printed)
    t.run(t.foldctl_command() + ["audit", "--idle", "/mnt/trees"], timeout=70)
    typed(end)
    unmounted_and_ended(t)

    printed = typed(written)
    equal(printed.splitlines().count("written by one"), 2, "by the container and in the source: " + printed)
    original = read_file(tree_directory("python3") + "/etc/motd")
    equal(read_file("/srv/trees/two/etc/motd"), original, "another tree")
    unmounted_and_ended(t)


# Of a guest that boots from the typed drive, without a window, and powers off.
GUEST = ("-accel tcg,thread=single -display none -no-reboot -nodefaults -serial none -monitor none -net none"
         " -kernel %s/vmlinuz -initrd %s/initrd.img"
         " -append 'root=/dev/vda rw quiet no_timer_check systemd.unit=poweroff.target'")


@test(suite="full", timeout=900, presets=("release",), transports="one", alone=True)
def virtual_machines(t):
    """Mounting and the five minutes with QEMU: a copy of a template boots from the mount in both cache modes."""
    t.need("qemu-system-x86_64")
    mounting, = [block for block in blocks("README.md", "Mounting") if "foldfs /srv" in block]
    machine, = blocks("README.md", "Virtual machines")
    boot = boot_directory()
    directory = programs(t)
    wrap(directory, "qemu-system-x86_64", GUEST % (boot, boot))
    environment = dict(t.environment(), PATH=directory + ":" + os.environ["PATH"])
    redirect(t)
    for name in ("/srv/images", "/mnt/images"):
        os.mkdir(name)
    for name in ("a.img", "template.img"):
        copy_image(boot + "/root.img", "/srv/images/" + name)

    def typed(block):
        return t.run(["sh", "-eu", "-c", block], cwd=ROOT, env=environment, timeout=400).stdout

    printed = typed(mounting)
    check("window" in printed or "passthrough" in printed, "what explain says, in: " + printed)
    typed(mounting[:mounting.index("foldctl scan")])
    typed(machine)
    typed("umount /mnt/images")


@test(suite="full", timeout=120, presets=("release",), transports="one")
def fio(t):
    """The five minutes with fio, for a second instead of ten."""
    t.need("fio")
    block, = blocks("README.md", "fio")
    environment = dict(t.environment(), PATH=programs(t) + ":" + os.environ["PATH"])
    redirect(t)
    for name in ("/srv/images", "/mnt/images"):
        os.mkdir(name)
    write_file("/srv/images/template.img", t.rng.randbytes(16 * MIB))
    check("--runtime=10" in block, "fio runs otherwise: " + block)
    block = "foldfs /srv/images /mnt/images\n" + block.replace("--runtime=10", "--runtime=1") + "umount /mnt/images\n"
    printed = t.run(["sh", "-eu", "-c", block], cwd=ROOT, env=environment, timeout=60).stdout
    equal(len(re.findall(r"^ *READ:", printed, re.MULTILINE)), 2, "results of fio in: " + printed)


# What podman cannot have in a container: hybrid cgroups with crun, limits higher than ours.
PODMAN_CONFIGURATION = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


def podman_shell(t):
    """What runs a block with podman, as root, in directories of the test."""
    t.need("podman")
    need_containers(t)
    write_file(t.path("containers.conf"), PODMAN_CONFIGURATION.encode())
    environment = dict(t.environment(), PATH=programs(t) + ":" + os.environ["PATH"],
                       CONTAINERS_CONF=t.path("containers.conf"))
    tree = tree_directory("python3")
    redirect(t)
    return tree, lambda block: t.run(["sh", "-eu", "-c", block], cwd=ROOT, env=environment, timeout=120).stdout


@test(suite="full", timeout=200, presets=("release",), transports="one", alone=True)
def containers_with_podman(t):
    """The five minutes with podman."""
    block, = blocks("README.md", "Containers")
    tree, typed = podman_shell(t)
    for name in ("/srv/trees", "/mnt/trees"):
        os.mkdir(name)
    t.run(["cp", "-a", tree, "/srv/trees/debian"])
    equal(typed(block + "umount /mnt/trees\n"), "hello\n", "what the container printed")


@test(suite="full", timeout=300, presets=("release",), transports="one", alone=True)
def storage_of_podman(t):
    """An engine's storage on the mount: an image is imported, runs and is removed."""
    made, ended = blocks("docs/containers.md", "An engine's storage on the mount")
    tree, typed = podman_shell(t)
    os.mkdir("/srv/trees")
    t.run(["cp", "-a", tree, "/srv/trees/one"])
    printed = typed(made)
    equal(printed.splitlines()[-1:], ["from an image"], "what the container printed, in: " + printed)
    typed(ended)
