"""Tensors in the pickle of a TorchScript archive, read as data.

The pickle is interpreted symbolically. What it names is neither imported nor called: a class or a
function becomes a `Named`, and an object made by it becomes a `Record` of what it was made from.
"""

import math
import pickletools
import warnings
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
        # Checked before the product: that of a number and a text repeats the text.
        is_valid = all(isinstance(n, int) and n >= 0 for n in numbers)
        if not is_valid or math.prod(self.shape) * itemsize > len(data):
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
        push = self.stack.append
        match name:
            case "PROTO" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                push(argument)
            case "BINUNICODE" | "BINSTRING":
                push(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                push({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "MARK":
                self.marks.append(len(self.stack))
            case "GLOBAL":
                push(Named(argument))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self.pop(int(name[-1]) if name[-1].isdigit() else None)))
            case "SETITEM" | "SETITEMS":
                self.set_items(self.pop(2 if name == "SETITEM" else None))
            case "APPEND" | "APPENDS":
                items = self.pop(1 if name == "APPEND" else None)
                self.stack[-1].extend(items)
            case "REDUCE" | "NEWOBJ":
                push(_made(*self.pop(2)))
            case "BUILD":
                (state,) = self.pop(1)
                if isinstance(self.stack[-1], Record):
                    self.stack[-1].state = state
            case "BINPERSID":
                push(_stored(*self.pop(1)))
            case _:
                raise ValueError(f"no instruction {name} was expected")

    def pop(self, count: int | None) -> list[Any]:
        """Removes that many objects from the stack; without a number, those above the mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if not 0 <= start <= len(self.stack):
            raise ValueError("its stack is empty")
        top = self.stack[start:]
        del self.stack[start:]
        return top

    def set_items(self, items: list[Any]) -> None:
        target, pairs = self.stack[-1], dict(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, dict):
            target.update(pairs)
        else:  # a dictionary of another class
            target.state = pairs


def _made(made_by: Any, arguments: Any) -> Any:
    """What a call makes: a tensor, its parameter, a dictionary, or a record of something else."""
    name = made_by.name if isinstance(made_by, Named) else ""
    if name == "torch._utils _rebuild_tensor_v2" and isinstance(arguments[0], Tensor):
        storage, offset, shape, strides, *_ = arguments
        return storage._replace(offset=offset, shape=tuple(shape), strides=tuple(strides))
    if name in ("torch._utils _rebuild_parameter", "torch.jit._pickle restore_type_tag"):
        return arguments[0]
    return {} if name == "collections OrderedDict" else Record(made_by, arguments)


def _stored(reference: Any) -> Any:
    """The storage of a tensor, or a record if its numbers have no type of NumPy."""
    _, kind, key, *_ = reference
    dtype = TYPES.get(kind.name)
    return Record(kind, reference) if dtype is None else Tensor(str(key), dtype, 0, (), ())
