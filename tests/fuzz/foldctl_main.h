/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_main.h - included before foldctl's sources, so that the fuzzer can call their main() */
#ifndef FOLDFS_FUZZ_FOLDCTL_MAIN_H
#define FOLDFS_FUZZ_FOLDCTL_MAIN_H

int foldctl_main(int argc, char *argv[]);

#define main foldctl_main

#endif
