# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# lib.sh - what the scripts share; sourced, never run
#
# Everything here is idempotent. What is already there is neither fetched nor built again, and then
# nothing needs a network or root. No host is named: Debian's mirror is the one that the machine's
# own apt sources name.

set -euo pipefail
shopt -s inherit_errexit

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${0##*/}
# Used by the scripts that source this file.
# shellcheck disable=SC2034
cache=${FOLDFS_CACHE:-/var/cache/foldfs}

# The oldest libfuse that is good enough: 3.18.2 and 3.18.3 repair security faults of io_uring.
libfuse_wanted=3.18.3
libfuse_dir=$top/build/deps/libfuse

export LC_ALL=C.UTF-8
umask 022

say() { printf '%s\n' "$*" >&2; }
# The comment at the head of the script.
usage() { sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"; }
die() { printf '%s: %s\n' "$program" "$*" >&2; exit 1; }

need_root() {
	((EUID == 0)) || die "$1 needs root: sudo scripts/$program"
}

# A line that is written over while work goes on; plain lines where nobody watches.
progress() {
	if [[ -t 2 ]]; then
		printf '\r\033[K%s' "$*" >&2
	else
		printf '%s\n' "$*" >&2
	fi
}
progress_end() {
	if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# Run a command with its output kept aside; it is shown only if the command fails.
quietly() {
	local log status=0
	log=$(mktemp)
	# In a shell of its own: one that ends by die has its log shown too.
	("$@") </dev/null >"$log" 2>&1 || status=$?
	if ((status)); then
		progress_end
		say "$program: failed with status $status: $*"
		tail -n 40 "$log" >&2
	fi
	rm -f "$log"
	return "$status"
}

# Run a command quietly under a label, and tell the time that it takes: on a terminal all the while,
# elsewhere at its end.
step() {
	local label=$1 child start=$SECONDS status=0
	shift
	progress "$label"
	if [[ ! -t 2 ]]; then
		quietly "$@" || return
		progress "$label: done in $((SECONDS - start)) s"
		return
	fi
	quietly "$@" &
	child=$!
	while kill -0 "$child" 2>/dev/null; do
		progress "$label ($((SECONDS - start)) s)"
		sleep 1
	done
	wait "$child" || status=$?
	progress_end
	return "$status"
}

# --- packages ------------------------------------------------------------------------------------

# Those of the named packages that are not installed, one a line.
packages_missing() {
	local package
	local -A have=()
	while read -r package; do
		have[$package]=1
	done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
	for package; do
		[[ -n ${have[$package]:-} ]] || printf '%s\n' "$package"
	done
}

apt_quietly() {
	DEBIAN_FRONTEND=noninteractive quietly apt-get -q -y -o DPkg::Lock::Timeout=600 "$@"
}

# The package lists are fetched only when those at hand do not do.
apt_install() {
	if apt-get install --simulate "$@" >/dev/null 2>&1 &&
		apt_quietly install --no-install-recommends "$@" 2>/dev/null; then
		return 0
	fi
	apt_quietly update || die "apt-get update failed"
	apt_quietly install --no-install-recommends "$@"
}

# Install what is missing of the named packages.
install_packages() {
	local -a missing
	mapfile -t missing < <(packages_missing "$@")
	((${#missing[@]})) || return 0
	((EUID == 0)) || die "these packages are missing: ${missing[*]}. As root, scripts/$program installs them"
	say "Installing ${missing[*]}"
	step "Installing ${#missing[@]} packages" apt_install "${missing[@]}" || die "could not install ${missing[*]}"
}

need_debian() {
	command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
		die "only a Debian machine can be set up here; CONTRIBUTING.md lists what a build needs"
}

# Where the machine's own apt sources get Debian's main archive: "URI CODENAME", e.g. for
# bookworm. Fetches the package lists if there are none yet.
debian_archive() {
	local codename line attempt
	codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
	for attempt in 1 2; do
		line=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME)' \
			'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
			awk -v code="$codename" '$2 == code || $3 == code {print $1, code; exit}')
		if [[ -n $line ]]; then
			printf '%s\n' "$line"
			return 0
		fi
		((attempt == 1)) && ((EUID == 0)) && { apt_quietly update || break; }
	done
	die "no apt source of this machine has Debian's main archive"
}

debian_keyring() {
	local keyring
	for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
		if [[ -r $keyring ]]; then
			printf '%s\n' "$keyring"
			return 0
		fi
	done
	die "Debian's archive keyring is missing (package debian-archive-keyring)"
}

# --- trees of Debian -----------------------------------------------------------------------------

# What making one takes.
tree_packages=(mmdebstrap debian-archive-keyring)

# Settings of the machine's apt without which its mirror may be out of reach.
apt_settings() {
	apt-config dump | grep -E '^Acquire::(https?::(Proxy|[^ ]*::Proxy)|Check-(Valid-Until|Date)) ' || true
}

# Make the directory $1 a tree of the Debian release $2. Further arguments go to mmdebstrap. Its apt has the settings of
# the machine's.
debian_tree() {
	local tree=$1 release=$2 archive keyring line
	local -a settings=()
	shift 2
	archive=$(debian_archive)
	keyring=$(debian_keyring)
	while read -r line; do
		settings+=(--aptopt="$line")
	done < <(apt_settings)
	mmdebstrap "${settings[@]}" --dpkgopt=force-unsafe-io "$@" "$release" "$tree" \
		"deb [signed-by=$keyring] ${archive% *} $release main"
}

# Run a command within the tree $1. It has mounts and processes of its own, and all of them end with it.
in_tree() {
	local tree=$1
	shift
	: >>"$tree/etc/resolv.conf"
	: >>"$tree/etc/hosts"
	unshare --mount --pid --fork --kill-child sh -euc '
		tree=$1
		shift
		mount -t proc proc "$tree/proc"
		mount --rbind /sys "$tree/sys"
		mount --rbind /dev "$tree/dev"
		mount --bind /etc/resolv.conf "$tree/etc/resolv.conf"
		mount --bind /etc/hosts "$tree/etc/hosts"
		exec chroot "$tree" env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"' in_tree "$tree" "$@"
}

# --- libfuse -------------------------------------------------------------------------------------

# Meson needs a C++ compiler for the example passthrough_hp, a peer of the benchmarks.
libfuse_packages=(g++ meson ninja-build pkgconf dpkg-dev xz-utils debian-archive-keyring
	liburing-dev libnuma-dev)

# Whether the system's own libfuse is new enough.
libfuse_in_system() {
	env -u PKG_CONFIG_PATH pkgconf --atleast-version="$libfuse_wanted" fuse3 2>/dev/null
}

# Whether the distribution has a new enough one to install.
libfuse_in_distribution() {
	local version
	version=$(apt-cache policy libfuse3-dev 2>/dev/null | sed -n 's/^ *Candidate: //p')
	[[ -n $version && $version != '(none)' ]] && dpkg --compare-versions "$version" ge "$libfuse_wanted"
}

# What a build of libfuse was made of; a build with another stamp is made again.
libfuse_stamp() { printf 'foldfs libfuse recipe 2, libfuse >= %s, %s\n' "$libfuse_wanted" "$(uname -m)"; }

libfuse_built() {
	[[ -r $libfuse_dir/stamp && $(<"$libfuse_dir/stamp") == "$(libfuse_stamp)" ]]
}

# Fetch the source of Debian's newest libfuse into directory $1/source. apt verifies the archive's
# signature; its lists and cache are kept apart from the machine's. A mirror that has stood still for
# longer than its lists are good for serves as well: what such a list could hide are newer versions,
# and the oldest one that is good enough is asked for.
libfuse_fetch() {
	local work=$1 archive uri keyring
	local -a private
	archive=$(debian_archive)
	uri=${archive% *}
	keyring=$(debian_keyring)
	mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,download}
	printf 'deb-src [signed-by=%s] %s sid main\n' "$keyring" "$uri" >"$work/apt/sources.list"
	private=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache"
		-o Acquire::Languages=none -o Acquire::Check-Valid-Until=false
		-o APT::Sandbox::User=root -o APT::Update::Error-Mode=any)
	quietly apt-get -q "${private[@]}" update || return
	(cd "$work/apt/download" && quietly apt-get -q "${private[@]}" source --download-only fuse3) || return
	quietly dpkg-source --no-check -x "$work"/apt/download/fuse3_*.dsc "$work/source"
}

# The hardening that foldfs itself is built with: control flow is protected only if all of a program is.
hardening_flags() {
	printf '%s' '-fstack-protector-strong -fstack-clash-protection -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3'
	case $(uname -m) in
	x86_64) printf ' %s' -fcf-protection ;;
	aarch64) printf ' %s' -mbranch-protection=standard ;;
	esac
}

