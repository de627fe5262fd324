/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_parse.c - the command line and -o options of foldfs
 *
 * Three callers use three dialects: a person (`foldfs SOURCE MOUNTPOINT -o …`), mount(8) through
 * mount.fuse3 (`… -o rw,dev,suid,…`), and an fstab line. Its generic words (relatime, nofail,
 * x-systemd.…) are meant for other programs, but arrive here all the same.
 *
 * Invariants:
 * A  Each word is ours, libfuse's (handed on unchanged), somebody else's (dropped), or refused by
 *    name: one table says which. libfuse never sees a word that it would refuse itself.
 * B  Values are judged after all words have been read: the last one given counts, and defaults that
 *    depend on another option see its final value.
 * C  Each error is reported in one sentence that names the option and the value.
 */
#include "options_parse.h"

#include "foldfs/human.h"
#include "foldfs/memory_limit.h"
#include "foldfs/page_store.h"
#include "remount.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT 1.0
/* With less, the map of one large file would not fit, and every read would miss. */
#define MAPS_MIN_BYTES (64u << 10)
/* Larger files are taken for disk images, whose pages are worth sharing one by one. */
#define PASSTHROUGH_MAX_BYTES (128u << 20)
/* The kernel takes whole seconds as 64 bits; nobody means more than a century. */
#define TIMEOUT_MAX 3153600000.0

/* The words as they were given, before they are judged. */
struct raw_options {
	char *source;
	char *mountpoint;
	char *pool;
	char *window;
	char *maps;
	char *transport;
	char *seccomp;
	char *attr_timeout;
	char *entry_timeout;
	char *negative_timeout;
	char *passthrough_max;
	char *state;
	char *control;
	char *scan;
	char *coherence;
	char **passthrough; /* globs, NULL at the end */
	size_t passthrough_count;
	int source_stacked;
	int pseudo_filesystems;
	int one_file_system;
	int read_only;
	int watch;
	int replace;
	int foreground;
	int debug;
	int help;
	int version;
	int allow_other;
	int default_permissions;
	int has_fsname;
	int has_subtype;
	bool refused;  /* a word was refused, and that has been reported */
	char *kernels; /* the first word that only the list of mounts contains */
	struct remount remount;
};

enum key {
	KEY_KEEP, /* libfuse's own */
	KEY_DROP, /* has no meaning here, and dropping it loses nothing */
	KEY_READ_ONLY,
	KEY_RO,
	KEY_RW,
	KEY_PASSTHROUGH,
	KEY_ALLOW_OTHER,
	KEY_DEFAULT_PERMISSIONS,
	KEY_FSNAME,
	KEY_SUBTYPE,
	KEY_IO_URING,
	KEY_NO_VALUE,
	KEY_REMOUNT,
	KEY_KERNEL, /* the kernel's own; mount(8) hands it on at a remount */
};

#define RAW(template, field)                                                                       \
	{                                                                                          \
		template, offsetof(struct raw_options, field), 1                                   \
	}
#define KEEP(template) FUSE_OPT_KEY(template, KEY_KEEP)
#define DROP(template) FUSE_OPT_KEY(template, KEY_DROP)

