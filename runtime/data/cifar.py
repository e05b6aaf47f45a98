"""CIFAR-10, in both formats it is published in."""

import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import check_md5, download
from .images import LabelledImages

_IMAGE_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3 * 32 * 32


class _StoredDtype:
    """Stands for numpy.dtype in a pickled batch; only bytes are admitted."""

    def __init__(self, code: bytes | str, *flags: Any):
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it holds an array of dtype {code!r} instead of u1")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment mean nothing to bytes."""


class _StoredArray:
    """Stands for numpy.ndarray in a pickled batch."""

    def __init__(self, *initial: Any):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _StoredDtype, bool, bytes]) -> None:
        _version, shape, _dtype, is_fortran, content = state
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _BatchUnpickler(pickle.Unpickler):
    """Admits what the published batches hold and nothing else.

    A pickle may name any function and have it called. Here every name resolves to one of the two stand-ins above, so
    nothing of a file's choosing runs, not even NumPy's own unpickling, which trusts its input.
    """

    _ADMITTED = {
        "numpy.core.multiarray._reconstruct": _StoredArray,  # as the published files, made by Python 2, name it
        "numpy._core.multiarray._reconstruct": _StoredArray,
        "numpy.ndarray": _StoredArray,
        "numpy.dtype": _StoredDtype,
    }

    def find_class(self, module: str, name: str) -> type:
        try:
            return self._ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which does not belong there") from None


def read_cifar10_python(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch of CIFAR-10's "python version": a pickled dict, of which nothing is executed.

    Returns:
        the images, uint8 of shape [N, 3, 32, 32], and their labels, int64 of shape [N].

    Raises:
        ValueError: the file is damaged, names any function or class beyond plain arrays, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            batch = _BatchUnpickler(file, encoding="bytes").load()
        pixels, labels = batch[b"data"].array, batch[b"labels"]
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path} is not a python batch of CIFAR-10: {type(error).__name__}: {error}") from error
    return _checked(path, pixels, labels)


def read_cifar10_binary(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch of CIFAR-10's "binary version": per image one byte of label and 3072 of pixels.

    Returns:
        the images, uint8 of shape [N, 3, 32, 32], and their labels, int64 of shape [N].

    Raises:
        ValueError: the file's length is no multiple of 3073, or a label is not below 10.
    """
    content = np.fromfile(path, np.uint8)
    if len(content) % (1 + _IMAGE_BYTES):
        raise ValueError(f"{path} is damaged: {len(content)} bytes are not a multiple of {1 + _IMAGE_BYTES}")
    records = content.reshape(-1, 1 + _IMAGE_BYTES)
    return _checked(path, records[:, 1:], records[:, 0])


def _checked(path: Any, pixels: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in their final shapes, if they fit each other."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or pixels.shape != (len(labels), _IMAGE_BYTES) or not np.isin(labels, range(10)).all():
        raise ValueError(
            f"{path} is not a batch of CIFAR-10: expected [N, {_IMAGE_BYTES}] pixels and N labels below 10, "
            f"got shapes {list(pixels.shape)} and {list(labels.shape)}"
        )
    return pixels.reshape(-1, *_IMAGE_SHAPE), labels.astype(np.int64)


class _Format(NamedTuple):
    """One of the published formats."""

    folder: str
    suffix: str
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]


_FORMATS = (
    _Format("cifar-10-batches-py", "", read_cifar10_python),
    _Format("cifar-10-batches-bin", ".bin", read_cifar10_binary),
)


class CIFAR10(LabelledImages):
    """The CIFAR-10 images: 50,000 to train on, 10,000 to test on, of ten classes.

    Args:
        root: the folder with ``cifar-10-batches-py`` or ``cifar-10-batches-bin`` in it, as the published archives
            unpack. The python batches are checked against the published MD5; of the binary ones only the archive's
            is published.
        train: the training set, or the test set.
        transform: applied to each image, a uint8 array of shape [32, 32, 3].
        target_transform: applied to each label, an int in [0, 10).
        download: fetch and unpack the python version where it is missing.

    Attributes:
        data: all images, uint8 of shape [N, 32, 32, 3], channels last as torchvision has them.
        targets: their labels, int64 of shape [N].

    Raises:
        FileNotFoundError: a file is missing; says where it should be and how to get it.
        RuntimeError: a file is not the published one, or cannot be downloaded.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive_md5 = "c58f30108f718f92721af3b95e74349a"
    md5 = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
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
        self._names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        found = self._find()
        if found is None and download:
            self._download()
            found = self._find()
        if found is None:
            raise FileNotFoundError(self._what_is_missing())
        batches = [self._read(found, name) for name in self._names]
        images = np.concatenate([images for images, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        # One copy here keeps the channels of a pixel together in memory, as every reader of single images wants them.
        super().__init__(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels, transform, target_transform)

    def _path(self, layout: _Format, name: str) -> Path:
        return self.root / layout.folder / (name + layout.suffix)

    def _find(self) -> _Format | None:
        """The first format of which all files are there."""
        complete = (f for f in _FORMATS if all(self._path(f, name).is_file() for name in self._names))
        return next(complete, None)

    def _read(self, layout: _Format, name: str) -> tuple[np.ndarray, np.ndarray]:
        path = self._path(layout, name)
        if path.name in self.md5:
            check_md5(path, self.md5[path.name])
        return layout.read(path)

    def _what_is_missing(self) -> str:
        """The message for whoever has neither format complete."""
        lines = ["CIFAR-10 not found; expected all files of one of its two formats, missing are"]
        for layout in _FORMATS:
            paths = (self._path(layout, name) for name in self._names)
            lines.append("  " + ", ".join(str(path) for path in paths if not path.is_file()))
        lines.append(f"Unpack {self.url} (or cifar-10-binary.tar.gz beside it) in {self.root}, or pass download=True.")
        return "\n".join(lines)

    def _download(self) -> None:
        """Fetch the archive unless it is there, check it, and unpack the batches that are missing."""
        archive = self.root / Path(self.url).name
        if archive.is_file():
            check_md5(archive, self.archive_md5)
        else:
            download([self.url], archive, self.archive_md5)
        folder = self.root / _FORMATS[0].folder
        folder.mkdir(exist_ok=True)
        with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as temporary:
            for name in self.md5:
                part = Path(temporary, name)
                with tar.extractfile(f"{folder.name}/{name}") as source, open(part, "wb") as target:  # type: ignore[union-attr]
                    shutil.copyfileobj(source, target)
                os.replace(part, folder / name)