# Configure and build $1/source and install it below $1/root. The library is static; its prefix is
# /usr so that it finds fusermount3 there, and its pkg-config file goes wherever the directory goes.
libfuse_compile() {
	local work=$1
	CFLAGS=$(hardening_flags) quietly meson setup "$work/build" "$work/source" --prefix=/usr --libdir=lib --buildtype=debugoptimized \
		-Ddefault_library=static -Dutils=false -Dtests=false -Dexamples=true \
		-Dpkgconfig.relocatable=true || return
	quietly ninja -C "$work/build" lib/libfuse3.a example/passthrough_hp || return
	quietly env DESTDIR="$work/root" meson install -C "$work/build" --no-rebuild || return
	install -D -m 755 "$work/build/example/passthrough_hp" "$work/root/usr/libexec/passthrough_hp"
	PKG_CONFIG_PATH=$work/root/usr/lib/pkgconfig pkgconf --atleast-version="$libfuse_wanted" fuse3 ||
		die "the archive's libfuse is older than $libfuse_wanted"
	grep -q 'define HAVE_URING' "$work/build/fuse_config.h" ||
		die "libfuse was built without io_uring"
}

# Make sure that a libfuse of at least $libfuse_wanted can be linked. Built in a directory of its
# own and moved into place whole, so an interrupted run leaves nothing half done.
libfuse_ensure() {
	local work lock
	if libfuse_built || libfuse_in_system; then return 0; fi
	if libfuse_in_distribution; then
		install_packages libfuse3-dev
		return 0
	fi
	install_packages "${libfuse_packages[@]}"
	mkdir -p "$top/build/deps"
	exec {lock}>"$top/build/deps/.lock"
	flock "$lock"
	if ! libfuse_built; then
		say "Building libfuse, because the distribution's is older than $libfuse_wanted"
		work=$top/build/deps/.libfuse.new
		rm -rf "$work"
		mkdir -p "$work"
		step "Fetching libfuse's source" libfuse_fetch "$work" || die "could not fetch libfuse's source"
		step 'Building libfuse' libfuse_compile "$work" || die "could not build libfuse"
		libfuse_stamp >"$work/root/usr/stamp"
		rm -rf "$libfuse_dir"
		mv "$work/root/usr" "$libfuse_dir"
		rm -rf "$work"
	fi
	exec {lock}>&-
}

