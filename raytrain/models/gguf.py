"""A .gguf file as a model that can be trained: converted once to safetensors, and kept as an artifact."""

from __future__ import annotations

import io
import json
import os
import struct
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from raytrain.errors import ConfigError, IntegrityError, PlatformError
from raytrain.models.model_files import cached_sha256, first_line, verified_manifest
from raytrain.models.quiet import quiet_saving
from raytrain.storage.artifact import Artifact, ArtifactWriter, open_artifact
from raytrain.storage.location import Location
from raytrain.storage.manifest import MANIFEST_NAME, digest_of
from raytrain.storage.provenance import collect_provenance

_CONVERTER_VERSION = 1
"""Raise it when the conversion writes something else from the same file."""


def convert_gguf(file: Path, cache: Location) -> Artifact:
    """The artifact of kind `base_model` that holds `file` in float32 safetensors with its tokenizer.

    It stands below `cache`, keyed by the file's SHA-256 and the converter's version, and is made where it is
    missing (about 20 s for 135M parameters). Raises IntegrityError where the file is no whole GGUF,
    ConfigError where this installation cannot read it.
    """
    _check_header(file)
    sha256 = cached_sha256(file)
    key = digest_of({"gguf": sha256, "converter": _CONVERTER_VERSION}).removeprefix("sha256:")[:16]
    place = cache / "base_models" / key
    if (place / MANIFEST_NAME).exists():
        artifact = open_artifact(place, kind="base_model", verify=False)
        verified_manifest(artifact.path)
        return artifact
    with ArtifactWriter(place, kind="base_model", parents={"gguf": f"sha256:{sha256}"}) as writer:
        licence = _write_converted(file, writer.path)
        provenance = collect_provenance(source=file.name, converter=_CONVERTER_VERSION, licence=licence)
        artifact = writer.commit(provenance, replace=True)
    # Its bytes were hashed a moment ago: remember them, so that the next start reads none of them.
    verified_manifest(artifact.path)
    return artifact


def _check_header(file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise _corrupt(file, "it does not start with the letters GGUF and a header")
    version, num_tensors, num_keys = struct.unpack("<IQQ", head[4:])
    if version not in (2, 3) or num_tensors > 1 << 20 or num_keys > 1 << 20:
        raise _corrupt(
            file, f"its header states version {version}, {num_tensors} tensors and {num_keys} keys"
        )


def _write_converted(file: Path, folder: Path) -> str | None:
    """Write model and tokenizer below `folder`; returns the licence that the file states."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    licence = _read_licence(file)
    # Its progress bar cannot be switched off; it writes to sys.stderr.
    with quiet_saving(), redirect_stderr(io.StringIO()):
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                str(file.parent), gguf_file=file.name, local_files_only=True
            )
        except Exception as error:
            # Its readers index into the file, and let anything out where the bytes do not fit.
            raise _explain_failure(file, error) from error
        settings = model.config.to_dict()
        for name in ("quantization_config", "_model_name_or_path", "_name_or_path"):
            settings.pop(name, None)
        # A second model without weights: the loaded one carries the quantizer, which refuses to be saved.
        with torch.device("meta"):
            clean = type(model)(type(model.config).from_dict(settings))
        clean.generation_config = model.generation_config
        clean.save_pretrained(folder, state_dict=model.state_dict())
        tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        _drop_keys(folder / name, "transformers_version", "_name_or_path")
    _drop_keys(folder / "tokenizer_config.json", "name_or_path", "is_local", "local_files_only")
    return licence


def _read_licence(file: Path) -> str | None:
    import gguf

    try:
        reader = gguf.GGUFReader(os.fspath(file))
    except Exception as error:
        raise _explain_failure(file, error) from error
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors), default=0)
    if end == 0 or end > file.stat().st_size:
        raise _corrupt(file, f"its tensors reach to byte {end}, the file ends at {file.stat().st_size}")
    field = reader.get_field("general.license")
    return str(field.contents()) if field is not None else None


def _drop_keys(file: Path, *names: str) -> None:
    """The same file must give the same digest whichever release of transformers converts it, and where."""
    if not file.is_file():
        return
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name in names:
        content.pop(name, None)
    file.write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _explain_failure(file: Path, error: Exception) -> PlatformError:
    if "supported" in str(error) and isinstance(error, ValueError):
        return ConfigError(
            f"{file} cannot be converted",
            why=first_line(error),
            fix="take the model in safetensors, or a .gguf of an architecture that transformers reads",
        )
    if isinstance(error, ImportError):
        return ConfigError(
            f"{file} cannot be converted: a package is missing or broken",
            why=first_line(error),
            fix="install raytrain's packages again, as constraints.txt names them; the file is not at fault",
        )
    return _corrupt(file, f"{type(error).__name__}: {first_line(error)}")


def _corrupt(file: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{file} is not a whole GGUF file",
        why=why,
        fix="fetch or copy the file again and compare its SHA-256",
    )
