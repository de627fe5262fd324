/* SPDX-License-Identifier: Apache-2.0 */
/*
 * figures.h - the table of all figures that foldfs reports
 *
 * One line for each figure: key, unit, kind, where figures_json.c takes it from, and one sentence.
 * The JSON (figures_json.c), the list that `foldctl figures` prints, and the manual's list are
 * generated from it; a test compares the manual with it. A dot in a key is a level of the JSON
 * object. Units: bytes; pages and frames, of 4096 bytes; events since the mount; seconds; text.
 *
 * X(key, unit, kind, value, sentence), with kind TEXT or NUMBER. `value` is an expression over the
 * struct reading of figures_json.c; no other file expands it.
 */
#ifndef FOLDFS_FIGURES_H
#define FOLDFS_FIGURES_H

#define STATUS_FIGURES(X)                                                                          \
	X("version", "text", TEXT, FOLDFS_VERSION, "The version of the daemon.")                   \
	X("source", "text", TEXT, r->source, "The directory that is served.")                      \
	X("mountpoint", "text", TEXT, r->mountpoint,                                               \
	  "Where it is mounted now, in the daemon's mount namespace; empty if it is not mounted "  \
	  "there.")                                                                                \
	X("state", "text", TEXT, r->state,                                                         \
	  "The directory of what outlives the mount; empty if there is none.")                     \
	X("settings", "text", TEXT, r->settings ? r->settings : "",                                \
	  "What can be changed while it is mounted, as words of -o; see foldctl set.")             \
	X("transport", "text", TEXT, r->transport,                                                 \
	  "How requests reach the daemon: io_uring, dev (the fuse device), or none before the "    \
	  "first one.")                                                                            \
	X("survive", "text", TEXT, r->survives ? "on" : "off",                                     \
	  "Whether the mount outlives the process that serves it: on or off.")                     \
	X("takeovers", "events", NUMBER, r->takeovers,                                             \
	  "How many times that process has died, and another one has taken over.")                 \
	X("exchanges", "events", NUMBER, r->exchanges,                                             \
	  "How many times another program has taken its place: foldctl upgrade.")                  \
	X("passthrough", "text", TEXT, r->usage.no_passthrough ? r->usage.no_passthrough : "",     \
	  "Why the kernel serves no file by itself (kernel passthrough); empty if it can.")        \
	X("privileges.capabilities", "text", TEXT, r->capabilities,                                \
	  "The daemon's rights beyond those of any user: capabilities(7), without CAP_.")          \
	X("privileges.bounding", "text", TEXT, r->bounding,                                        \
	  "The most of these rights that a program started by the daemon could be given; it "      \
	  "starts none.")                                                                          \
	X("privileges.no_new_privs", "text", TEXT, YES_NO(r->privileges.no_new_privs),             \
	  "Whether programs with set-user-ID give it no rights: yes or no.")                       \
	X("privileges.dumpable", "text", TEXT, YES_NO(r->privileges.dumpable),                     \
	  "Whether a crash would leave a core file, and other processes of its user may read its " \
	  "memory: yes or no.")                                                                    \
	X("privileges.seccomp", "text", TEXT, r->privileges.filtered ? "on" : "off",               \
	  "Whether a filter limits it to the system calls that it needs: on or off.")              \
	X("privileges.refused_calls", "events", NUMBER, syscall_filter_refused(),                  \
	  "System calls that the filter refused, because the daemon is not known to need them.")   \
	X("uptime_s", "seconds", NUMBER, r->uptime_s, "Time since the daemon started.")            \
	X("frame_bytes", "bytes", NUMBER, FOLD_PAGE_SIZE, "The size of a frame, and of a page.")   \
	X("frames_total", "frames", NUMBER, r->usage.store.frames_total,                           \
	  "Frames that the pool may use.")                                                         \
	X("frames_used", "frames", NUMBER, r->usage.store.frames_used,                             \
	  "Frames that hold a page now.")                                                          \
	X("pages_shared", "frames", NUMBER, r->usage.store.pages_shared,                           \
	  "Frames that two or more pages of files use.")                                           \
	X("pages_sharing", "pages", NUMBER, r->usage.store.pages_sharing,                          \
	  "Further pages of files that use these frames: the frames that sharing saves.")          \
	X("pages_unshared", "frames", NUMBER, r->usage.store.pages_unshared,                       \
	  "Frames that one page of a file uses.")                                                  \
	X("pages_volatile", "frames", NUMBER, r->usage.store.pages_volatile,                       \
	  "Frames among these that a write through the mount has filled.")                         \
	X("zero_pages", "pages", NUMBER, r->usage.zero_pages,                                      \
	  "Pages of files that are known to be all zero, and take no frame.")                      \
	X("general_profit", "bytes", NUMBER, general_profit(r),                                    \
	  "What sharing saves less what it costs, as KSM counts it. It is pages_sharing and "      \
	  "zero_pages times frame_bytes, less the memory of maps and index, and less 64 bytes "    \
	  "for each frame in use. It is below zero where little is shared.")                       \
	X("hits", "events", NUMBER, counters_sum(r->counters, COUNTER_HITS),                       \
	  "Pages that readers got from the pool.")                                                 \
	X("misses", "events", NUMBER, counters_sum(r->counters, COUNTER_MISSES),                   \
	  "Pages that had to be read from the source while a reader waited.")                      \
	X("readahead", "events", NUMBER, counters_sum(r->counters, COUNTER_READAHEAD),             \
	  "Pages that were read from the source ahead of a reader.")                               \
	X("fills_discarded", "events", NUMBER, counters_sum(r->counters, COUNTER_FILLS_DISCARDED), \
	  "Pages that were read from the source and not kept, because the content had changed "    \
	  "meanwhile.")                                                                            \
	X("adopted", "events", NUMBER, counters_sum(r->counters, COUNTER_ADOPTED),                 \
	  "Pages that were not read from the source, because the pool had them as another "        \
	  "file's. That they are equal was known by an earlier scan, or by their place on the "    \
	  "disk.")                                                                                 \
	X("clones_found", "files", NUMBER, r->usage.clones_found,                                  \
	  "Files that were found, at an open, to share blocks of the disk with another file, and " \
	  "so to be equal to it there.")                                                           \
	X("adopt_waits", "events", NUMBER, counters_sum(r->counters, COUNTER_ADOPT_WAITS),         \
	  "Times that a read waited for the read of such pages for another file.")                 \
	X("merges", "events", NUMBER, counters_sum(r->counters, COUNTER_MERGES),                   \
	  "Pages read from the source that were found equal to a frame, and share it.")            \
	X("digest_collisions", "events", NUMBER,                                                   \
	  counters_sum(r->counters, COUNTER_DIGEST_COLLISIONS),                                    \
	  "Times that equal digests turned out to stand for different bytes.")                     \
	X("breaks", "events", NUMBER, counters_sum(r->counters, COUNTER_BREAKS),                   \
	  "Pages in the pool that were given content of their own, by a write or another change.") \
	X("evictions", "events", NUMBER, counters_sum(r->counters, COUNTER_EVICTIONS),             \
	  "Frames given up to make room for others.")                                              \
	X("bypassed", "events", NUMBER, counters_sum(r->counters, COUNTER_BYPASSED),               \
	  "Pages handed on from the source without a frame, because none was free.")               \
	X("watch.events", "events", NUMBER, counters_sum(r->counters, COUNTER_WATCH_EVENTS),       \
	  "Changes behind the mount that were followed, of files and directories that it knows; "  \
	  "0 without watch.")                                                                      \
	X("watch.own", "events", NUMBER, counters_sum(r->counters, COUNTER_WATCH_OWN),             \
	  "Reports that were passed over, because the daemon had made the change itself.")         \
	X("watch.overflows", "events", NUMBER, counters_sum(r->counters, COUNTER_WATCH_OVERFLOWS), \
	  "Times that reports of changes were lost.")                                              \
	X("watch.compared", "events", NUMBER, counters_sum(r->counters, COUNTER_WATCH_COMPARED),   \
	  "Files whose stamps were compared with the source's, because reports were lost.")        \
	X("watch.given_up", "events", NUMBER, counters_sum(r->counters, COUNTER_WATCH_GIVEN_UP),   \
	  "Files among these that had changed, or may have. All that was known of them was "       \
	  "forgotten.")                                                                            \
	X("inodes", "inodes", NUMBER, r->usage.inodes,                                             \
	  "Files and directories that the kernel holds a reference to.")                           \
	X("plans.window", "inodes", NUMBER, r->usage.window_inodes,                                \
	  "Files that are open now and that the daemon serves.")                                   \
	X("plans.own", "inodes", NUMBER, r->usage.own_inodes,                                      \
	  "Files that are open now and that the kernel serves by itself, each from its own "       \
	  "source file.")                                                                          \
	X("plans.shared", "inodes", NUMBER, r->usage.shared_inodes,                                \
	  "Files that are open now and that the kernel serves by itself from one file for all "    \
	  "that are equal.")                                                                       \
	X("equal.files", "files", NUMBER, r->usage.equal.files,                                    \
	  "Files that the kernel has served, since the mount, from one file for all that are "     \
	  "equal.")                                                                                \
	X("equal.backing_files", "files", NUMBER, r->usage.equal.backing_files,                    \
	  "The files, or kept copies, from which it served them.")                                 \
	X("equal.saved_bytes", "bytes", NUMBER, r->usage.equal.saved_bytes,                        \
	  "What the kernel need not cache because of that, at most: the sizes of equal.files "     \
	  "less those of equal.backing_files.")                                                    \
	X("leases.held", "files", NUMBER, r->usage.leases.held,                                    \
	  "Files that are open for writing in the mount, and are known not to be open in the "     \
	  "source.")                                                                               \
	X("leases.broken", "events", NUMBER, r->usage.leases.broken,                               \
	  "Times that such a file was opened in the source.")                                      \
	X("locks.where", "text", TEXT, r->locks,                                                   \
	  "Where locks that clients take hold: source (there, and among the clients), mount "      \
	  "(among the clients alone), or none before the first request.")                          \
	X("locks.held", "locks", NUMBER, r->usage.locks_held,                                      \
	  "Ranges and files that clients have locked; 0 if the kernel keeps the locks.")           \
	X("locks.waiting", "requests", NUMBER, r->usage.locks_waiting,                             \
	  "Requests that wait for such a lock.")                                                   \
	X("open_handles", "handles", NUMBER, r->usage.open_handles,                                \
	  "Files and directories that clients have open, each with a descriptor of the daemon.")   \
	X("serving.threads", "threads", NUMBER, r->usage.serve.threads,                            \
	  "Threads that read requests from the fuse device or handle one.")                        \
	X("serving.handled", "requests", NUMBER, r->usage.serve.handled,                           \
	  "Requests that such threads are handling.")                                              \
	X("serving.parked", "requests", NUMBER, r->usage.serve.parked,                             \
	  "Requests that wait because their user's share of threads is used up.")                  \
	X("serving.fetching", "requests", NUMBER, r->usage.fetching,                               \
	  "Reads that wait for the source without such a thread.")                                 \
	X("serving.fetched", "events", NUMBER, counters_sum(r->counters, COUNTER_FETCHED),         \
	  "Reads that have waited in this way.")                                                   \
	X("serving.refused", "events", NUMBER, r->usage.serve.refused,                             \
	  "Requests that were answered with an error, because their user's share of waiting "      \
	  "requests was used up, too.")                                                            \
	X("window.budget_bytes", "bytes", NUMBER, r->usage.window.budget_bytes,                    \
	  "What the kernel may cache of this mount; 0 means direct I/O.")                          \
	X("window.bytes", "bytes", NUMBER, r->usage.window.bytes,                                  \
	  "What the kernel caches of it now, at most.")                                            \
	X("window.trimmed_bytes", "bytes", NUMBER, r->usage.window.trimmed_bytes,                  \
	  "What was taken from the kernel's cache since the mount, to keep to the budget.")        \
	X("copies", "files", NUMBER, r->copies,                                                    \
	  "Copies of equal files that are kept on disk, with coherence=overlay.")                  \
	X("copies_bytes", "bytes", NUMBER, r->copies_bytes,                                        \
	  "The sizes of these copies; a copy that shares its blocks with a file takes less.")      \
	X("memory.pool_bytes", "bytes", NUMBER, r->usage.store.pool_bytes,                         \
	  "Memory of the pool: frames touched so far, and what is kept about each.")               \
	X("memory.metadata_bytes", "bytes", NUMBER, r->usage.store.metadata_bytes,                 \
	  "What is kept about frames; a part of pool_bytes.")                                      \
	X("memory.maps_bytes", "bytes", NUMBER, r->usage.maps_bytes,                               \
	  "Memory of the maps, which say which frame holds which page of a file, and of what "     \
	  "files are known to have in common.")                                                    \
	X("memory.index_bytes", "bytes", NUMBER, r->usage.store.index_bytes,                       \
	  "Memory of the index that finds a frame by its digest.")                                 \
	X("memory.inodes_bytes", "bytes", NUMBER, r->usage.inodes_bytes,                           \
	  "Memory of what is kept about inodes.")                                                  \
	X("memory.handles_bytes", "bytes", NUMBER, r->usage.handles_bytes,                         \
	  "Memory of what is kept about open files and directories.")                              \
	X("memory.locks_bytes", "bytes", NUMBER, r->usage.locks_bytes,                             \
	  "Memory of the locks that clients have, and of those who wait for one.")                 \
	X("memory.notes_bytes", "bytes", NUMBER, r->usage.window.memory_bytes,                     \
	  "Memory of the notes about what the window holds.")                                      \
	X("memory.transport_bytes", "bytes", NUMBER, r->usage.transport_bytes,                     \
	  "Memory of the buffers for requests and answers.")                                       \
	X("memory.scan_bytes", "bytes", NUMBER, r->scan_bytes,                                     \
	  "Memory of the scan in the background, without its buffers; 0 once it has ended.")       \
	X("memory.program_bytes", "bytes", NUMBER, r->memory.program_bytes,                        \
	  "Memory of the program, its libraries, and the files that it has mapped.")               \
	X("memory.total_bytes", "bytes", NUMBER, total_bytes(r),                                   \
	  "The sum of these figures, without metadata_bytes. The window is not in it: it is the "  \
	  "kernel's, see window.bytes.")                                                           \
	X("memory.resident_bytes", "bytes", NUMBER, r->memory.resident_bytes,                      \
	  "What the daemon has in memory, as the kernel counts it, to compare with total_bytes.")

/* One figure in the manual's list: key, unit, sentence. */
#define FIGURE_ROFF ".TP\n.BR %s \" (%s)\"\n%s\n"

#endif