static const struct fuse_opt words[] = {
	RAW("pool=%s", pool),
	RAW("window=%s", window),
	RAW("maps=%s", maps),
	RAW("transport=%s", transport),
	RAW("seccomp=%s", seccomp),
	RAW("attr_timeout=%s", attr_timeout),
	RAW("entry_timeout=%s", entry_timeout),
	RAW("negative_timeout=%s", negative_timeout),
	RAW("passthrough_max=%s", passthrough_max),
	RAW("source-stacked", source_stacked),
	RAW("pseudo-filesystems", pseudo_filesystems),
	RAW("one-file-system", one_file_system),
	RAW("state=%s", state),
	RAW("control=%s", control),
	FUSE_OPT_KEY("control", KEY_NO_VALUE),
	RAW("coherence=%s", coherence),
	FUSE_OPT_KEY("coherence", KEY_NO_VALUE),
	FUSE_OPT_KEY("state", KEY_NO_VALUE),
	RAW("scan=%s", scan),
	FUSE_OPT_KEY("scan", KEY_NO_VALUE),
	FUSE_OPT_KEY("passthrough=", KEY_PASSTHROUGH),
	FUSE_OPT_KEY("passthrough", KEY_NO_VALUE),
	FUSE_OPT_KEY("passthrough_max", KEY_NO_VALUE),
	RAW("watch", watch),
	RAW("replace", replace),
	FUSE_OPT_KEY("pool", KEY_NO_VALUE),
	FUSE_OPT_KEY("window", KEY_NO_VALUE),
	FUSE_OPT_KEY("maps", KEY_NO_VALUE),
	FUSE_OPT_KEY("transport", KEY_NO_VALUE),
	FUSE_OPT_KEY("seccomp", KEY_NO_VALUE),
	FUSE_OPT_KEY("attr_timeout", KEY_NO_VALUE),
	FUSE_OPT_KEY("entry_timeout", KEY_NO_VALUE),
	FUSE_OPT_KEY("negative_timeout", KEY_NO_VALUE),
	RAW("-f", foreground),
	RAW("-d", debug),
	RAW("--debug", debug),
	RAW("debug", debug),
	RAW("-h", help),
	RAW("--help", help),
	RAW("-V", version),
	RAW("--version", version),

	FUSE_OPT_KEY("allow_other", KEY_ALLOW_OTHER),
	FUSE_OPT_KEY("default_permissions", KEY_DEFAULT_PERMISSIONS),
	FUSE_OPT_KEY("fsname=", KEY_FSNAME),
	FUSE_OPT_KEY("subtype=", KEY_SUBTYPE),
	FUSE_OPT_KEY("io_uring", KEY_IO_URING),
	FUSE_OPT_KEY("-r", KEY_READ_ONLY),
	FUSE_OPT_KEY("remount", KEY_REMOUNT),
	FUSE_OPT_KEY("user_id=", KEY_KERNEL),
	FUSE_OPT_KEY("group_id=", KEY_KERNEL),
	FUSE_OPT_KEY("rootmode=", KEY_KERNEL),
	FUSE_OPT_KEY("fd=", KEY_KERNEL),
	FUSE_OPT_KEY("max_read=", KEY_KERNEL),
	FUSE_OPT_KEY("blksize=", KEY_KERNEL),
	FUSE_OPT_KEY("seclabel", KEY_KERNEL),
	KEEP("io_uring_q_depth="),
	KEEP("allow_root"),
	KEEP("auto_unmount"),
	KEEP("context="),
	KEEP("fscontext="),
	KEEP("defcontext="),
	KEEP("rootcontext="),
	FUSE_OPT_KEY("ro", KEY_RO),
	FUSE_OPT_KEY("rw", KEY_RW),
	KEEP("suid"),
	KEEP("nosuid"),
	KEEP("dev"),
	KEEP("nodev"),
	KEEP("exec"),
	KEEP("noexec"),
	KEEP("async"),
	KEEP("sync"),
	KEEP("dirsync"),
	KEEP("noatime"),
	KEEP("nodiratime"),
	KEEP("symfollow"),
	KEEP("nosymfollow"),

	/* fstab's words for mount(8), systemd or the boot scripts. */
	DROP("-n"),
	DROP("-v"),
	DROP("defaults"),
	DROP("auto"),
	DROP("noauto"),
	DROP("user"),
	DROP("user="),
	DROP("nouser"),
	DROP("users"),
	DROP("owner"),
	DROP("group"),
	DROP("nofail"),
	DROP("_netdev"),
	DROP("comment="),
	DROP("uhelper="),
	/* The source decides whether access times are kept, by how it is mounted. */
	DROP("atime"),
	DROP("diratime"),
	DROP("relatime"),
	DROP("norelatime"),
	DROP("strictatime"),
	DROP("nostrictatime"),
	DROP("lazytime"),
	DROP("nolazytime"),
	DROP("iversion"),
	DROP("noiversion"),
	DROP("nomand"),
	DROP("silent"),
	DROP("loud"),
	/* libfuse 2 wanted this word before it mounted over files; libfuse 3 always does. */
	DROP("nonempty"),
	FUSE_OPT_END,
};

