"""A folder of any file system that fsspec knows, as the place of runs whose machines share no disk: s3://, gs://, hdfs://, ..."""

import shutil
import time
from pathlib import Path
from typing import Any

from rl_lab.experiment.faults import STORAGE, Fault, first_line

_LATEST = "latest"
"""File that names the version of a run that is complete."""
ATTEMPTS = 3
PAUSE = 0.3
"""Seconds between attempts to read a version."""


class Store:
    """The files of one run below a URL. A version is complete before it replaces the one before."""

    def __init__(self, url: str, key: str):
        """``key`` is the place of the run below ``url``. Raises Fault if fsspec, or its driver for this kind of URL, is missing."""
        self._files, root = file_system(url)
        self._place = f"{root.rstrip('/')}/{key}"

    def keep(self, run: Path) -> None:
        """Upload the directory of a run as its latest version. Raises Fault if the other side does not take it."""
        try:
            before = self._latest()
            version = str(int(before or 0) + 1)
            if self._files.exists(f"{self._place}/{version}"):
                self._files.rm(f"{self._place}/{version}", recursive=True)  # its upload was cut off
            for file in sorted(run.rglob("*")):
                if file.is_file() and file.name != "lock":
                    target = f"{self._place}/{version}/{file.relative_to(run).as_posix()}"
                    self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(file), target)
            self._files.pipe_file(f"{self._place}/{_LATEST}", version.encode())
            if before:
                self._files.rm(f"{self._place}/{before}", recursive=True)
        except Exception as error:
            raise Fault(f"{self._place} cannot be written: {first_line(error)}", STORAGE) from error

    def fetch(self, run: Path) -> bool:
        """Replace the directory of a run by its latest version; if there is none, remove the directory. Returns whether there was one.

        Raises Fault if that fails, or if the name of a file leads out of the directory.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._fetch(run)
            except Fault:
                raise
            except Exception as error:  # a task that was taken for lost may replace the version while it is read
                if attempt + 1 == ATTEMPTS:
                    raise Fault(f"{self._place} cannot be read: {first_line(error)}", STORAGE) from error
                time.sleep(PAUSE)
        raise AssertionError

    def _fetch(self, run: Path) -> bool:
        """`fetch` in one attempt."""
        shutil.rmtree(run, ignore_errors=True)
        version = self._latest()
        if not version:
            return False
        root = f"{self._place}/{version}"
        for name in self._files.find(root):
            _, below, part = name.partition(root.lstrip("/"))
            if not below:
                raise OSError(f"{name} is not below {root}")
            part = part.lstrip("/")
            if ".." in Path(part).parts:
                raise Fault(f"{name} leads out of the run", STORAGE)
            run.joinpath(part).parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(name, str(run / part))
        return True

    def _latest(self) -> str:
        """The name of the latest complete version; empty if there is none."""
        self._files.invalidate_cache()
        place = f"{self._place}/{_LATEST}"
        return self._files.cat_file(place).decode() if self._files.exists(place) else ""


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises Fault if fsspec, or its driver for this kind of URL, is missing."""
    try:
        import fsspec
    except ImportError:
        raise Fault("--store needs fsspec: pip install fsspec") from None
    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise Fault(f"--store {url}: {first_line(error)}") from None
    return files, str(path)
