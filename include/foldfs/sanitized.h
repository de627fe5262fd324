/* SPDX-License-Identifier: Apache-2.0 */
/* sanitized.h - FOLD_SANITIZED: whether this is a build with a sanitizer */
#ifndef FOLDFS_SANITIZED_H
#define FOLDFS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FOLD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FOLD_SANITIZED 1
#endif
#endif

#endif
