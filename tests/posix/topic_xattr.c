/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topic_xattr.c - extended attributes: name spaces, sizes and flags; and ACLs, which are two of
 * them
 */
#include "calls.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LARGEST 65536

static char value[LARGEST + 2];

/* The names of the list that are in the name spaces that everybody can see, in order. */
static const char *list_text(const char *name)
{
	static char text[4096];
	char tail[16]; /* the number, for which there is always room */
	static char list[LARGEST];
	ssize_t length = llistxattr(name, list, sizeof(list));
	unsigned count = 0;

	if (length < 0)
		return result_name(-errno);
	text[0] = '\0';
	for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1, count++)
		if (strlen(text) + strlen(list + at) + 2 + sizeof(tail) < sizeof(text))
			strcat(strcat(text, list + at), " ");
	snprintf(tail, sizeof(tail), "(%u)", count);
	return strcat(text, tail);
}

/* ---- name spaces ---- */

static const char *const names[] = {
	"user.a",
	"trusted.a",
	"security.a",
	"security.capability",
	"system.a",
	"nonsense.a",
	"user.",
	"user",
	"a",
	"",
	"trusted.overlay.x",
	"security.selinux.x",
	"USER.a",
	"system.posix_acl_none",
	"user.with space",
	"user.\xff\xfe",
};

static void spaces(void)
{
	static const enum kind kinds[] = {FILE_, DIRECTORY, SYMLINK, FIFO, SOCKET, DEVICE};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
			for (int user = 0; user < USERS; user++) {
				char text[160];
				long set;
				long get;
				long removed;

				if (user == USER_MEMBER || user == USER_PRIMARY || !take())
					continue;
				make_owned(kinds[k], "x", 0666);
				as(user);
				set = TRY(lsetxattr("x", names[n], "val", 3, 0));
				get = TRY(lgetxattr("x", names[n], value, 10));
				snprintf(text, sizeof(text), "%s", result_name(set));
				strcat(strcat(text, " "), result_name(get));
				strcat(strcat(text, " "), list_text("x"));
				removed = TRY(lremovexattr("x", names[n]));
				as_root();
				strcat(strcat(text, " "), result_name(removed));
				say_text(text, "space.%s.[%s].%s", kind_name(kinds[k]), names[n],
					 users[user].name);
				discard("x");
			}
}

/* user.* follows the file's permissions, and in sticky directories its owner's. */
static void by_mode(void)
{
	static const mode_t modes[] = {0666, 0644, 0444, 0222, 0600, 0000, 01777};

	for (int directory = 0; directory < 2; directory++)
		for (unsigned m = 0; m < ARRAY_SIZE(modes); m++)
			for (int user = 0; user < USERS; user++) {
				char text[160];
				long result;

				make_owned(directory ? DIRECTORY : FILE_, "x", modes[m]);
				MUST(setxattr("x", "user.had", "1", 1, 0));
				MUST(setxattr("x", "trusted.had", "1", 1, 0));
				as(user);
				result = TRY(setxattr("x", "user.new", "1", 1, 0));
				snprintf(text, sizeof(text), "%s", result_name(result));
				result = TRY(getxattr("x", "user.had", value, 4));
				strcat(strcat(text, " "), result_name(result));
				result = TRY(getxattr("x", "trusted.had", value, 4));
				strcat(strcat(text, " "), result_name(result));
				strcat(strcat(text, " "), list_text("x"));
				result = TRY(removexattr("x", "user.had"));
				strcat(strcat(text, " "), result_name(result));
				as_root();
				say_text(text, "mode.%s.%04o.%s", directory ? "dir" : "file",
					 modes[m], users[user].name);
				discard("x");
			}
}

/* ---- sizes ---- */

