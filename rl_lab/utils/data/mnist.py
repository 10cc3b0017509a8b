"""Handwritten digits in the format of MNIST (LeCun et al. 1998): IDX files, plain or compressed by gzip."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from rl_lab.engine.errors import FileError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.utils.data.dataset import TensorDataset

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""The files of MNIST as they were published."""


def read_idx(path: str | Path, md5: str | None = None) -> np.ndarray:
    """The array in an IDX file, in the byte order of this machine. A file that is compressed by gzip is recognised by its content.

    Raises FileError if the file is missing, if its MD5 sum is not ``md5``, if the compressed data are damaged (gzip keeps a checksum),
    or if the header does not describe the data that follow.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from None
    if md5 is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise FileError(f"{path} is damaged: its MD5 sum is not {md5}. Delete the file and fetch it again")
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(f"{path} is damaged: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise FileError(f"{path} is not an IDX file: it does not begin with two zero bytes and a known type")
    rank = data[3]
    begin = 4 + 4 * rank
    if len(data) < begin:
        raise FileError(f"{path} is cut off: the header of {rank} dimensions needs {begin} bytes, the file has {len(data)}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    dtype = np.dtype(TYPES[data[2]])
    wanted = begin + math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise FileError(f"{path} is damaged: its header describes {wanted} bytes, an array {shape}, but it has {len(data)}")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


class MNIST(TensorDataset):
    """Images (n, 1, h, w) float32 in [0, 1] and labels (n,) int64 of a folder with MNIST's IDX files.

    ``root`` holds train-images-idx3-ubyte and train-labels-idx1-ubyte, or with ``train`` False t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, each plain or with .gz; the folders ``root``/raw and ``root``/MNIST/raw of torchvision are searched too.
    With ``download``, files that are missing are fetched by the package pooch and checked by their published MD5 sums. Raises
    FileError if a file is missing or damaged, if the images are not bytes, or if their number is not the number of labels.
    """

    def __init__(self, root: str | Path, train: bool = True, download: bool = False):
        self.root = Path(root)
        kind = "train" if train else "t10k"
        images, labels = [self._array(f"{kind}-{name}-ubyte", download) for name in ("images-idx3", "labels-idx1")]
        if images.ndim != 3 or labels.ndim != 1 or images.dtype != np.uint8 or labels.dtype != np.uint8:
            raise FileError(f"{root} holds no images and labels of bytes, but arrays {images.shape} and {labels.shape}")
        if len(images) != len(labels):
            raise FileError(f"{root} holds {len(images)} images but {len(labels)} labels")
        self.data: Tensor = from_numpy(images[:, None].astype(np.float32) / np.float32(255))
        self.targets: Tensor = from_numpy(labels.astype(np.int64))
        super().__init__(self.data, self.targets)

    def _array(self, name: str, download: bool) -> np.ndarray:
        for folder in (self.root, self.root / "raw", self.root / "MNIST" / "raw"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return read_idx(path)
        if not download:
            raise FileError(f"{self.root} has neither {name} nor {name}.gz: copy MNIST's files there, or pass download=True")
        compressed = f"{name}.gz"
        _fetch(compressed, self.root)
        return read_idx(self.root / compressed, MD5[compressed])


def _fetch(name: str, folder: Path) -> None:
    """Fetch a file of MNIST into ``folder``. A file that does not arrive whole, or is not the published one, is not kept."""
    try:
        import pooch
        import requests
    except ImportError:
        raise ImportError("downloading MNIST needs the package pooch: pip install pooch") from None
    url = SOURCE + name
    try:
        pooch.retrieve(url, f"md5:{MD5[name]}", name, folder)
        return
    except requests.exceptions.ChunkedEncodingError:
        cause = "the connection broke off"
    except requests.exceptions.Timeout:
        cause = "the server does not answer"
    except requests.exceptions.ConnectionError:
        cause = f"there is no connection to {urlsplit(url).netloc}"
    except ValueError:
        cause = "its MD5 sum is not the published one"
    except OSError as error:
        cause = str(error)
    raise FileError(f"{url} cannot be fetched: {cause}. Try again, or copy MNIST's files to {folder}")
