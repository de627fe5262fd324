/* SPDX-License-Identifier: Apache-2.0 */
/* scan_options.h - the options of a scan and of an estimate, as the usage of both programs says them */
#ifndef FOLDFS_SCAN_OPTIONS_H
#define FOLDFS_SCAN_OPTIONS_H

#define SCAN_OPTIONS    "[--rate=SIZE] [--memory=SIZE] [--workers=N]"
#define SCAN_BORDER     "[--all-file-systems]"
#define ESTIMATE_OPTION "--estimate"

#endif