static void sizes(void)
{
	static const size_t lengths[] = {0,    1,     100,   1000,  2000,  3000, 3900, 4000,
					 4030, 4040,  4060,  4080,  4095,  4096, 4097, 5000,
					 8192, 16384, 32768, 65535, 65536, 65537};
	static char back[LARGEST + 2];

	memset(value, 'v', sizeof(value));
	for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
		long result;

		make(FILE_, "x");
		result = TRY(setxattr("x", "user.x", value, lengths[l], 0));
		say(result, NULL, "size.%zu", lengths[l]);
		say(TRY(getxattr("x", "user.x", NULL, 0)), NULL, "size.%zu.asked", lengths[l]);
		result = TRY(getxattr("x", "user.x", back, sizeof(back)));
		say(result, NULL, "size.%zu.read", lengths[l]);
		if (result > 1) {
			say(memcmp(back, value, (size_t)result) == 0, NULL, "size.%zu.same",
			    lengths[l]);
			say(TRY(getxattr("x", "user.x", back, (size_t)result - 1)), NULL,
			    "size.%zu.too-small", lengths[l]);
		}
		say(TRY(listxattr("x", back, 3)), NULL, "size.%zu.list-too-small", lengths[l]);
		say(TRY(listxattr("x", NULL, 0)) < 0, NULL, "size.%zu.list-asked", lengths[l]);
		discard("x");
	}
}

static void name_lengths(void)
{
	static const unsigned lengths[] = {6, 100, 254, 255, 256, 300};
	char name[301] = "user.";

	make(FILE_, "x");
	for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
		memset(name + 5, 'n', lengths[l] - 5);
		name[lengths[l]] = '\0';
		say(TRY(setxattr("x", name, "1", 1, 0)), NULL, "name-length.%u", lengths[l]);
		say(TRY(getxattr("x", name, value, 4)), NULL, "name-length.%u.get", lengths[l]);
		say(TRY(removexattr("x", name)), NULL, "name-length.%u.remove", lengths[l]);
	}
	discard("x");
}

/* Until the file has no more room for them. */
static void many(void)
{
	unsigned count = 0;
	long result = 0;
	char name[32];

	make(FILE_, "x");
	while (!result && count < 300) {
		snprintf(name, sizeof(name), "user.number-%u", count);
		result = TRY(setxattr("x", name, value, 20, 0));
		count += !result;
	}
	say(result, NULL, "many.%u", count);
	say_text(list_text("x") + strlen(list_text("x")) - 4, "many.list");
	discard("x");
}

static void flags(void)
{
	static const int sets[] = {0, XATTR_CREATE, XATTR_REPLACE, XATTR_CREATE | XATTR_REPLACE, 4};

	for (unsigned s = 0; s < ARRAY_SIZE(sets); s++)
		for (int there = 0; there < 2; there++) {
			make(FILE_, "x");
			if (there)
				MUST(setxattr("x", "user.x", "old", 3, 0));
			watch("x");
			say(TRY(setxattr("x", "user.x", "1", 1, sets[s])), "x", "flags.%d.%d",
			    sets[s], there);
			say(TRY(getxattr("x", "user.x", value, 10)), NULL, "flags.%d.%d.get",
			    sets[s], there);
			discard("x");
		}
}

static void ways(void)
{
	int fd;

	make(FILE_, "target");
	make(SYMLINK, "link");
	say(TRY(setxattr("link", "user.x", "1", 1, 0)), NULL, "way.through-link");
	say_text(list_text("target"), "way.through-link.list");
	say(TRY(lsetxattr("link", "trusted.x", "1", 1, 0)), NULL, "way.link");
	say_text(list_text("link"), "way.link.list");
	fd = (int)MUST(open("target", O_RDONLY));
	say(TRY(fsetxattr(fd, "user.y", "22", 2, 0)), NULL, "way.read-only-descriptor");
	say(TRY(fgetxattr(fd, "user.y", value, 10)), NULL, "way.descriptor.get");
	say(TRY(fremovexattr(fd, "user.x")), NULL, "way.descriptor.remove");
	close(fd);
	fd = (int)MUST(open("target", O_PATH));
	say(TRY(fgetxattr(fd, "user.y", value, 10)), NULL, "way.path-descriptor");
	close(fd);
	say(TRY(setxattr("target", "user.y", "", 0, 0)), NULL, "way.empty");
	say(TRY(getxattr("target", "user.y", value, 10)), NULL, "way.empty.get");
	discard("target");
	discard("link");
}

