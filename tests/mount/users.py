# SPDX-License-Identifier: Apache-2.0
"""Other users than root: a child process that is one, whole and for good."""

import os

NOBODY = 65534
# Plain users whom nothing else on a machine belongs to.
USER, OTHER = 70001, 70002


def become(uid, gid=None, groups=(), umask=None):
    """Make this process that user's; gid: the same number unless it is given."""
    gid = uid if gid is None else gid
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if umask is not None:
        os.umask(umask)


def as_user(t, uid, function, *args, **identity):
    """Run function(*args) in a child of that user, to its end."""
    def child():
        become(uid, **identity)
        function(*args)

    t.join([t.fork(child)])
