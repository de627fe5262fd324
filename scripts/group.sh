# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# group.sh - the memory that some processes take, and nobody else: in a cgroup of their own
#
# What a process takes is charged to its group: its memory, the cache of files that it was the first to read, and what the
# kernel keeps for it. Both versions of cgroups will do. Without any, the whole machine is measured, others' use included.

group=        # its directory; empty: there is none
group_usage_file= # what it takes
group_parent=     # where the processes go when it is given up

# Make the group, if that is possible.
group_make() {
	local root=/sys/fs/cgroup own
	if [[ -e $root/cgroup.controllers ]]; then
		own=$(sed -n 's/^0:://p' /proc/self/cgroup)
		# Of the root alone, unless somebody has delegated a part of the tree.
		{ echo +memory >"$root/cgroup.subtree_control"; } 2>/dev/null || true
		group_usage_file=memory.current
	else
		root=$root/memory
		own=$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
		group_usage_file=memory.usage_in_bytes
	fi
	group_parent=$root$own
	[[ -e $group_parent/cgroup.procs ]] || group_parent=$root
	group=$root/foldfs-demo.$$
	mkdir "$group" 2>/dev/null || true
	[[ -e $group/$group_usage_file ]] || group_leave
}

# Give the group up; what runs in it goes on in ours.
group_leave() {
	local process
	[[ -n $group ]] || return 0
	while read -r process; do
		{ echo "$process" >"$group_parent/cgroup.procs"; } 2>/dev/null || true
	done < <(cat "$group/cgroup.procs" 2>/dev/null)
	rmdir "$group" 2>/dev/null || true
	group=
}

# Run a command, or a function, in the group.
in_group() {
	(
		[[ -z $group ]] || echo "$BASHPID" >"$group/cgroup.procs" || exit
		"$@"
	)
}

# Memory that nobody uses, with the free pages that the kernel keeps for each processor and does not count: after caches
# were dropped they are many.
memory_free() {
	awk -v page="$(getconf PAGESIZE)" '$1 == "MemFree:" {free += $2 * 1024}
		$1 == "count:" {free += $2 * page}
		END {printf "%.0f\n", free}' /proc/meminfo /proc/zoneinfo
}

# Bytes that are taken, of the group or of the machine; only differences of it mean something.
memory_taken() {
	if [[ -n $group ]]; then
		cat "$group/$group_usage_file"
	else
		echo $((-$(memory_free)))
	fi
}

# Bytes more than $1, which memory_taken said.
memory_since() {
	local more=$(($(memory_taken) - $1))
	echo $((more > 0 ? more : 0))
}

# Of what the group takes, in bytes: memory of processes ($1 = anon), or the cache of files (file).
memory_part() {
	local name=$1
	[[ $group_usage_file == memory.current ]] || { [[ $1 == anon ]] && name=rss || name=cache; }
	awk -v name="$name" '$1 == name {print $2}' "$group/memory.stat"
}
