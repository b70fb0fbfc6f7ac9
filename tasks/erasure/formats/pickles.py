"""Pickles, and what PyTorch saves: followed symbolically, never executed.

A pickle is a program, so it is not loaded: its instructions are read one by one (:mod:`pickletools`), and
what it would put together is noted as text, as bytes, and as arrays of NumPy and tensors of PyTorch.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.erasure.formats import arrays
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

MARKS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
STEPS = 20_000_000
"""Instructions that are followed: more, and the rest is read as text."""

TEXTS = 1 << 16
"""Texts that are looked up together."""

SMALLEST = 32
"""Bytes of a value that may be a content of its own."""

STORAGES = {
    "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "<i2", "IntStorage": "<i4",
    "LongStorage": "<i8", "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8",
}  # fmt: skip
NUMPY = ("_reconstruct", "_frombuffer", "scalar")
MEMO_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
MEMO_GET = {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

MARK = object()


class _Made:
    """What an instruction would have made: by what, of what, in which state."""

    __slots__ = ("by", "of", "state")

    def __init__(self, by: Any, of: Any = ()) -> None:
        self.by, self.of, self.state = by, of, None


def matches(head: bytes) -> bool:
    """Whether it begins as a pickle of protocol 2 or later does; earlier ones are text."""
    return head.startswith(MARKS)


def read(content: Content, scan: Scan) -> bool:
    """Follow the pickle, or the several that PyTorch's old format has one after the other."""
    content.stream.seek(0)
    try:
        count = 0
        while content.stream.tell() < content.size and count < 5:
            mark = content.stream.read(2)
            content.stream.seek(-len(mark), io.SEEK_CUR)
            if count and not mark.startswith(MARKS):
                break
            follow(content.stream, scan)
            count += 1
    except Exception:  # pickletools says in many ways that it is none, or not a whole one
        scan.unread[Unread.DAMAGED] += 1
        return False
    if content.stream.tell() < content.size:
        scan.unread[Unread.LEGACY] += 1
        return False
    return True


def torch_archive(archive: zipfile.ZipFile, scan: Scan) -> set[str]:
    """Search what PyTorch saved as a zip archive; return the members that need not be looked at again."""
    names = set(archive.namelist())
    done = set()
    for name in (each for each in names if each == "data.pkl" or each.endswith("/data.pkl")):
        prefix = name.removesuffix("data.pkl")
        if archive.getinfo(name).file_size > scan.left:
            continue
        with archive.open(name) as file, scan.unpacked(file) as plain:  # type: ignore[arg-type]
            try:
                tensors = follow(plain, scan)
            except Exception:  # as above
                scan.unread[Unread.DAMAGED] += 1
                continue
        done.add(name)
        by_storage: dict[str, list[_Tensor]] = {}
        for tensor in tensors:
            by_storage.setdefault(f"{prefix}data/{tensor.storage}", []).append(tensor)
        for member in by_storage.keys() & names:
            info = archive.getinfo(member)
            if info.file_size > scan.left:
                scan.unread[Unread.CUT] += 1
                continue
            scan.left -= info.file_size
            with archive.open(member) as file:
                _storage(file.read(), by_storage[member], scan)
            done.add(member)
    return done


