/* SPDX-License-Identifier: Apache-2.0 */
/* foldctl_main.h - included before foldctl's sources: its main() is to be called by the fuzzer */
#ifndef FOLDFS_FUZZ_FOLDCTL_MAIN_H
#define FOLDFS_FUZZ_FOLDCTL_MAIN_H

int foldctl_main(int argc, char *argv[]);

#define main foldctl_main

#endif
