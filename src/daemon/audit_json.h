/* SPDX-License-Identifier: Apache-2.0 */
/* audit_json.h - the report of an audit, as foldctl gets it */
#ifndef FOLDFS_AUDIT_JSON_H
#define FOLDFS_AUDIT_JSON_H

#include "foldfs/audit.h"

#include <jansson.h>

/* REPORT as a new JSON object, which is the caller's; MILLISECONDS is how long the audit took.
 * NULL: no memory. */
json_t *audit_json(const struct audit_report *report, uint64_t milliseconds);

#endif
