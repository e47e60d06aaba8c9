"""Our messages as Flower records and back: the only place that knows both.

Why a live array: Flower's ``Array`` holds serialised bytes, which costs a copy each way even inside one
process. :class:`LiveArray` holds the array itself and serialises only when Flower asks for the bytes, that
is, when a message really leaves the process.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedcad.shared.canonical import hash_of_array, hash_of_hashes
from fedcad.shared.errors import ProtocolError
from fedcad.shared.layout import LARGEST_VECTOR
from fedcad.shared.messages import (
    Header,
    Refusal,
    RoundPlan,
    SiteInfo,
    Update,
    Vectors,
    decode,
    encode,
)

Arrays = Mapping[str, NDArray[Any]]
Record = TypeVar("Record", ArrayRecord, ConfigRecord)
LARGEST_STATISTICS = 2**26
MOST_ARRAYS = 1024
"""Most arrays in one record: members of an ensemble, one for each site."""
MOST_TEXTS = 16
"""Most texts in one message."""
_LONGEST_NAME = 100
_MOST_AXES = 8


class LiveArray(Array):
    """A Flower array that keeps its ndarray and serialises (``np.save``, no pickle) only on demand."""

    def __init__(self, values: NDArray[Any]) -> None:
        """Hold an array without copying it."""
        self.__dict__.update(
            dtype=str(values.dtype), shape=tuple(values.shape), stype="numpy.ndarray", values=values
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The serialised bytes."""
        return Array(self.values).data

    def numpy(self) -> NDArray[Any]:
        """Return the array itself."""
        values: NDArray[Any] = self.__dict__["values"]
        return values

    @property
    def values(self) -> NDArray[Any]:
        """The array itself."""
        return self.numpy()

    @cached_property
    def sha256(self) -> str:
        """Hash of a read-only array, computed once: one broadcast reaches many sites of a simulation.

        Raises:
            ValueError: The array could still change.
        """
        if self.values.flags.writeable:
            raise ValueError("only the hash of a read-only array can be remembered")
        return hash_of_array(self.values)


def array_record(arrays: Arrays) -> ArrayRecord:
    """Put named arrays into a record without copying them."""
    record = ArrayRecord()
    for name, values in arrays.items():
        record[name] = LiveArray(values)
    return record


def serialised_record(arrays: Arrays) -> ArrayRecord:
    """Serialise named arrays once, as what travels between machines.

    Why not :func:`array_record`: Flower sends the name of an array's class along, and the other side knows
    only its own; and a live array would be serialised again for every site.
    """
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


def put_texts(texts: Mapping[str, str]) -> RecordDict:
    """Put named texts into the content of a message."""
    return RecordDict({name: _text(text) for name, text in texts.items()})


