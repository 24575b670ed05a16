"""Tensors in the pickle of a TorchScript archive, read as data.

The pickle is interpreted symbolically. What it names is neither imported nor called: a class or a
function becomes a `Named`, and an object made by it becomes a `Record` of what it was made from.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

TYPES: dict[str, Any] = {
    "torch DoubleStorage": np.float64,
    "torch FloatStorage": np.float32,
    "torch HalfStorage": np.float16,
    "torch BFloat16Storage": ml_dtypes.bfloat16,
    "torch LongStorage": np.int64,
    "torch IntStorage": np.int32,
    "torch ShortStorage": np.int16,
    "torch CharStorage": np.int8,
    "torch ByteStorage": np.uint8,
    "torch BoolStorage": np.bool_,
}
"""NumPy's type of the numbers in each storage."""


class Named(NamedTuple):
    """A class or a function that the pickle names, such as ``torch._utils _rebuild_tensor_v2``."""

    name: str


@dataclass(eq=False)
class Record:
    """An object that is not built.

    Attributes:
      made_by: What the pickle would call to make it.
      arguments: The arguments of the call.
      state: What the pickle would set on it, such as the attributes of a module.
    """

    made_by: Any
    arguments: Any
    state: Any = None


class Tensor(NamedTuple):
    """A view of a stored array of one axis.

    Attributes:
      storage: The name of the array in the archive.
      dtype: The type of its numbers.
      offset: Index of the first element.
      shape: The shape of the tensor.
      strides: Its strides, in elements.
    """

    storage: str
    dtype: Any
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, data: bytes) -> np.ndarray:
        """Returns the tensor as a view of the bytes of its storage.

        Raises:
          ValueError: If it reaches beyond them, or repeats numbers: a tensor of absurd shape.
        """
        itemsize = np.dtype(self.dtype).itemsize
        numbers = (self.offset, *self.shape, *self.strides)
        size = 1
        for n in self.shape:
            size *= n
        if any(not isinstance(n, int) or n < 0 for n in numbers) or size * itemsize > len(data):
            raise ValueError(f"a tensor of shape {self.shape} lies in {len(data)} bytes")
        steps = [stride * itemsize for stride in self.strides]
        try:
            return np.ndarray(self.shape, self.dtype, data, self.offset * itemsize, steps)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(
                f"a tensor of shape {self.shape} reaches beyond its {len(data)} bytes"
            ) from None


def parse(data: bytes) -> Any:
    """Returns the object in a pickle, of dictionaries, lists, tuples, `Tensor` and `Record`.

    Raises:
      ValueError: If it is damaged, or has an instruction that TorchScript does not write.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged text
            for opcode, argument, _ in pickletools.genops(data):
                machine.do(opcode.name, argument)
        (result,) = machine.stack
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from None
    return result


class _Machine:
    """The stack machine of a pickle, with the instructions that TorchScript writes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        if name in ("PROTO", "STOP"):
            return
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "GLOBAL":
            self.stack.append(Named(argument))
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise ValueError(f"no instruction {name} was expected")

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its stack is empty")
        top = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return top

    def pop_to_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    pairs = zip(items[::2], items[1::2], strict=True)
    if isinstance(target, Mapping):
        target.update(pairs)  # pyright: ignore[reportAttributeAccessIssue]
    else:  # a dictionary of another class
        target.state = dict(pairs)


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.stack[-1].extend(items)


def _make(machine: _Machine) -> None:
    made_by, arguments = machine.pop(2)
    name = made_by.name if isinstance(made_by, Named) else ""
    if name == "torch._utils _rebuild_tensor_v2" and isinstance(arguments[0], Tensor):
        storage, offset, shape, strides, *_ = arguments
        found = storage._replace(offset=offset, shape=tuple(shape), strides=tuple(strides))
        machine.stack.append(found)
    elif name == "torch._utils _rebuild_parameter":
        machine.stack.append(arguments[0])
    elif name == "torch.jit._pickle restore_type_tag":
        machine.stack.append(arguments[0])
    elif name == "collections OrderedDict":
        machine.stack.append({})
    else:
        machine.stack.append(Record(made_by, arguments))


def _build(machine: _Machine) -> None:
    (state,) = machine.pop(1)
    if isinstance(machine.stack[-1], Record):
        machine.stack[-1].state = state


def _refer(machine: _Machine) -> None:
    """Pushes the storage of a tensor, or a record if its numbers have no type of NumPy."""
    (reference,) = machine.pop(1)
    _, kind, key, *_ = reference
    dtype = TYPES.get(kind.name)
    found = Record(kind, reference) if dtype is None else Tensor(str(key), dtype, 0, (), ())
    machine.stack.append(found)


_PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine: machine.stack.append(tuple(machine.pop(1))),
    "TUPLE2": lambda machine: machine.stack.append(tuple(machine.pop(2))),
    "TUPLE3": lambda machine: machine.stack.append(tuple(machine.pop(3))),
    "SETITEM": lambda machine: _set_items(machine, machine.pop(2)),
    "SETITEMS": lambda machine: _set_items(machine, machine.pop_to_mark()),
    "APPEND": lambda machine: _append(machine, machine.pop(1)),
    "APPENDS": lambda machine: _append(machine, machine.pop_to_mark()),
    "REDUCE": _make,
    "NEWOBJ": _make,
    "BUILD": _build,
    "BINPERSID": _refer,
}