static void run(void)
{
	spaces();
	by_mode();
	sizes();
	name_lengths();
	many();
	flags();
	ways();
}

const struct topic topic_xattr = {"xattr", run};

/* ---- ACLs ---- */

static void say_acl(long result, const char *name, const char *attribute, const char *label)
{
	char text[1024];

	snprintf(text, sizeof(text), "%s, %s", result_name(result), describe(name));
	strcat(strcat(text, ", "), acl_text(name, attribute));
	say_text(text, "%s", label);
}

#define ACL_MOST 7

static const struct {
	const char *name;
	size_t count;
	struct acl_entry entries[ACL_MOST];
} acls[] = {
	{"minimal",
	 3,
	 {{ACL_USER_OBJ, 7, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 5, ACL_UNDEFINED},
	  {ACL_OTHER, 4, ACL_UNDEFINED}}},
	{"user",
	 5,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_USER, 7, 7004},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_MASK, 7, ACL_UNDEFINED},
	  {ACL_OTHER, 0, ACL_UNDEFINED}}},
	{"user-masked",
	 5,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_USER, 7, 7004},
	  {ACL_GROUP_OBJ, 7, ACL_UNDEFINED},
	  {ACL_MASK, 4, ACL_UNDEFINED},
	  {ACL_OTHER, 7, ACL_UNDEFINED}}},
	{"user-nothing",
	 5,
	 {{ACL_USER_OBJ, 0, ACL_UNDEFINED},
	  {ACL_USER, 0, 7004},
	  {ACL_GROUP_OBJ, 7, ACL_UNDEFINED},
	  {ACL_MASK, 7, ACL_UNDEFINED},
	  {ACL_OTHER, 7, ACL_UNDEFINED}}},
	{"group",
	 6,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_GROUP, 2, 7002},
	  {ACL_GROUP, 6, 7005},
	  {ACL_MASK, 6, ACL_UNDEFINED},
	  {ACL_OTHER, 0, ACL_UNDEFINED}}},
	{"group-and-other",
	 5,
	 {{ACL_USER_OBJ, 7, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 0, ACL_UNDEFINED},
	  {ACL_GROUP, 1, 7005},
	  {ACL_MASK, 7, ACL_UNDEFINED},
	  {ACL_OTHER, 7, ACL_UNDEFINED}}},
	{"empty", 0, {{0}}},
	{"no-mask",
	 4,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_USER, 7, 7004},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_OTHER, 0, ACL_UNDEFINED}}},
	{"no-other", 2, {{ACL_USER_OBJ, 6, ACL_UNDEFINED}, {ACL_GROUP_OBJ, 4, ACL_UNDEFINED}}},
	{"unsorted",
	 3,
	 {{ACL_OTHER, 6, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_USER_OBJ, 4, ACL_UNDEFINED}}},
	{"twice",
	 5,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_MASK, 7, ACL_UNDEFINED},
	  {ACL_OTHER, 0, ACL_UNDEFINED}}},
	{"more-bits",
	 3,
	 {{ACL_USER_OBJ, 15, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 5, ACL_UNDEFINED},
	  {ACL_OTHER, 4, ACL_UNDEFINED}}},
	{"unknown-tag",
	 3,
	 {{ACL_USER_OBJ, 7, ACL_UNDEFINED},
	  {ACL_GROUP_OBJ, 5, ACL_UNDEFINED},
	  {0x80, 4, ACL_UNDEFINED}}},
	{"users-twice",
	 6,
	 {{ACL_USER_OBJ, 6, ACL_UNDEFINED},
	  {ACL_USER, 7, 7004},
	  {ACL_USER, 1, 7004},
	  {ACL_GROUP_OBJ, 4, ACL_UNDEFINED},
	  {ACL_MASK, 7, ACL_UNDEFINED},
	  {ACL_OTHER, 0, ACL_UNDEFINED}}},
};