# --- foldfs --------------------------------------------------------------------------------------

# What foldfs itself needs, to build and to mount. The sanitizers' run-time libraries come with gcc.
build_packages=(gcc g++ libc6-dev cmake ninja-build pkgconf libxxhash-dev liburcu-dev liblmdb-dev libjansson-dev
	libseccomp-dev libsystemd-dev libcmocka-dev liburing-dev libnuma-dev fuse3)

# What the images, the demonstration and the tests need on top of that.
image_packages=(mmdebstrap e2fsprogs openssl debian-archive-keyring)
test_packages=(python3 fio qemu-system-x86 qemu-utils attr acl mount runc xfsprogs btrfs-progs)
# libFuzzer comes with clang's run-time libraries.
fuzz_packages=(clang libclang-rt-dev)

# Whether the build directory $1 is configured for what is there now. A directory is newer where a
# file has come or gone, as a test may have.
configured() {
	local newer
	[[ -e $1/build.ninja ]] && grep -q '^FOLDFS_TESTS:BOOL=ON$' "$1/CMakeCache.txt" || return
	for newer in "$top/CMakePresets.json" "$libfuse_dir/stamp" "$top/tests/unit" "$top/tests/torture" "$top/src" "$top/bench"; do
		if [[ $newer -nt $1/build.ninja ]]; then return 1; fi
	done
}

# Build one preset into build/PRESET. Silent where there is nothing to do.
build_preset() {
	local preset=$1 dir=$top/build/$1 lock
	mkdir -p "$dir"
	exec {lock}>"$top/build/.$preset.lock"
	flock "$lock"
	if ! configured "$dir"; then
		(cd "$top" && quietly cmake --preset "$preset" -DFOLDFS_TESTS=ON) || die "could not configure $preset"
	fi
	if ! ninja -C "$dir" -n 2>/dev/null | grep -q 'no work to do'; then
		if [[ -t 2 ]]; then
			say "Building $preset"
			ninja -C "$dir" >&2 || die "could not build $preset"
		else
			step "Building $preset" ninja -C "$dir" || die "could not build $preset"
		fi
	fi
	exec {lock}>&-
}