__attribute__((format(printf, 1, 2))) static errint_t refuse(const char *format, ...)
{
	va_list args;

	fputs("foldfs: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -EINVAL;
}

__attribute__((format(printf, 2, 3))) static int refuse_word(struct raw_options *raw,
							     const char *format, ...)
{
	va_list args;

	/* One sentence is enough, even if several words are wrong. */
	if (!raw->refused) {
		fputs("foldfs: ", stderr);
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		fputc('\n', stderr);
	}
	raw->refused = true;
	return 0;
}

static int take_positional(struct raw_options *raw, const char *word)
{
	char **place = !raw->source ? &raw->source : !raw->mountpoint ? &raw->mountpoint : NULL;

	if (!place)
		return refuse_word(raw,
				   "'%s' is one argument too many: foldfs takes SOURCE and "
				   "MOUNTPOINT.",
				   word);
	if (!*word)
		return refuse_word(raw, "%s must not be empty.",
				   place == &raw->source ? "SOURCE" : "MOUNTPOINT");
	*place = strdup(word);
	return *place ? 0 : -1;
}

static int take_unknown(struct raw_options *raw, const char *word)
{
	/* A superfluous comma is ignored. */
	if (!*word || strncmp(word, "x-", 2) == 0 || strncmp(word, "X-", 2) == 0)
		return 0;
	return refuse_word(raw, "unknown option '%s'.", word);
}

static int set_transport_io_uring(struct raw_options *raw)
{
	free(raw->transport);
	raw->transport = strdup("io_uring");
	return raw->transport ? 0 : -1;
}

/* Add one GLOB of -o passthrough=GLOB. */
static int take_glob(struct raw_options *raw, const char *glob)
{
	char **globs;

	if (!*glob)
		return refuse_word(raw, "the option 'passthrough' needs a value.");
	globs = realloc(raw->passthrough, (raw->passthrough_count + 2) * sizeof(*globs));
	if (!globs)
		return -1;
	raw->passthrough = globs;
	globs[raw->passthrough_count] = strdup(glob);
	if (!globs[raw->passthrough_count])
		return -1;
	globs[++raw->passthrough_count] = NULL;
	return 0;
}

static int take_kernels(struct raw_options *raw, const char *word)
{
	if (raw->kernels)
		return 0;
	raw->kernels = strdup(word);
	return raw->kernels ? 0 : -1;
}

/* fuse_opt calls it for each word: 1 keeps the word for libfuse, 0 drops it, -1 gives up. */
static int take_word(void *data, const char *word, int key, struct fuse_args *kept)
{
	struct raw_options *raw = data;

	if (key != FUSE_OPT_KEY_NONOPT)
		remount_take_word(&raw->remount, word);
	switch (key) {
	case FUSE_OPT_KEY_NONOPT:
		return take_positional(raw, word);
	case FUSE_OPT_KEY_OPT:
		return take_unknown(raw, word);
	case KEY_KEEP:
		return 1;
	case KEY_ALLOW_OTHER:
		raw->allow_other = 1;
		return 1;
	case KEY_DEFAULT_PERMISSIONS:
		raw->default_permissions = 1;
		return 1;
	case KEY_FSNAME:
		raw->has_fsname = 1;
		return 1;
	case KEY_SUBTYPE:
		raw->has_subtype = 1;
		return 1;
	case KEY_RO:
	case KEY_RW:
		raw->read_only = key == KEY_RO;
		return 1;
	case KEY_PASSTHROUGH:
		return take_glob(raw, strchr(word, '=') + 1);
	case KEY_READ_ONLY:
		raw->read_only = 1;
		return fuse_opt_add_arg(kept, "-oro");
	case KEY_IO_URING:
		return set_transport_io_uring(raw);
	case KEY_NO_VALUE:
		return refuse_word(raw, "the option '%s' needs a value.", word);
	case KEY_REMOUNT:
		raw->remount.asked = true;
		return 0;
	case KEY_KERNEL:
		return take_kernels(raw, word);
	default:
		return 0;
	}
}

static errint_t judge_size(const char *name, const char *text, uint64_t memory, uint64_t lowest,
			   uint64_t highest, uint64_t *bytes)
{
	errint_t error;

	if (!text)
		return 0;
	error = human_parse_size(text, memory, bytes);
	if (error == -ERANGE && strchr(text, '%'))
		return refuse("%s=%s is more than all of the memory that there is.", name, text);
	if (error == -EINVAL)
		return refuse("%s=%s is not a size: write a number, with K, M, G, T or %% behind "
			      "it if you like.",
			      name, text);
	if (error || *bytes > highest)
		return refuse("%s=%s is too large: the most is %llu T.", name, text,
			      (unsigned long long)(highest >> 40));
	if (*bytes < lowest)
		return refuse("%s=%s is too small: the least is %llu K.", name, text,
			      (unsigned long long)(lowest >> 10));
	return 0;
}

static uint64_t clamp(uint64_t value, uint64_t lowest, uint64_t highest)
{
	return value < lowest ? lowest : value > highest ? highest : value;
}

/* Each of the three may fill up, and none of them is given back when memory is short. */
static errint_t judge_sum(const struct options *options, uint64_t memory)
{
	struct human_buffer pool, window, maps, all;
	uint64_t sum;

	if (!memory || (!__builtin_add_overflow(options->pool_bytes, options->window_bytes, &sum) &&
			!__builtin_add_overflow(sum, options->maps_bytes, &sum) && sum <= memory))
		return 0;
	return refuse("pool (%s), window (%s) and maps (%s) are together more than all of the "
		      "memory: %s.",
		      human_size((int64_t)options->pool_bytes, &pool),
		      human_size((int64_t)options->window_bytes, &window),
		      human_size((int64_t)options->maps_bytes, &maps),
		      human_size((int64_t)memory, &all));
}

static errint_t judge_sizes(const struct raw_options *raw, struct options *options)
{
	uint64_t memory = memory_limit();
	errint_t error;

	options->pool_bytes = clamp(memory / 4, PAGE_STORE_MIN_BYTES, PAGE_STORE_MAX_BYTES);
	error = judge_size("pool", raw->pool, memory, PAGE_STORE_MIN_BYTES, PAGE_STORE_MAX_BYTES,
			   &options->pool_bytes);
	if (error)
		return error;
	options->window_bytes = options->pool_bytes / 8;
	error = judge_size("window", raw->window, memory, 0, INT64_MAX, &options->window_bytes);
	if (error)
		return error;
	options->maps_bytes = options->pool_bytes / 16;
	error = judge_size("maps", raw->maps, memory, MAPS_MIN_BYTES, PAGE_STORE_MAX_BYTES,
			   &options->maps_bytes);
	if (error)
		return error;
	error = judge_sum(options, memory);
	if (error)
		return error;
	options->passthrough_max = PASSTHROUGH_MAX_BYTES;
	return judge_size("passthrough_max", raw->passthrough_max, memory, 0, INT64_MAX,
			  &options->passthrough_max);
}

static errint_t judge_transport(const char *text, enum transport_choice *transport)
{
	*transport = TRANSPORT_AUTO;
	if (!text || strcmp(text, "auto") == 0)
		return 0;
	if (strcmp(text, "io_uring") == 0)
		*transport = TRANSPORT_IO_URING;
	else if (strcmp(text, "dev") == 0)
		*transport = TRANSPORT_DEV;
	else
		return refuse("transport=%s is not one of auto, io_uring and dev.", text);
	return 0;
}

static errint_t judge_seccomp(const char *text, bool *seccomp)
{
	*seccomp = !text || strcmp(text, "off") != 0;
	if (text && *seccomp && strcmp(text, "on") != 0)
		return refuse("seccomp=%s is not one of on and off.", text);
	return 0;
}

static errint_t judge_coherence(const char *text, bool *overlay)
{
	*overlay = text && strcmp(text, "overlay") == 0;
	if (text && !*overlay && strcmp(text, "strict") != 0)
		return refuse("coherence=%s is not one of strict and overlay.", text);
	return 0;
}

static errint_t judge_scan(const char *text, bool *background)
{
	*background = text && strcmp(text, "background") == 0;
	return !text || *background || strcmp(text, "off") == 0
		       ? 0
		       : refuse("scan=%s is not one of background and off.", text);
}

/* *SECONDS holds the default before the call. */
static errint_t judge_timeout(const char *name, const char *text, double *seconds)
{
	char *end;

	if (!text)
		return 0;
	*seconds = strtod(text, &end);
	if (!isdigit((unsigned char)*text) || *end || !isfinite(*seconds))
		return refuse("%s=%s is not a number of seconds.", name, text);
	if (*seconds > TIMEOUT_MAX)
		return refuse("%s=%s is too long: the most is a hundred years.", name, text);
	return 0;
}

static errint_t judge_timeouts(const struct raw_options *raw, struct options *options)
{
	errint_t error;

	options->attr_timeout = DEFAULT_TIMEOUT;
	error = judge_timeout("attr_timeout", raw->attr_timeout, &options->attr_timeout);
	if (error)
		return error;
	options->entry_timeout = DEFAULT_TIMEOUT;
	error = judge_timeout("entry_timeout", raw->entry_timeout, &options->entry_timeout);
	if (error)
		return error;
	/* On a writable mount, others also make files behind the mount: lock files, results of
	 * builds. */
	options->negative_timeout = options->read_only ? options->entry_timeout : 0;
	return judge_timeout("negative_timeout", raw->negative_timeout, &options->negative_timeout);
}

static errint_t judge_directory(const char *option, const char *path)
{
	/* The daemon works in /, so a relative path would be resolved from there. */
	return path && *path != '/' ? refuse("%s=%s is not an absolute path.", option, path) : 0;
}

static errint_t judge_positional(struct raw_options *raw, struct options *options)
{
	if (!raw->source)
		return refuse("SOURCE and MOUNTPOINT are missing; 'foldfs --help' says more.");
	if (!raw->mountpoint)
		return refuse("MOUNTPOINT is missing; 'foldfs --help' says more.");
	options->source = raw->source;
	options->mountpoint = raw->mountpoint;
	options->passthrough = raw->passthrough;
	options->state = raw->state;
	options->control = raw->control;
	raw->source = raw->mountpoint = NULL;
	raw->passthrough = NULL;
	raw->state = raw->control = NULL;
	return 0;
}

static errint_t add_escaped(char **list, const char *name, const char *value)
{
	char *word = NULL;
	errint_t error;

	if (asprintf(&word, "%s=%s", name, value) < 0)
		return -ENOMEM;
	error = fuse_opt_add_opt_escaped(list, word) == 0 ? 0 : -ENOMEM;
	free(word);
	return error;
}

static errint_t add_fsname(char **list, const char *source)
{
	/* A source that does not resolve is refused later, with the reason. */
	char *absolute = realpath(source, NULL);
	errint_t error = add_escaped(list, "fsname", absolute ? absolute : source);

	free(absolute);
	return error;
}

/*
 * Add the words that the user left to the daemon.
 *
 * default_permissions is added for a plain user too: the kernel then checks modes and ACLs before
 * it asks, and this check also answers access(2). It takes nothing away: what the daemon, running
 * as that user, may not do on the source fails there anyway. And where the user allows other users
 * in, it is what holds them to the files' own permissions.
 */
static errint_t add_defaults(const struct raw_options *raw, struct options *options)
{
	char *list = NULL;
	errint_t error = 0;
	bool out_of_memory = false;

	if (!raw->default_permissions)
		out_of_memory |= fuse_opt_add_opt(&list, "default_permissions") != 0;
	if (!raw->allow_other && geteuid() == 0)
		out_of_memory |= fuse_opt_add_opt(&list, "allow_other") != 0;
	if (options->transport == TRANSPORT_IO_URING)
		out_of_memory |= fuse_opt_add_opt(&list, "io_uring") != 0;
	if (options->debug)
		out_of_memory |= fuse_opt_add_opt(&list, "debug") != 0;
	if (!raw->has_subtype)
		out_of_memory |= fuse_opt_add_opt(&list, "subtype=foldfs") != 0;
	if (!raw->has_fsname)
		error = add_fsname(&list, options->source);
	if (out_of_memory)
		error = -ENOMEM;
	if (!error && list &&
	    (fuse_opt_add_arg(&options->fuse, "-o") || fuse_opt_add_arg(&options->fuse, list)))
		error = -ENOMEM;
	free(list);
	return error;
}

/* mount(8) also hands on the words of fstab, so an option that the mount already has is no reason
 * to refuse. */
static void say_what_stays(const struct raw_options *raw)
{
	const char *const values[] = {
		raw->pool,          raw->window,           raw->maps,
		raw->transport,     raw->seccomp,          raw->attr_timeout,
		raw->entry_timeout, raw->negative_timeout, raw->passthrough_max,
		raw->state,         raw->control,          raw->scan,
		raw->coherence};
	bool given = raw->passthrough || raw->source_stacked || raw->pseudo_filesystems ||
		     raw->one_file_system || raw->watch;

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		given = given || values[i];
	if (given)
		fputs("foldfs: remount changes ro, rw, nosuid and their like; foldfs's own options "
		      "stay as they were mounted.\n",
		      stderr);
}

static errint_t judge_remount(struct raw_options *raw, struct options *options)
{
	errint_t error = judge_positional(raw, options);

	if (!error)
		say_what_stays(raw);
	options->remount = raw->remount;
	return error;
}

static errint_t judge(struct raw_options *raw, struct options *options)
{
	errint_t error;

	if (raw->kernels && !raw->remount.asked)
		refuse_word(raw, "unknown option '%s'.", raw->kernels);
	options->debug = raw->debug;
	options->source_stacked = raw->source_stacked;
	options->pseudo_filesystems = raw->pseudo_filesystems;
	options->border = raw->one_file_system      ? BORDER_ONE
			  : raw->pseudo_filesystems ? BORDER_PSEUDO_TOO
						    : BORDER_NO_PSEUDO;
	options->read_only = raw->read_only;
	options->watch = raw->watch;
	options->replace = raw->replace;
	options->foreground = raw->foreground || raw->debug;
	options->show_help = raw->help;
	options->show_version = raw->version;
	if (options->show_help || options->show_version)
		return 0;
	if (raw->refused)
		return -EINVAL;
	if (raw->remount.asked)
		return judge_remount(raw, options);
	error = judge_positional(raw, options);
	if (!error)
		error = judge_sizes(raw, options);
	if (!error)
		error = judge_transport(raw->transport, &options->transport);
	if (!error)
		error = judge_seccomp(raw->seccomp, &options->seccomp);
	if (!error)
		error = judge_directory("state", options->state);
	if (!error)
		error = judge_directory("control", options->control);
	if (!error)
		error = judge_scan(raw->scan, &options->scan_background);
	if (!error)
		error = judge_coherence(raw->coherence, &options->coherence_overlay);
	if (!error)
		error = judge_timeouts(raw, options);
	if (!error)
		error = add_defaults(raw, options);
	if (error == -ENOMEM)
		refuse("not enough memory.");
	return error;
}

static void free_list(char **list)
{
	for (char **word = list; word && *word; word++)
		free(*word);
	free(list);
}

static void raw_clear(struct raw_options *raw)
{
	free_list(raw->passthrough);
	free(raw->passthrough_max);
	free(raw->state);
	free(raw->control);
	free(raw->scan);
	free(raw->coherence);
	free(raw->source);
	free(raw->mountpoint);
	free(raw->pool);
	free(raw->window);
	free(raw->maps);
	free(raw->transport);
	free(raw->seccomp);
	free(raw->attr_timeout);
	free(raw->entry_timeout);
	free(raw->negative_timeout);
	free(raw->kernels);
}

/* fuse_opt removes a "--" that no argument of its own follows, but not if an -o was kept (libfuse
 * 3.18, opt_parse()). Options added behind it would not be taken as options any more. */
static void drop_separator(struct fuse_args *args)
{
	if (args->argc < 2 || strcmp(args->argv[args->argc - 1], "--") != 0)
		return;
	free(args->argv[--args->argc]);
	args->argv[args->argc] = NULL;
}

errint_t options_parse(int argc, char *argv[], struct options *ret_options)
{
	struct options options = {.fuse = FUSE_ARGS_INIT(argc, argv)};
	struct raw_options raw = {0};
	errint_t error;

	/* fuse_opt itself reports what it refuses (an -o without a word behind it). */
	error = fuse_opt_parse(&options.fuse, &raw, words, take_word) == 0 ? 0 : -EINVAL;
	if (!error) {
		drop_separator(&options.fuse);
		error = judge(&raw, &options);
	}
	raw_clear(&raw);
	if (error)
		options_clear(&options);
	else
		*ret_options = options;
	return error ? -EINVAL : 0;
}

void options_clear(struct options *options)
{
	free(options->source);
	free(options->mountpoint);
	free_list(options->passthrough);
	free(options->state);
	free(options->control);
	fuse_opt_free_args(&options->fuse);
	options->source = options->mountpoint = NULL;
	options->passthrough = NULL;
	options->state = options->control = NULL;
}

void options_print_help(const char *program)
{
	printf("Usage: %s SOURCE MOUNTPOINT [-o OPTION[,OPTION…]] [-f] [-d]\n"
	       "       %s --estimate DIR [--rate=SIZE] [--memory=SIZE] [--workers=N]\n"
	       "                         [--all-file-systems] [--json]\n"
	       "\n"
	       "Mount the directory SOURCE on MOUNTPOINT, where files with the same pages share "
	       "the\n"
	       "memory of one.\n"
	       "\n"
	       "  -o pool=SIZE           memory for pages (default: a quarter of memory)\n"
	       "  -o window=SIZE         what the kernel may cache of the mount (default: an "
	       "eighth\n"
	       "                         of the pool); 0: nothing, direct I/O\n"
	       "  -o maps=SIZE           memory for page maps (default: a sixteenth of the pool)\n"
	       "  -o passthrough=GLOB    files that the kernel serves by itself, unshared (may be "
	       "given\n"
	       "                         more than once)\n"
	       "  -o passthrough_max=SIZE\n"
	       "                         the largest file that the kernel serves unasked, once it "
	       "is known\n"
	       "                         to share nothing (default: 128M); 0: none\n"
	       "  -o source-stacked      passthrough also where SOURCE is on overlayfs; then "
	       "overlayfs\n"
	       "                         cannot be stacked on the mount\n"
	       "  -o one-file-system     serve nothing that is mounted below SOURCE\n"
	       "  -o pseudo-filesystems  serve proc, cgroup2 and the like too, and FUSE mounts of "
	       "other\n"
	       "                         users\n"
	       "  -o coherence=WAY       strict: every reader sees every write (the default); "
	       "overlay:\n"
	       "                         a reader of a file that has equals keeps what it opened\n"
	       "  -o state=DIR           the directory of what is known of the files (default:\n"
	       "                         /var/lib/foldfs)\n"
	       "  -o control=DIR         the directory of foldctl's socket (default: /run/foldfs)\n"
	       "  -o scan=background     read SOURCE once, slowly, for what its files share "
	       "(default: off)\n"
	       "  -o transport=WAY       auto (which is dev), dev or io_uring\n"
	       "  -o seccomp=off         allow any system call to the daemon (default: on)\n"
	       "  -o attr_timeout=SEC    how long the kernel may keep attributes (default: 1.0)\n"
	       "  -o entry_timeout=SEC   how long the kernel may keep names (default: 1.0)\n"
	       "  -o negative_timeout=SEC\n"
	       "                         how long it may remember that a name does not exist\n"
	       "                         (default: entry_timeout with ro, else 0)\n"
	       "  -o watch               see at once what others change in SOURCE (needs root)\n"
	       "  -o replace             take a dead mount on MOUNTPOINT away first\n"
	       "  -o ro, allow_other, auto_unmount, fsname=NAME, …\n"
	       "                         see foldfs(8)\n"
	       "  -f                     stay in the foreground\n"
	       "  -d                     the same, and show every request\n"
	       "  --estimate DIR         mount nothing: read DIR and tell what a mount would save\n"
	       "  -h, --help             show this\n"
	       "  -V, --version          show the version\n"
	       "\n"
	       "SIZE is a number, with K, M, G, T (powers of 1024) or %% (of memory) behind it.\n"
	       "Unmount with 'umount MOUNTPOINT', look with 'foldctl status MOUNTPOINT'.\n",
	       program, program);
}
