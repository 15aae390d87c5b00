"""ONNX, by PyTorch's own exporter; its weights lie beside the graph, in a file of raw bytes."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError
from raytrain.release.bundle.formats.format import Format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.subject import Subject

GRAPH_FILE = "model.onnx"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check(subject: Subject) -> None:
    import importlib.util

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            "this model cannot be written as onnx here",
            why=f"{missing[0]} is not installed",
            fix="pip install 'raytrain[onnx]', or leave onnx out",
        )
    if subject.model.section.dtype == "bfloat16":
        raise ConfigError(
            "this model cannot be written as onnx in bfloat16",
            why="onnxruntime computes no bfloat16 on a CPU: nobody could check it here",
            fix="add --dtype float32, or leave onnx out",
        )


def write(material: Material, folder: Path) -> None:
    import torch

    from raytrain.release.bundle.formats.traced import INPUTS, OUTPUT, trace

    with _quiet(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch warns of what PyTorch does
        written: Any = torch.onnx.export(
            trace(material.merged),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            verbose=False,
        )
        _forget_origins(written.model)
        written.save(folder / GRAPH_FILE, external_data=True)


def _forget_origins(model: Any) -> None:
    """Notes of the exporter on the code that each node came from: paths of this machine, and most of the file."""
    from onnx_ir.traversal import RecursiveGraphIterator

    for node in RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


FORMAT = Format("onnx", check, write)
