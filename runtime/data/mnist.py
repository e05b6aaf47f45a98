"""MNIST, and the idx format its files are in."""

import gzip
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .files import check_md5, download, first_existing
from .images import LabelledImages

_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an array from an idx file, plain or gzipped.

    The format: two zero bytes, a dtype code, the number of dims, each dim as a big-endian uint32, then the values.
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".

    Returns:
        the array in native byte order.

    Raises:
        ValueError: the file is damaged, is of another format, or its length does not fit its header.

    Example:
        >>> import pathlib, tempfile, paceline.utils.data as data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     data.read_idx(path)
        array([7, 8, 9], dtype=uint8)
    """
    content = _read_maybe_gzipped(Path(path))
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_DTYPES:
        raise ValueError(f"{path} is not an idx file: it begins with {content[:4]!r}")
    dtype, ndim = np.dtype(_IDX_DTYPES[content[2]]), content[3]
    header = 4 + 4 * ndim
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"{path} is damaged: shape {list(shape)} takes {expected} bytes, the file has {len(content)}")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _read_maybe_gzipped(path: Path) -> bytes:
    """The file's bytes, decompressed where they begin as a gzip stream does."""
    content = path.read_bytes()
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


class MNIST(LabelledImages):
    """The MNIST handwritten digits: 60,000 images to train on, 10,000 to test on.

    Args:
        root: the folder with the four published files, or the one in which torchvision keeps them in ``MNIST/raw``;
            gzipped (then checked against the published MD5) or unpacked.
        train: the training set, or the test set.
        transform: applied to each image, a uint8 array of shape [28, 28].
        target_transform: applied to each label, an int in [0, 10).
        download: fetch missing files into ``root/MNIST/raw``.

    Attributes:
        data: all images, uint8 of shape [N, 28, 28].
        targets: their labels, int64 of shape [N].

    Raises:
        FileNotFoundError: a file is missing; says where it should be and how to get it.
        RuntimeError: a file is not the published one, or cannot be downloaded.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".

    Example:
        >>> import paceline.utils.data as data
        >>> digits = data.MNIST("examples/data/mnist", train=False)
        >>> digits.data.shape, digits[0][1]
        ((10000, 28, 28), 7)
    """

    mirrors = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]
    md5 = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Callable[[np.ndarray], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = False,
    ):
        self.root = Path(root)
        self.train = train
        split = "train" if train else "t10k"
        images = self._read(f"{split}-images-idx3-ubyte.gz", download)
        labels = self._read(f"{split}-labels-idx1-ubyte.gz", download)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"the {split} files of MNIST in {root} do not fit each other: "
                f"images have shape {list(images.shape)}, labels {list(labels.shape)}"
            )
        super().__init__(images, labels.astype(np.int64), transform, target_transform)

    def _read(self, name: str, may_download: bool) -> np.ndarray:
        """The array in one of the four files."""
        folders = (self.root, self.root / "MNIST" / "raw")
        candidates = [folder / kind for folder in folders for kind in (name, name.removesuffix(".gz"))]
        if may_download and not any(path.is_file() for path in candidates):
            download([mirror + name for mirror in self.mirrors], folders[1] / name, self.md5[name])
        path = first_existing(candidates, f"Get it from {self.mirrors[0]}{name}, or pass download=True.")
        if path.name in self.md5:
            check_md5(path, self.md5[name])
        return read_idx(path)
