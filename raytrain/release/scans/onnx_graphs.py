"""ONNX graphs: their texts, the tensors that they name beside them, and whether every byte is in a field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raytrain.release.scans.raw_bytes import UnreadBytesError, is_zero, texts_of


def _onnx_model(path: Path) -> Any:
    import onnx

    model = onnx.load_model(str(path), load_external_data=False)
    if not model.ir_version or not model.graph.node:
        raise ValueError("it has no graph")
    return model


def onnx_texts(path: Path) -> Iterator[str]:
    """Raises UnreadBytesError where a byte is in no field that is known, beside whatever a damaged graph raises."""
    model = _onnx_model(path)
    # A parser keeps the last of a field that stands twice, and says nothing of fields that it does not know; what it
    # would write anew from the known ones has neither.
    model.DiscardUnknownFields()
    if model.SerializeToString(deterministic=True) != path.read_bytes():
        raise UnreadBytesError(
            "it holds fields that onnx does not know, or one twice; save it anew with onnx.save"
        )
    for one in model.metadata_props:
        yield f"{one.key}: {one.value}"
    seen: set[str] = set()
    for text in _proto_strings(model):
        if text not in seen:
            seen.add(text)
            yield text


def _proto_strings(message: Any) -> Iterator[str]:
    """Every text in a protobuf message, however deep; a tensor's raw bytes are no text."""
    for field, value in message.ListFields():
        many = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_MESSAGE:
            for one in many:
                yield from _proto_strings(one)
        elif field.type in (field.TYPE_STRING, field.TYPE_BYTES) and field.name != "raw_data":
            yield from texts_of(many)


def onnx_external_data(path: Path) -> dict[str, list[tuple[int, int | None]]]:
    """Files beside an ONNX graph that hold its tensors: by location, each tensor's offset and number of bytes.

    Raises whatever a content that is no ONNX graph makes it raise.
    """
    found: dict[str, list[tuple[int, int | None]]] = {}
    for tensor in _tensors(_onnx_model(path)):
        told = {one.key: one.value for one in tensor.external_data}
        length = told.get("length")
        place = (int(told.get("offset", 0)), None if length is None else int(length))
        found.setdefault(told["location"], []).append(place)
    return found


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a graph, however deep, that says where its bytes are."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for one in [value] if hasattr(value, "ListFields") else value:
            if one.DESCRIPTOR.name == "TensorProto" and one.external_data:
                yield one
            else:
                yield from _tensors(one)


def gap_in(path: Path, ranges: Iterable[tuple[int, int | None]]) -> str | None:
    """What is wrong with a file of raw tensors: bytes that belong to none and are not zero, or a tensor beyond it."""
    size = path.stat().st_size
    reached = 0
    with path.open("rb") as stream:
        for offset, length in sorted((start, size - start if num is None else num) for start, num in ranges):
            if offset < 0 or length < 0 or offset + length > size:
                return f"a tensor lies at {offset} to {offset + length} of {size} bytes"
            if not is_zero(stream, reached, offset):
                return f"bytes {reached} to {offset} belong to no tensor"
            reached = max(reached, offset + length)
        return None if is_zero(stream, reached, size) else f"bytes {reached} to {size} belong to no tensor"