def read_texts(content: RecordDict) -> dict[str, str]:
    """Read all texts of a message; the readers of each check what it says.

    Raises:
        ProtocolError: There are too many, a name is too long, or one is no text.
    """
    records = records_of(content, ConfigRecord)
    if len(records) > MOST_TEXTS or not all(_is_name(name) for name in records):
        raise ProtocolError(
            f"a message has at most {MOST_TEXTS} texts, with ASCII names of at most {_LONGEST_NAME}"
        )
    texts = {name: record.get("json") for name, record in records.items()}
    wrong = [name for name, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise ProtocolError(f"the record {wrong[0]!r} of the message holds no text")
    return {name: str(text) for name, text in texts.items()}


def records_of(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """Return the records of one kind, by name.

    Why not ``content.array_records``: Flower keeps that view on the content, which makes a cycle, and every
    update of many megabytes would stay in memory until Python's cycle collector happens to look.
    """
    return {str(name): record for name, record in content.items() if isinstance(record, kind)}


def plan_content(plan: RoundPlan, vectors: ArrayRecord) -> RecordDict:
    """Put a plan and its broadcast into the content of a message."""
    return RecordDict({"plan": _text(encode(plan)), "vectors": vectors})


def read_plan(content: RecordDict) -> tuple[RoundPlan, Vectors, str]:
    """Read a plan, its broadcast, and the broadcast's hash as computed from what arrived.

    Raises:
        ProtocolError: A part is missing, of a wrong type, or too large.
    """
    plan = decode(RoundPlan, _read_text(content, "plan"))
    vectors = _read_arrays(content, "vectors", np.float32)
    record = records_of(content, ArrayRecord)["vectors"]
    hashes = {name: (vector, _hash(record[name], vector)) for name, vector in vectors.items()}
    return plan, vectors, hash_of_hashes(hashes)


def _hash(array: Array, vector: NDArray[Any]) -> str:
    return array.sha256 if isinstance(array, LiveArray) else hash_of_array(vector)


def answer_content(answer: Update | Refusal | SiteInfo) -> RecordDict:
    """Put a site's answer into the content of a reply."""
    if not isinstance(answer, Update):
        return RecordDict({type(answer).__name__.lower(): _text(encode(answer))})
    return RecordDict(
        {
            "header": _text(encode(answer.header)),
            "vectors": array_record(answer.vectors),
            "statistics": array_record(answer.statistics),
        }
    )


def read_answer(content: RecordDict) -> Update | Refusal:
    """Read a site's answer to a plan; types and sizes only, the rounds check the rest.

    Raises:
        ProtocolError: A part is missing, of a wrong type, or too large.
    """
    if "refusal" in content:
        return decode(Refusal, _read_text(content, "refusal"))
    header = decode(Header, _read_text(content, "header"))
    vectors = _read_arrays(content, "vectors", np.float32)
    return Update(header, vectors, _read_arrays(content, "statistics", np.int64))


def read_site_info(content: RecordDict) -> SiteInfo:
    """Read a site's answer to the question whether it is ready.

    Raises:
        ProtocolError: It is not one.
    """
    return decode(SiteInfo, _read_text(content, "siteinfo"))


def _text(text: str) -> ConfigRecord:
    return ConfigRecord({"json": text})


def _read_text(content: RecordDict, name: str) -> object:
    record = records_of(content, ConfigRecord).get(name)
    if record is None:
        raise _missing(content, name)
    return record.get("json")


def _missing(content: RecordDict, name: str) -> ProtocolError:
    found = [str(key)[:_LONGEST_NAME] for key in sorted(content)[:10]]
    return ProtocolError(f"the message has no record {name!r} of the right kind; it has {found}")


def _read_arrays(content: RecordDict, name: str, dtype: type[Any]) -> dict[str, NDArray[Any]]:
    record = records_of(content, ArrayRecord).get(name)
    if record is None:
        raise _missing(content, name)
    if len(record) > MOST_ARRAYS or not all(_is_name(str(key)) for key in record):
        raise ProtocolError(
            f"{name}: more than {MOST_ARRAYS} arrays, or names that are not ASCII of at most {_LONGEST_NAME}"
        )
    return {str(key): _read_array(str(key), array, dtype) for key, array in record.items()}


def _is_name(name: str) -> bool:
    """Whether a name is short and can be hashed, which half of a surrogate pair cannot."""
    return len(name) <= _LONGEST_NAME and name.isascii()


def _read_array(name: str, array: Array, dtype: type[Any]) -> NDArray[Any]:
    """Check what the array says of itself before its bytes are expanded, then what they really are."""
    limit = LARGEST_VECTOR if dtype is np.float32 else LARGEST_STATISTICS
    is_shape = len(array.shape) <= _MOST_AXES and all(type(each) is int and each >= 0 for each in array.shape)
    size = math.prod(array.shape) if is_shape else -1
    sent = np.float16 if dtype is np.float32 and array.dtype == "float16" else dtype
    if array.stype != "numpy.ndarray" or array.dtype != np.dtype(sent).name or not 0 <= size <= limit:
        described = json.dumps([array.stype, array.dtype, list(array.shape)])[:200]
        raise ProtocolError(
            f"{name}: got {described}; expected {np.dtype(dtype).name} of at most {limit} values"
        )
    values = array.values if isinstance(array, LiveArray) else _expand(name, array, sent)
    if values.dtype != sent or values.shape != tuple(array.shape):
        raise ProtocolError(f"{name}: the array's bytes are not what its description says")
    return values.astype(dtype, copy=False)


def _expand(name: str, array: Array, dtype: type[Any]) -> NDArray[Any]:
    """Return a read-only view of an array's bytes.

    Why not np.load: hostile bytes could be an archive of other files, say that they hold more than memory
    does, or carry text that Python would parse. There is one right header, which is made here and compared.
    """
    header = BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(array.shape)}
    try:
        npy.write_array_header_1_0(header, description)
        expected, data = header.getvalue(), array.data
        if not data.startswith(expected):
            raise ProtocolError(f"{name}: the array's bytes are not what its description says")
        return np.frombuffer(data, dtype=dtype, offset=len(expected)).reshape(array.shape)
    except ValueError as error:
        raise ProtocolError(f"{name}: the array's bytes are too few, too many or not an array") from error
