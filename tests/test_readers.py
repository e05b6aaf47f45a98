"""Readers of data files: against files written here byte by byte, and the MNIST test set in examples/."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from paceline.runtime import data

DIGITS = Path(__file__).parents[1] / "examples" / "data" / "mnist"
RNG = np.random.default_rng(0)


def idx_bytes(array, code):
    """An idx file, written as its description has it."""
    header = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def python2_pickle(images, labels):
    """A batch as Python 2's cPickle wrote the published ones: protocol 2 with byte strings."""

    def string(text):
        return b"U" + bytes([len(text)]) + text

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    shape = struct.pack("<BH", ord("M"), images.shape[0]) + struct.pack("<BH", ord("M"), images.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNN" + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"T" + struct.pack("<i", images.size) + images.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + b"](" + numbers + b"eu."


def batch(count):
    """Random pixels and labels of a CIFAR batch."""
    return RNG.integers(256, size=(count, 3072), dtype=np.uint8), RNG.integers(10, size=count).tolist()


def md5(content):
    return hashlib.md5(content).hexdigest()


@contextlib.contextmanager
def serving(folder):
    """The URL under which a server on this machine gives out the files in `folder`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---- idx

IDX = {
    "uint8": (8, RNG.integers(256, size=(3, 4, 5), dtype=np.uint8)),
    "int8": (9, RNG.integers(-128, 128, size=7, dtype=np.int8)),
    "int16": (11, RNG.integers(-999, 999, size=(2, 3), dtype=np.int16)),
    "int32": (12, RNG.integers(-(2**31), 2**31, size=(2, 3), dtype=np.int32)),
    "float32": (13, RNG.random((2, 3), dtype=np.float32)),
    "float64": (14, RNG.random((2, 1, 3))),
    "empty": (8, np.zeros((0, 28, 28), np.uint8)),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("code", "array"), IDX.values(), ids=IDX)
def test_read_idx(tmp_path, code, array, compress):
    path = tmp_path / "file"
    path.write_bytes(compress(idx_bytes(array, code)))
    read = data.read_idx(path)
    assert read.dtype == array.dtype and read.flags.writeable
    np.testing.assert_array_equal(read, array)


LABELS = idx_bytes(np.arange(9, dtype=np.uint8), 8)
BAD_IDX = {
    "empty": (b"", "not an idx file"),
    "magic": (b"\1" + LABELS[1:], "not an idx file"),
    "dtype code": (b"\0\0\7" + LABELS[3:], "not an idx file"),
    "short header": (LABELS[:6], "damaged"),
    "short": (LABELS[:-1], r"shape \[9\] takes 17 bytes, the file has 16"),
    "long": (LABELS + b"\0", "takes 17 bytes, the file has 18"),
    "cut gzip": (gzip.compress(LABELS)[:-3], "damaged"),
    "wrong gzip": (gzip.compress(LABELS)[:-9] + b"\xff" * 9, "damaged"),
}


@pytest.mark.parametrize(("content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


# ---- MNIST


def test_the_digits_in_the_repository():
    digits = data.MNIST(DIGITS, train=False)
    assert digits.data.shape == (10000, 28, 28) and digits.data.dtype == np.uint8
    assert digits.targets.dtype == np.int64
    assert digits.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # how often each digit occurs in the test set, as published
    assert np.bincount(digits.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    image, label = digits[0]
    np.testing.assert_array_equal(image, digits.data[0])
    assert label == 7 and type(label) is int


def test_whole_batches_equal_collated_samples():
    digits = data.MNIST(DIGITS, train=False)
    batch = next(iter(data.DataLoader(digits, batch_size=4)))
    for fast, slow in zip(batch, data.default_collate([digits[i] for i in range(4)]), strict=True):
        assert fast.dtype == slow.dtype
        np.testing.assert_array_equal(fast, slow)


def test_transforms_see_every_sample():
    digits = data.MNIST(DIGITS, train=False, transform=lambda image: image / 255, target_transform=str)
    images, labels = next(iter(data.DataLoader(digits, batch_size=2)))
    np.testing.assert_array_equal(images, digits.data[:2] / 255)
    assert labels == ("7", "2")


def test_a_missing_file_says_where_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.MNIST(tmp_path)
    for expected in (
        str(tmp_path / "train-images-idx3-ubyte.gz"),
        str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"),
        "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
        "download=True",
    ):
        assert expected in str(caught.value)


def test_a_changed_file_is_refused(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(RuntimeError, match="9fb629c4189551a2d022fa330f9573f3"):
        data.MNIST(tmp_path, train=False)


def test_unpacked_files_must_fit_each_other(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((3, 28, 28), np.uint8), 8))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(LABELS)
    with pytest.raises(ValueError, match=r"shape \[3, 28, 28\], labels \[9\]"):
        data.MNIST(tmp_path, train=False)


def test_download_skips_mirrors_that_fail(tmp_path, monkeypatch):
    with serving(DIGITS) as url:
        monkeypatch.setattr(data.MNIST, "mirrors", [url + "nowhere/", url])
        digits = data.MNIST(tmp_path, train=False, download=True)
    assert len(digits) == 10000
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    monkeypatch.setattr(data.MNIST, "mirrors", ["nowhere"])  # what is there is not fetched again
    assert len(data.MNIST(tmp_path, train=False, download=True)) == 10000


def test_a_wrong_download_leaves_nothing_behind(tmp_path, monkeypatch):
    published, root = tmp_path / "published", tmp_path / "root"
    published.mkdir()
    (published / "t10k-images-idx3-ubyte.gz").write_bytes(b"an error page")
    with serving(published) as url:
        monkeypatch.setattr(data.MNIST, "mirrors", [url, url + "nowhere/"])
        with pytest.raises(RuntimeError, match="cannot download t10k-images") as caught:
            data.MNIST(root, train=False, download=True)
    assert "MD5" in str(caught.value) and "404" in str(caught.value)
    assert not [path for path in root.rglob("*") if path.is_file()]


# ---- CIFAR-10


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [None, 3, 4])
def test_read_cifar10_python(tmp_path, protocol, order):
    pixels, labels = batch(4)
    path = tmp_path / "test_batch"
    if protocol is None:
        path.write_bytes(python2_pickle(pixels, labels))
    else:
        path.write_bytes(pickle.dumps({b"data": np.asarray(pixels, order=order), b"labels": labels}, protocol))
    images, targets = data.read_cifar10_python(path)
    np.testing.assert_array_equal(images, pixels.reshape(4, 3, 32, 32))
    np.testing.assert_array_equal(targets, labels)
    assert targets.dtype == np.int64


def test_the_hand_written_pickle_is_a_pickle():
    pixels, labels = batch(2)
    plain = pickle.loads(python2_pickle(pixels, labels), encoding="bytes")
    np.testing.assert_array_equal(plain[b"data"], pixels)
    assert plain[b"labels"] == labels


class Attack:
    """Pickles to a call of the given function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bad_pickles(tmp_path):
    pixels, labels = batch(2)
    good = {b"data": pixels, b"labels": labels}
    touch = tmp_path / "attacked"
    return {
        "touch": ({**good, b"x": Attack(Path.touch, touch)}, "names pathlib"),
        "exec": ({**good, b"x": Attack(exec, f"open({str(touch)!r}, 'w')")}, "names builtins.exec"),
        "getattr": ({**good, b"x": Attack(getattr, "a", "upper")}, "names builtins.getattr"),
        "objects": ({**good, b"data": np.array([[Attack(exec, "")]])}, "dtype 'O8'|names"),
        "dtype": ({**good, b"data": pixels.astype(np.int64)}, "dtype 'i8'"),
        "shape": ({**good, b"data": pixels[:, 1:]}, r"shapes \[2, 3071\]"),
        "number of labels": ({**good, b"labels": [1]}, r"and \[1\]"),
        "label": ({**good, b"labels": [1, 10]}, "below 10"),
        "no labels": ({b"data": pixels}, "KeyError"),
        "no dict": ([1], "TypeError"),
    }


@pytest.mark.parametrize("case", bad_pickles(Path()))
def test_a_python_batch_runs_no_code_and_holds_nothing_else(tmp_path, case):
    content, message = bad_pickles(tmp_path)[case]
    path = tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(ValueError, match=message):
        data.read_cifar10_python(path)
    assert not (tmp_path / "attacked").exists()


def test_a_cut_python_batch_is_refused(tmp_path):
    path = tmp_path / "test_batch"
    path.write_bytes(python2_pickle(*batch(2))[:-100])
    with pytest.raises(ValueError, match=f"{path} is not a python batch"):
        data.read_cifar10_python(path)
    with pytest.raises(FileNotFoundError):
        data.read_cifar10_python(tmp_path / "nowhere")


def binary_bytes(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))