# Build the fuzzers, with nothing else in build/fuzz.
build_fuzzers() {
	local dir=$top/build/fuzz lock
	need_debian
	install_packages "${build_packages[@]}" "${fuzz_packages[@]}"
	libfuse_ensure
	mkdir -p "$dir"
	exec {lock}>"$top/build/.fuzz.lock"
	flock "$lock"
	(cd "$top" && quietly cmake --preset fuzz) || die "could not configure the fuzzers"
	step 'Building the fuzzers' ninja -C "$dir" fuzzers || die "could not build the fuzzers"
	exec {lock}>&-
}

# What the first run with images makes; for GIB of disk in all.
announce_images() {
	[[ -e $cache/images/SHA256SUMS ]] ||
		say "The first run builds foldfs, and makes images of Debian systems in $cache: some ten minutes on two cores, and $1 GiB."
}

# Everything from a bare machine to build/PRESET for each of the named presets.
build_all() {
	local preset
	need_debian
	install_packages "${build_packages[@]}"
	libfuse_ensure
	for preset; do
		build_preset "$preset"
	done
	ln -sfn "build/$1/compile_commands.json" "$top/compile_commands.json"
	# Built by root in somebody's checkout: theirs.
	if ((EUID == 0)) && [[ $(stat -c %u "$top") != 0 ]]; then
		chown -R --no-dereference --reference="$top" "$top/build" "$top/compile_commands.json"
	fi
}

# --- FUSE over io_uring ----------------------------------------------------------------------------

uring_switch=/sys/module/fuse/parameters/enable_uring

# Whoever has the switch borrowed has it locked, shared: so the lock alone says that it is N otherwise. It is a lock of the
# kernel's own file, which is one for all of the machine, where each container and chroot has a /run of its own.
# What a run that was killed leaves behind is found by the note. bench/harness/machine.py does the same.
uring_note=/run/foldfs-io_uring
uring_fd=

# Run a command while no other run borrows or returns.
uring_alone() {
	local guard status=0
	exec {guard}<"${uring_switch%/*}"
	flock "$guard"
	"$@" || status=$?
	exec {guard}<&-
	return "$status"
}

uring_take() {
	exec {uring_fd}<"$uring_switch"
	if flock -n -x "$uring_fd" && [[ $(<"$uring_switch") == Y && ! -e $uring_note ]]; then
		exec {uring_fd}<&- # it is on, and stays on
		uring_fd=
		return
	fi
	flock -s "$uring_fd"
	: >"$uring_note"
	echo Y >"$uring_switch"
}

# The last one puts it back.
uring_give() {
	flock -u "$uring_fd"
	if flock -n -x "$uring_fd"; then
		echo N >"$uring_switch"
		rm -f "$uring_note"
	fi
	exec {uring_fd}<&-
	uring_fd=
}

# Have FUSE over io_uring until uring_return, so that tests run on both transports: it is off by
# default. It stays on until the last run on this machine that needs it has ended. Nothing to do where
# the kernel has none.
uring_borrow() {
	if [[ -w $uring_switch ]]; then
		uring_alone uring_take
	fi
}
uring_return() {
	if [[ -n $uring_fd ]]; then
		uring_alone uring_give
	fi
}

# --- mounts --------------------------------------------------------------------------------------

# A path with its directory resolved, the last component untouched: asking a stuck mount would hang.
mount_path() {
	local dir base
	case $1 in
	/) printf '/\n'; return ;;
	esac
	dir=$(dirname -- "$1") base=$(basename -- "$1")
	printf '%s/%s\n' "$(cd "$dir" 2>/dev/null && pwd -P)" "$base" | sed 's|^//|/|'
}

# The source of the foldfs mounted at $1, as the mount table names it. Fails if there is none.
foldfs_mounted() {
	local path
	path=$(mount_path "$1")
	awk -v path="$path" '
		function plain(s) { gsub(/\\040/, " ", s); gsub(/\\011/, "\t", s); gsub(/\\134/, "\\", s); return s }
		plain($5) == path { for (i = 7; $i != "-"; i++); type = $(i + 1); from = plain($(i + 2)) }
		END { if (type !~ /^fuse(\.|$)/) exit 1; print from }' /proc/self/mountinfo
}

# Whether a mount answers within a few seconds.
mount_answers() { timeout -s KILL 5 stat -f -- "$1" >/dev/null 2>&1; }
