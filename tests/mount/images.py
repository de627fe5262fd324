# SPDX-License-Identifier: Apache-2.0
"""The real images that scripts/images makes and keeps."""

import os
import subprocess

from harness import CACHE, Skip


def image_directory():
    """The directory of the eight images."""
    directory = os.path.join(CACHE, "images")
    if not os.path.exists(os.path.join(directory, "SHA256SUMS")):
        raise Skip("the images are not made yet: run scripts/images")
    return directory


def boot_directory():
    """The directory of a Debian that boots."""
    directory = os.path.join(CACHE, "boot")
    for name in ("root.img", "vmlinuz", "initrd.img"):
        if not os.path.exists(os.path.join(directory, name)):
            raise Skip("the image that boots is not made yet: run scripts/images --boot")
    return directory


def copy_image(image, target):
    """A sparse copy, shared with the original where the file system can."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, target], check=True, timeout=300)