def test_read_cifar10_binary(tmp_path):
    pixels, labels = batch(3)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(binary_bytes(pixels, labels))
    images, targets = data.read_cifar10_binary(path)
    np.testing.assert_array_equal(images, pixels.reshape(3, 3, 32, 32))
    np.testing.assert_array_equal(targets, labels)

    path.write_bytes(binary_bytes(pixels, labels)[1:])
    with pytest.raises(ValueError, match="9218 bytes are not a multiple of 3073"):
        data.read_cifar10_binary(path)
    path.write_bytes(binary_bytes(pixels, [1, 2, 99]))
    with pytest.raises(ValueError, match="labels below 10"):
        data.read_cifar10_binary(path)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small CIFAR-10 on a server, with the checksums that belong to it. batches by name."""
    batches = {name: batch(3) for name in data.CIFAR10.md5}
    files = {name: python2_pickle(*content) for name, content in batches.items()}
    folder = tmp_path / "published"
    folder.mkdir()
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(data.CIFAR10, "md5", {name: md5(content) for name, content in files.items()})
    monkeypatch.setattr(data.CIFAR10, "archive_md5", md5((folder / "cifar-10-python.tar.gz").read_bytes()))
    with serving(folder) as url:
        monkeypatch.setattr(data.CIFAR10, "url", url + "cifar-10-python.tar.gz")
        yield batches


def test_cifar10_downloads_unpacks_and_reads(tmp_path, published, monkeypatch):
    root = tmp_path / "root"
    train = data.CIFAR10(root, download=True)
    monkeypatch.setattr(data.CIFAR10, "url", "unused")
    test = data.CIFAR10(root, train=False, download=True)
    assert train.data.shape == (15, 32, 32, 3) and test.data.shape == (3, 32, 32, 3)
    pixels, labels = published["data_batch_2"]
    np.testing.assert_array_equal(train.data[4], pixels[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert train[4][1] == labels[1]
    assert sorted(p.name for p in (root / "cifar-10-batches-py").iterdir()) == sorted(data.CIFAR10.md5)

    (root / "cifar-10-batches-py" / "test_batch").write_bytes(python2_pickle(*batch(3)))
    with pytest.raises(RuntimeError, match="damaged or another"):
        data.CIFAR10(root, train=False)


def test_cifar10_refuses_an_archive_that_is_not_the_published_one(tmp_path, published):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="MD5"):
        data.CIFAR10(tmp_path, download=True)


def test_cifar10_reads_the_binary_version(tmp_path):
    pixels, labels = batch(3)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(binary_bytes(pixels, labels))
    test = data.CIFAR10(tmp_path, train=False)
    np.testing.assert_array_equal(test.data, pixels.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))
    assert test.targets.tolist() == labels


def test_missing_cifar10_says_where_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.CIFAR10(tmp_path, train=False)
    for expected in (
        str(tmp_path / "cifar-10-batches-py" / "test_batch"),
        str(tmp_path / "cifar-10-batches-bin" / "test_batch.bin"),
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "download=True",
    ):
        assert expected in str(caught.value)
