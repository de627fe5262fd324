/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_checks.h - the table of what an audit checks
 *
 * The report (audit.h), its JSON, what foldctl prints and the manual's list are generated from it.
 * A check's key is its name in the JSON; its unit is what is counted as checked.
 */
#ifndef FOLDFS_AUDIT_CHECKS_H
#define FOLDFS_AUDIT_CHECKS_H

/* X(name, key, unit, what): UNIT is what is counted; WHAT describes what is checked of it. */
#define AUDIT_CHECKS(X)                                                                            \
	X(SLOTS, "slots", "pages", "in the pool, compared with the source")                        \
	X(ZEROES, "zeroes", "pages", "known to be all zero, compared with the source")             \
	X(FAMILIES, "families", "pages",                                                           \
	  "of other files in the pool, taken for a file's own, compared with its source")          \
	X(BACKING, "backing", "files",                                                             \
	  "that the kernel serves from another file, whose content was compared with the source")  \
	X(OBJECTS, "objects", "files",                                                             \
	  "that are kept copies, compared with their digest and with a file that they serve")      \
	X(SIZES, "sizes", "files", "whose size was compared with the source")                      \
	X(DIGESTS, "digests", "frames", "compared with their digest")                              \
	X(INDEX, "index", "frames", "looked for in the index, and their equals")                   \
	X(USERS, "users", "frames", "whose users were compared with the slots")                    \
	X(LISTS, "lists", "frames", "whose place and links in the pool's lists were checked")      \
	X(POOL, "pool", "sums", "of the pool, counted again")                                      \
	X(MAPS, "maps", "sums", "of the maps, files and families, counted again")                  \
	X(WINDOW, "window", "sums", "of the window, counted again")                                \
	X(INODES, "inodes", "sums", "of the inodes, counted again")

#endif
