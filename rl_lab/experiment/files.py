"""Reading files of run directories, with a limit on their size and without following links.

A run directory may come from somebody else: its links, devices and pipes are refused, and each file has a largest size.
"""

import errno
import os
import stat
from pathlib import Path

from rl_lab.experiment.faults import Fault
from rl_lab.serialization import require_regular

LARGEST_CONFIG = 1 << 20
"""Bytes of the largest configuration file that is read."""
LARGEST_PLAIN = 1 << 28
"""Bytes of the largest JSON file of a checkpoint that is read."""


def read_file(path: Path, most: int, foreign: bool = True) -> bytes:
    """Return the content of a file of at most ``most`` bytes.

    Raises OSError for a larger file and, if it is ``foreign``, for anything but a regular file: links, devices and pipes are not opened.
    """
    if foreign:
        require_regular(path)
    pieces, size = [], 0
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        while piece := file.read(1 << 20):  # a pipe does not tell its size
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return b"".join(pieces)


def require_no_links(folder: Path) -> None:
    """Raise Fault if a directory holds anything but files and directories: links, devices and pipes lead out of it."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(place, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                what = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                raise Fault(f"{os.path.join(place, name)} is {what}: a run directory holds files and directories alone")