static void set_acls(void)
{
	static const enum kind kinds[] = {FILE_, DIRECTORY, FIFO, SYMLINK};
	static const char *const attributes[] = {ACL_ACCESS, ACL_DEFAULT};

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned a = 0; a < ARRAY_SIZE(acls); a++)
			for (int which = 0; which < 2; which++)
				for (int user = 0; user < USERS; user++) {
					size_t length = acl_binary(acls[a].entries, acls[a].count);
					char label[128];
					long result;

					if (user == USER_MEMBER || user == USER_PRIMARY || !take())
						continue;
					make_owned(kinds[k], "x", 02750);
					watch("x");
					as(user);
					result = TRY(lsetxattr("x", attributes[which], acl_bytes,
							       length, 0));
					as_root();
					snprintf(label, sizeof(label), "set.%s.%s.%s.%s",
						 kind_name(kinds[k]), acls[a].name,
						 which ? "default" : "access", users[user].name);
					say_acl(result, "x", attributes[which], label);
					discard("x");
				}
}

/* Who gets in by each ACL, for each way of asking. */
static void acl_access(void)
{
	for (unsigned a = 0; a < 6; a++)
		for (int directory = 0; directory < 2; directory++) {
			make_owned(directory ? DIRECTORY : FILE_, "x", 0600);
			MUST(setxattr("x", ACL_ACCESS, acl_bytes,
				      acl_binary(acls[a].entries, acls[a].count), 0));
			for (int user = 0; user < USERS; user++) {
				char text[160] = "";
				static const int opens[] = {O_RDONLY, O_WRONLY, O_RDWR};

				for (int ask = 1; ask < 8; ask++) {
					long result;

					as(user);
					result = TRY(access("x", ask));
					as_root();
					strcat(strcat(text, result_name(result)), " ");
				}
				for (unsigned o = 0; o < ARRAY_SIZE(opens); o++) {
					long result;

					as(user);
					result = TRY_FD(open("x", opens[o]));
					as_root();
					strcat(strcat(text, result_name(result)), " ");
				}
				text[strlen(text) - 1] = '\0';
				say_text(text, "access.%s.%s.%s", acls[a].name,
					 directory ? "dir" : "file", users[user].name);
			}
			discard("x");
		}
}

/* chmod changes the mask, and the set-gid bit follows the caller. */
static void acl_and_mode(void)
{
	static const mode_t modes[] = {0777, 0700, 0070, 0007, 02755, 06644, 0000};

	for (unsigned a = 0; a < 6; a++)
		for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
			char label[64];
			long result;

			make_owned(FILE_, "x", 0600);
			MUST(setxattr("x", ACL_ACCESS, acl_bytes,
				      acl_binary(acls[a].entries, acls[a].count), 0));
			watch("x");
			result = TRY(chmod("x", modes[m]));
			snprintf(label, sizeof(label), "chmod.%s.%04o", acls[a].name, modes[m]);
			say_acl(result, "x", ACL_ACCESS, label);
			snprintf(label, sizeof(label), "chown.%s.%04o", acls[a].name, modes[m]);
			say_acl(TRY(chown("x", 7002, 7002)), "x", ACL_ACCESS, label);
			discard("x");
		}
}

/* An owner outside the file's group loses set-gid with an ACL that changes the mode. */
static void acl_and_set_gid(void)
{
	static const gid_t groups[] = {OWNER_GROUP, 0};

	for (unsigned g = 0; g < ARRAY_SIZE(groups); g++)
		for (int directory = 0; directory < 2; directory++)
			for (int user = 0; user < USERS; user++)
				for (unsigned a = 0; a < 2; a++) {
					size_t length = acl_binary(acls[a].entries, acls[a].count);
					char label[64];
					long result;

					make(directory ? DIRECTORY : FILE_, "x");
					MUST(chown("x", users[user].uid, groups[g]));
					MUST(chmod("x", 02755));
					as(user);
					result = TRY(
						setxattr("x", ACL_ACCESS, acl_bytes, length, 0));
					as_root();
					snprintf(label, sizeof(label), "set-gid.%u.%s.%s.%s",
						 groups[g], directory ? "dir" : "file",
						 users[user].name, acls[a].name);
					say_acl(result, "x", ACL_ACCESS, label);
					discard("x");
				}
}

