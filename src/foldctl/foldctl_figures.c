/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_figures.c - foldctl figures: what each figure of a mount means */
#include "foldctl.h"
#include "foldfs/figures.h"

#include <stdlib.h>

static int print_figures(bool as_roff)
{
#define PRINT(key, unit, kind, value, sentence)                                                    \
	if (as_roff)                                                                               \
		printf(FIGURE_ROFF, key, unit, sentence);                                          \
	else                                                                                       \
		printf("%-24s %-8s %s\n", key, unit, sentence);
	STATUS_FIGURES(PRINT)
#undef PRINT
	return finish_output();
}

int command_figures(char *argv[])
{
	const char *word;
	bool as_roff;

	if (!take_arguments(argv, "--roff", &word, &as_roff))
		return EXIT_FAILURE;
	return word ? fail("'%s' is one argument too many.", word) : print_figures(as_roff);
}
