"""Files of run directories: read within bounds and without following links, written so that a crash leaves the old or the new one.

A run directory may come from somebody else. Its links, devices and pipes are refused, and a file is read only up to a size that makes
sense for it.
"""

import errno
import os
import stat
from pathlib import Path

LARGEST_CONFIG = 1 << 20
"""Bytes of the largest configuration file that is read."""
LARGEST_PLAIN = 1 << 28
"""Bytes of the largest JSON file of a checkpoint that is read."""


def read_file(path: Path, most: int, foreign: bool = True) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises OSError for a larger file and, if it is ``foreign``, for anything but a regular file: links, devices and pipes are not opened.
    """
    if foreign:
        require_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def require_regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file, and not a link to one."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