static void acl_sizes(void)
{
	static const size_t counts[] = {1,    10,   100,  500,  505,  510,
					1000, 4000, 8000, 8187, 8188, 8190};
	static struct acl_entry entries[ACL_ENTRIES];

	for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
		size_t at = 0;
		size_t length;

		entries[at++] = (struct acl_entry){ACL_USER_OBJ, 6, ACL_UNDEFINED};
		for (uint32_t id = 0; id < counts[c]; id++)
			entries[at++] = (struct acl_entry){ACL_USER, 7, 10000 + id};
		entries[at++] = (struct acl_entry){ACL_GROUP_OBJ, 4, ACL_UNDEFINED};
		entries[at++] = (struct acl_entry){ACL_MASK, 7, ACL_UNDEFINED};
		entries[at++] = (struct acl_entry){ACL_OTHER, 0, ACL_UNDEFINED};
		length = acl_binary(entries, at);
		make(FILE_, "x");
		say(TRY(setxattr("x", ACL_ACCESS, acl_bytes, length, 0)), "x", "entries.%zu",
		    counts[c]);
		say(TRY(getxattr("x", ACL_ACCESS, NULL, 0)), NULL, "entries.%zu.asked", counts[c]);
		say(TRY(getxattr("x", ACL_ACCESS, value, sizeof(value))), NULL, "entries.%zu.read",
		    counts[c]);
		discard("x");
	}
}

static void acl_odd(void)
{
	static const struct {
		const char *name;
		unsigned char bytes[12];
		size_t length;
	} odd[] = {{"nothing", {0}, 0},
		   {"short", {2, 0, 0}, 3},
		   {"version-1", {1, 0, 0, 0}, 4},
		   {"version-3", {3, 0, 0, 0}, 4},
		   {"half-entry", {2, 0, 0, 0, 1, 0, 7, 0}, 8}};

	for (unsigned o = 0; o < ARRAY_SIZE(odd); o++)
		for (int which = 0; which < 2; which++) {
			char label[64];
			const char *attribute = which ? ACL_DEFAULT : ACL_ACCESS;

			make_owned(DIRECTORY, "x", 0755);
			snprintf(label, sizeof(label), "odd.%s.%d", odd[o].name, which);
			say_acl(TRY(setxattr("x", attribute, odd[o].bytes, odd[o].length, 0)), "x",
				attribute, label);
			discard("x");
		}
}

static void acl_removed(void)
{
	for (int which = 0; which < 2; which++)
		for (int user = 0; user < USERS; user++) {
			const char *attribute = which ? ACL_DEFAULT : ACL_ACCESS;
			size_t length = acl_binary(acls[1].entries, acls[1].count);
			char label[64];
			long result;

			make_owned(DIRECTORY, "x", 0755);
			MUST(setxattr("x", attribute, acl_bytes, length, 0));
			watch("x");
			as(user);
			result = TRY(removexattr("x", attribute));
			as_root();
			snprintf(label, sizeof(label), "removed.%d.%s", which, users[user].name);
			say_acl(result, "x", attribute, label);
			as(user);
			result = TRY(removexattr("x", attribute));
			as_root();
			say(result, NULL, "removed.%d.%s.again", which, users[user].name);
			discard("x");
		}
}

static void run_acl(void)
{
	set_acls();
	acl_access();
	acl_and_mode();
	acl_and_set_gid();
	acl_sizes();
	acl_odd();
	acl_removed();
}

const struct topic topic_acl = {"acl", run_acl};
