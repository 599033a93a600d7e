"""The forms in which CIFAR-10 and CIFAR-100 (Krizhevsky 2009) are published.

Digests: those of archives are the MD5 sums of https://www.cs.toronto.edu/~kriz/cifar.html; those of
the files in the Python versions are from torchvision/datasets/cifar.py, those of the files in the
binary versions from python/mxnet/gluon/data/vision/datasets.py. (Records made from the Python
version of CIFAR-10 have the latter.)
"""

import functools
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """A form of one of the data sets: an archive that holds one folder.

    Attributes:
        archive: File name of the archive.
        archive_md5: Its MD5.
        folder: Name of the folder in it.
        train: Files of the training part, in their order, with "algorithm:digest".
        test: The same of the test part.
        parse: Reads the content of one of these files: pixels uint8 (N, 3072), the planes R, G and
            B of each image by rows, and labels int64 (N,). Raises anything on other content.
    """

    archive: str
    archive_md5: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    parse: Callable[[bytes], tuple[np.ndarray, np.ndarray]]

    @property
    def digests(self) -> dict[str, str]:
        """All files with their digests."""
        return {**self.train, **self.test}


class _Unpickler(pickle.Unpickler):
    """Reads pickles that hold nothing but NumPy arrays and plain values."""

    _ADMITTED: Mapping[tuple[str, str], Any] = {
        # By the function itself, since NumPy 2 moved the module.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what an admitted name stands for."""
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in it") from None


def _parse_batch(content: bytes, *, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of a Python version: a pickled dict, the labels under the key `labels`."""
    batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    pixels = np.asarray(batch["data"])
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels of type {pixels.dtype}")
    return pixels.reshape(-1, _PIXELS), np.asarray(batch[labels], np.int64)


def _parse_records(content: bytes, *, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of a binary version: records of labels, the finest last, and pixels."""
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + _PIXELS)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)


@dataclass(frozen=True)
class Cifar:
    """One of the data sets; `open_data` calls it `kind`, people call it `name`.

    Attributes:
        classes: Names of the classes, by index.
        layouts: Its forms, the preferred one first.
    """

    kind: str
    name: str
    classes: tuple[str, ...]
    layouts: tuple[Layout, ...]


CIFAR10 = Cifar(
    "cifar10",
    "CIFAR-10",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (
        Layout(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "cifar-10-batches-py",
            {
                "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
                "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
                "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
            },
            {"test_batch": "md5:40351d587109b95175f43aff81a1287e"},
            functools.partial(_parse_batch, labels="labels"),
        ),
        Layout(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-batches-bin",
            {
                "data_batch_1.bin": "sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540",
                "data_batch_2.bin": "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
                "data_batch_3.bin": "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
                "data_batch_4.bin": "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e",
                "data_batch_5.bin": "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628",
            },
            {"test_batch.bin": "sha1:67eb016db431130d61cd03c7ad570b013799c88c"},
            functools.partial(_parse_records, label_bytes=1),
        ),
    ),
)

# The fine classes in the order of the archives' `meta`.
_FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = Cifar(
    "cifar100",
    "CIFAR-100",
    tuple(_FINE_CLASSES.split()),
    (
        Layout(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python",
            {"train": "md5:16019d7e3df5f24257cddd939b257f8d"},
            {"test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"},
            functools.partial(_parse_batch, labels="fine_labels"),
        ),
        Layout(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-binary",
            {"train.bin": "sha1:e207cd2e05b73b1393c74c7f5e7bea451d63e08e"},
            {"test.bin": "sha1:8fb6623e830365ff53cf14adec797474f5478006"},
            functools.partial(_parse_records, label_bytes=2),
        ),
    ),
)
