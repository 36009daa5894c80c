"""What an exported file says of itself: our record in it, and a checksum that seals both.

Read without any runtime, and without running anything.
"""

import hashlib
import io
import json
import zipfile
from typing import Any
from xml.etree import ElementTree

from ..data import Preprocess
from ..errors import ConvatlasError, WeightsError, library

RECORD, SUM = "convatlas", "convatlas_sha256"  # the keys of our record, and of a checksum, in the files of others
UNSUMMED = b"0" * 64


def read_record(text: str | None, where: str) -> tuple[tuple[str, ...], Preprocess]:
    """Class names and preprocessing from the record in an exported file.  Raises WeightsError X4 if it has none."""
    try:
        record: dict[str, Any] = json.loads(text or "")
        return tuple(record["classes"]), Preprocess.from_dict(record["preprocess"])
    except (ValueError, KeyError, TypeError, ConvatlasError):
        what = f"{where} says nothing of its classes and preprocessing"
        raise WeightsError("X4", what, "export it with `convatlas export`") from None


def onnx_record(content: bytes, where: str) -> str | None:
    """Our record in an .onnx file.

    Raises WeightsError X3 if the file would have the runtime open others, C8 if it is damaged.
    """
    onnx = library("onnx", "export")
    try:
        model = onnx.ModelProto.FromString(content)
        outside = _outside(model)
        entries = {entry.key: entry.value for entry in model.metadata_props}
    except Exception as error:  # text that is none shows when it is read
        raise damaged(where, error) from error
    if outside:
        what = f"{where} keeps tensors in other files"
        raise WeightsError("X3", what, "only whole files are opened; export it again with `convatlas export`")
    if RECORD in entries:
        place = _place_of_sum(content)
        verify(onnx_sum(content), content[place : place + len(UNSUMMED)].decode(errors="replace"), where)
    return entries.get(RECORD)


def seal_onnx(model: Any, record: str) -> bytes:
    """The bytes of an ONNX model with our record and checksum, and no other metadata."""
    del model.metadata_props[:]
    model.metadata_props.add(key=RECORD, value=record)
    model.metadata_props.add(key=SUM, value=UNSUMMED.decode())
    content = model.SerializeToString()
    place = _place_of_sum(content)
    return content[:place] + onnx_sum(content).hexdigest().encode() + content[place + len(UNSUMMED) :]


def onnx_sum(content: bytes) -> "hashlib._Hash":
    """The checksum of an .onnx file, with zeros where the checksum will be."""
    place, whole = _place_of_sum(content), memoryview(content)
    found = hashlib.sha256(whole[:place])
    found.update(UNSUMMED)
    found.update(whole[place + len(UNSUMMED) :])
    return found


def _place_of_sum(content: bytes) -> int:
    entry = library("onnx", "export").StringStringEntryProto(key=SUM, value=UNSUMMED.decode())
    before = entry.SerializeToString().removesuffix(UNSUMMED)
    return content.find(before) + len(before)


def openvino_record(content: bytes, weights: bytes, where: str) -> str | None:
    """Our record in an .xml file.  Raises WeightsError C8 if the file is damaged, or its .bin another's."""
    try:
        info = ElementTree.fromstring(content).find("rt_info")
    except ElementTree.ParseError as error:
        raise damaged(where, error) from error
    entries = {} if info is None else {entry.tag: entry.get("value", "") for entry in info}
    if RECORD in entries:
        expected = entries.get(SUM, "")
        verify(openvino_sum(content.replace(expected.encode(), UNSUMMED, 1), weights), expected, where)
    return entries.get(RECORD)


def openvino_sum(content: bytes, weights: bytes) -> "hashlib._Hash":
    """The checksum of an .xml file, with zeros where the checksum will be, and its .bin."""
    return hashlib.sha256(content + weights)


def verify(found: "hashlib._Hash", expected: str, where: str) -> None:
    """Raise WeightsError C8 unless the checksum is the expected one."""
    if found.hexdigest() != expected:
        what = f"{where} has changed since it was exported"
        raise WeightsError("C8", what, "restore it, or export it again with `convatlas export`")


def _outside(message: Any) -> bool:
    """Whether a protobuf message, or one within it, is a tensor that says it is stored elsewhere."""
    if message.DESCRIPTOR.name == "TensorProto":
        return message.data_location != message.DEFAULT or len(message.external_data) > 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            many = value if hasattr(value, "add") or isinstance(value, (list, tuple)) else [value]
            if any(_outside(inner) for inner in many):
                return True
    return False


def package_record(content: bytes, where: str) -> str | None:
    """Our record in a .pt2 file, which is a ZIP archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next((name for name in archive.namelist() if name.endswith(".wrapper_metadata.json")), None)
            return json.loads(archive.read(name)).get(RECORD) if name else None
    except Exception as error:
        raise damaged(where, error) from error


def damaged(where: str, error: Exception) -> WeightsError:
    """The error for a file that its library cannot read."""
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return WeightsError("C8", f"{where} cannot be read ({why})", "export it again with `convatlas export`")