class _Tensor:
    """Where a tensor lies in a storage."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(self, storage: str, dtype: str, offset: int, shape: Any, strides: Any) -> None:
        self.storage, self.dtype, self.offset, self.shape, self.strides = (
            storage,
            dtype,
            offset,
            shape,
            strides,
        )


def _storage(data: bytes, tensors: list[_Tensor], scan: Scan) -> None:
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        values = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
        if (
            len(tensor.shape) != len(tensor.strides)
            or min((0, tensor.offset, *tensor.strides, *tensor.shape)) < 0
        ):
            continue
        last = tensor.offset + sum(
            (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if not math.prod(tensor.shape) or last >= len(values):
            continue
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view: NDArray[Any] = np.lib.stride_tricks.as_strided(
            values[tensor.offset :], tensor.shape, strides, writeable=False
        )
        arrays.search_array(view, scan)


def follow(stream: BinaryIO, scan: Scan) -> list[_Tensor]:
    """Follow one pickle to its end; search its texts, bytes and arrays; return PyTorch's tensors in it.

    Raises
    ------
    ValueError
        If it is not a pickle, or ends too early; other errors of :mod:`pickletools` are possible.
    """
    machine = _Machine(scan)
    try:
        for step, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if step >= STEPS:
                scan.unread[Unread.CUT] += 1
                break
            machine.step(operation, argument)
    finally:
        machine.tell()
    return machine.tensors


class _Machine:
    """A stack on which nothing is ever called."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.texts: set[bytes] = set()
        self.tensors: list[_Tensor] = []

    def step(self, operation: Any, argument: Any) -> None:
        """Follow one instruction."""
        name = operation.name
        if name in MEMO_PUT:
            self.memo[int(argument)] = self.stack[-1] if self.stack else None
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1] if self.stack else None
        elif name in MEMO_GET:
            self.stack.append(self.memo.get(int(argument)))
        elif name == "MARK":
            self.stack.append(MARK)
        elif name == "TUPLE":
            self.stack.append(tuple(self._to_mark()))
        elif name == "EMPTY_TUPLE":
            self.stack.append(())
        elif name in TUPLES:
            self.stack.append(tuple(self._pop(TUPLES[name])))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(
                str(argument).rpartition(" ")[2] if name == "GLOBAL" else (self._pop(2) or [None])[-1]
            )
        elif name in ("REDUCE", "NEWOBJ"):
            by, of = [None, None, *self._pop(2)][-2:]
            self.stack.append(self._reduced(by, of if isinstance(of, tuple) else ()))
        elif name == "BUILD":
            self._built(*[None, None, *self._pop(2)][-2:])
        elif name == "BINPERSID":
            self.stack.append(_Made("persistent", (self._pop(1) or [None])[0]))
        else:
            self._otherwise(operation, argument)

    def _otherwise(self, operation: Any, argument: Any) -> None:
        before, after = operation.stack_before, operation.stack_after
        if pickletools.markobject in before:
            self._to_mark()
            before = before[: before.index(pickletools.markobject)]
        kept = self._pop(len(before))
        if isinstance(argument, str | bytes | bytearray):
            self._value(argument)
        if operation.name == "DUP":
            after = [None, None]
            self.stack += kept * 2
        elif after:
            plain = isinstance(argument, str | bytes | bytearray | int)
            known = argument if plain and not kept else kept[0] if kept else _constant(operation.name)
            self.stack.append(known)

    def _value(self, value: str | bytes | bytearray) -> None:
        if isinstance(value, str):
            data = value.encode("utf-8", errors="surrogatepass")
            if len(value) >= SMALLEST and any(ord(letter) < 0x09 for letter in value[:512]):
                try:  # bytes that Python 2 wrote, or that protocol 2 has as Latin letters
                    self.scan.encoded(value.encode("latin-1"))
                except UnicodeEncodeError:
                    self.scan.text(data)
                return
            self.texts.add(data)
            if len(self.texts) >= TEXTS:
                self.tell()
        elif len(value) >= SMALLEST:
            self.scan.encoded(bytes(value))
        else:
            self.texts.add(bytes(value))

    def tell(self) -> None:
        """Search the texts that were met."""
        self.scan.names(self.texts)
        self.scan.text(b"\n".join(self.texts))
        self.texts = set()

    def _reduced(self, by: Any, of: tuple[Any, ...]) -> Any:
        if by in ("_rebuild_tensor_v2", "_rebuild_tensor") and len(of) >= 4:
            self._tensor(*of[:4])
        elif by == "_frombuffer" and len(of) >= 3:
            order = of[3] if len(of) > 3 else "C"
            self._array(of[0], of[1], of[2], fortran=order == "F")
        elif by == "encode" and len(of) == 2 and isinstance(of[0], str):
            try:  # bytes as protocol 2 writes them
                return of[0].encode("latin-1")
            except UnicodeEncodeError:
                return None
        elif by in ("bytearray", "PickleBuffer") and of and isinstance(of[0], bytes | bytearray):
            return bytes(of[0])
        return _Made(by, of)

    def _built(self, made: Any, state: Any) -> None:
        if not isinstance(made, _Made):
            self.stack.append(made)
            return
        made.state = state
        self.stack.append(made)
        if made.by == "_reconstruct" and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            self._array(data, dtype, shape, fortran=bool(fortran))

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        place = storage.of if isinstance(storage, _Made) and storage.by == "persistent" else ()
        if not isinstance(place, tuple) or len(place) < 3:
            return
        dtype = STORAGES.get(str(place[1]))
        if dtype and isinstance(offset, int) and _is_shape(shape) and _is_shape(strides):
            self.tensors.append(_Tensor(str(place[2]), dtype, offset, shape, strides))

    def _array(self, data: Any, dtype: Any, shape: Any, *, fortran: bool) -> None:
        if isinstance(data, str):
            try:
                data = data.encode("latin-1")
            except UnicodeEncodeError:
                return
        kind = _dtype(dtype)
        if kind is None or not isinstance(data, bytes | bytearray) or not _is_shape(shape):
            return
        if math.prod(shape) * kind.itemsize == len(data) and len(data):
            values = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
            if kind.kind in "US":
                texts = {
                    text if isinstance(text, bytes) else text.encode(errors="replace")
                    for text in np.unique(values).tolist()
                }
                self.texts |= texts
            else:
                arrays.search_array(values, self.scan)

    def _pop(self, count: int) -> list[Any]:
        if not count:
            return []
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        return []


def _constant(name: str) -> bool | None:
    return {"NEWTRUE": True, "NEWFALSE": False}.get(name)


def _dtype(made: Any) -> np.dtype[Any] | None:
    if not isinstance(made, _Made) or made.by != "dtype" or not made.of or not isinstance(made.of[0], str):
        return None
    order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "="
    try:
        dtype = np.dtype(made.of[0])
    except TypeError:
        return None
    if order == ">":
        return dtype.newbyteorder(">")
    return dtype


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, int) and each >= 0 for each in value)
