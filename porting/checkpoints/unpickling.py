"""Pickles read without running anything that they name.

A pickle calls the functions and builds the classes that it names. Here the few that stand for plain
data are replaced by functions of our own, from a table; every other becomes an inert placeholder
that keeps the state which the pickle gives it. Nothing of the file's is imported or called.
"""

import pickle
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import IO, Any, Self

import numpy as np

Global = tuple[str, str]  # module, name

# The kinds of dtypes whose bytes are values: bool, integers, floats, complex numbers.
_PLAIN_KINDS = "biufc"


class Inert:
    """Stands for an object of a class that a file names.

    Attributes:
        origin: Module and name of the class, or of the function that made it.
        state: What the pickle set as its state, as a rule its attributes by name.
    """

    origin = ""

    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def __call__(self, *_: Any) -> Self:
        """Stand for what the object would return, were it called."""
        return type(self)()

    def append(self, _: Any) -> None:
        """Take an item of a list, or of a set, as pickles give them."""

    add = append


class Dict(dict[Any, Any]):
    """Stands for dictionaries with attributes, which are not kept: `OrderedDict` and the like."""

    def __setstate__(self, _: Any) -> None: ...


class Stub:
    """Calls a function of ours in the place of one that a file names.

    A pickle can set attributes of what it got; of this it cannot.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it sets attributes of a function")


class Unpickler(pickle.Unpickler):
    """Builds plain containers, what a table knows, and placeholders.

    Args:
        file: Holds the pickle; `guards.check_pickle` has looked at it.
        known: (module, name) -> class or function that stands in for it.
        encoding: Of the texts of Python 2.

    Attributes:
        unknown: Names of the classes and functions that became placeholders.
    """

    def __init__(
        self, file: IO[bytes], known: Mapping[Global, Any], *, encoding: str = "ASCII"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._known = known
        self.unknown: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        found = self._known.get((module, name))
        if found is None:
            origin = f"{module}.{name}"
            return self.unknown.setdefault(origin, type("Inert", (Inert,), {"origin": origin}))
        return Stub(found) if isinstance(found, FunctionType) else found


class DType:
    """Stands in for `numpy.dtype`: the code, and the byte order from the state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self._order = text(code), "<"

    def __setstate__(self, state: Any) -> None:
        order = text(state[1])
        self._order = order if order in "<>" else "<"

    @property
    def plain(self) -> np.dtype | None:
        """The dtype, where bytes of it are values; else None."""
        return np.dtype(self._order + self.code) if self.code[:1] in _PLAIN_KINDS else None


class Array:
    """Stands in for `numpy.ndarray`: its values, or the items of an array of objects.

    Attributes:
        dtype: The code of its dtype.
        shape: Of its values; () where they are no numbers.
    """

    dtype = ""
    shape: tuple[int, ...] = ()
    items: list[Any] | None = None
    _values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.dtype = dtype.code
        if dtype.code.startswith("O"):
            self.items = list(content)
        elif dtype.plain is not None:
            content = content if isinstance(content, bytes) else content.encode("latin1")
            values = np.frombuffer(content, dtype.plain)
            self._values = values.reshape(shape, order="F" if fortran else "C")
            self.shape = self._values.shape

    def array(self) -> np.ndarray:
        """Return its values.

        Raises:
            TypeError: They are no numbers.
        """
        if self._values is None:
            raise TypeError("it holds no numbers")
        return self._values

    def only(self) -> Any:
        """Return the one item of an array of objects, or the array."""
        return self.items[0] if self.items is not None and len(self.items) == 1 else self


def text(name: Any) -> str:
    """Return a name of Python 2 or 3."""
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _reconstruct(*_: Any) -> Array:
    """Make an array to be filled by a state."""
    return Array()


def _scalar(dtype: DType, content: Any) -> Array:
    array = Array()
    array.__setstate__((1, (), dtype, False, content))
    return array


def _from_buffer(content: Any, dtype: DType, shape: Any, order: str) -> Array:
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
    return array


def _encode(characters: str, encoding: Any) -> bytes:
    """Stand in for `codecs.encode`, as which Python 3 writes bytes for Python 2."""
    if text(encoding) != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return characters.encode("latin1")


# NumPy 2 moved its functions; a file names them as the NumPy that wrote it.
NUMPY: Mapping[Global, Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}
CONTAINERS: Mapping[Global, Any] = {
    ("collections", "OrderedDict"): Dict,
    ("collections", "defaultdict"): lambda *_: Dict(),
    ("collections", "Counter"): Dict,
    ("builtins", "set"): list,
    ("__builtin__", "set"): list,
}
