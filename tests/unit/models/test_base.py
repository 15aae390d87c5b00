from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from tiny_gguf import write_tiny_gguf

from raytrain.errors import ConfigError, IntegrityError
from raytrain.models.base import ResolvedModel, load_base_model, load_tokenizer, resolve_base_model
from raytrain.models.model_files import cached_sha256
from raytrain.models.section import AdapterSection, ModelSection
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location


@pytest.fixture
def cache(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "cache"))


@pytest.fixture
def own_llama(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "own"))


def resolve(reference: str | Path, cache: Location) -> ResolvedModel:
    return resolve_base_model(ModelSection(base_model=str(reference)), cache)


def load(reference: str | Path, cache: Location, **settings: str) -> torch.nn.Module:
    section = ModelSection.model_validate({"base_model": str(reference), **settings})
    return load_base_model(resolve_base_model(section, cache), section)


def test_a_local_folder_is_taken_as_it_is(tiny_llama: Path, cache: Location) -> None:
    resolved = resolve(tiny_llama, cache)
    assert resolved.path == str(tiny_llama)
    assert resolved.digest.startswith("sha256:")
    assert pickle.loads(pickle.dumps(resolved)) == resolved


def test_a_relative_path_becomes_absolute(
    tiny_llama: Path, cache: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    resolved = resolve(tiny_llama.name, cache)
    assert (resolved.reference, resolved.path) == (tiny_llama.name, str(tiny_llama))


def test_the_digest_follows_the_files_and_not_their_place(
    own_llama: Path, tiny_llama: Path, cache: Location
) -> None:
    assert resolve(own_llama, cache).digest == resolve(tiny_llama, cache).digest
    (own_llama / "README.md").write_text("---\nlicense: mit\n---\n")
    assert resolve(own_llama, cache).digest == resolve(tiny_llama, cache).digest
    assert resolve(own_llama, cache).licence == "mit"
    weights = own_llama / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert resolve(own_llama, cache).digest != resolve(tiny_llama, cache).digest


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = cached_sha256(file)
    monkeypatch.setattr("raytrain.models.model_files.file_sha256", lambda path: "read again")
    assert cached_sha256(file) == first
    file.write_bytes(b"two")
    assert cached_sha256(file) == "read again"


@pytest.mark.parametrize(
    ("reference", "tried", "remedy"),
    [
        ("./nowhere/model", "tried the path", "relative paths"),
        ("nowhere.gguf", "tried the path", "relative paths"),
        (
            "owner/no-such-model",
            "tried the hub id `owner/no-such-model`: HF_HUB_OFFLINE",
            "unset HF_HUB_OFFLINE",
        ),
        ("package://no_such_package/model.gguf", "`no_such_package`: it is not installed", "no-such-package"),
        ("package://gguf/model.gguf", "no such file", "models that it ships"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_what_was_tried(
    cache: Location, monkeypatch: pytest.MonkeyPatch, reference: str, tried: str, remedy: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as caught:
        resolve(reference, cache)
    assert f"no base model `{reference}`" in caught.value.what
    assert tried in caught.value.why
    assert remedy in caught.value.fix


def test_folders_that_hold_no_loadable_model_are_refused(tmp_path: Path, cache: Location) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve(folder, cache)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="it is an adapter"):
        resolve(folder, cache)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match=r"only pickled weights are there: pytorch_model\.bin"):
        resolve(folder, cache)
    with pytest.raises(ConfigError, match=r"not a \.gguf"):
        resolve(folder / "config.json", cache)


def test_a_missing_shard_is_found_before_anything_is_loaded(own_llama: Path, cache: Location) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (own_llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match="model-00001-of-00002"):
        resolve(own_llama, cache)


@pytest.mark.parametrize("damage", ["truncated", "header"])
def test_a_damaged_safetensors_file_is_named(own_llama: Path, cache: Location, damage: str) -> None:
    file = own_llama / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-64] if damage == "truncated" else b"\xff" * 64 + content[64:])
    with pytest.raises(IntegrityError) as caught:
        load(own_llama, cache)
    assert str(file) in caught.value.what
    assert caught.value.exit_code == 5


def test_weights_that_do_not_fit_the_config_are_refused(own_llama: Path, cache: Location) -> None:
    config = json.loads((own_llama / "config.json").read_text())
    (own_llama / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(IntegrityError, match=r"has no tensor model\.layers\.2"):
        load(own_llama, cache)
    (own_llama / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(IntegrityError, match="do not fit"):
        load(own_llama, cache)


def test_an_unknown_architecture_is_a_config_error(own_llama: Path, cache: Location) -> None:
    (own_llama / "config.json").write_text('{"model_type": "nothing_known"}')
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(own_llama, cache)


def test_dtype_and_attention_are_set(tiny_llama: Path, cache: Location) -> None:
    model = load(tiny_llama, cache, dtype="bfloat16", attention="eager")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert load(tiny_llama, cache).config._attn_implementation == "sdpa"


def test_an_attention_backend_that_is_not_there_is_refused(tiny_llama: Path, cache: Location) -> None:
    with pytest.raises(ConfigError, match="flash_attention_2") as caught:
        load(tiny_llama, cache, attention="flash_attention_2")
    assert "sdpa" in caught.value.fix


def test_a_model_for_training_keeps_no_cache_and_one_for_inference_does(
    tiny_llama: Path, cache: Location
) -> None:
    section = ModelSection(base_model=str(tiny_llama))
    resolved = resolve_base_model(section, cache)
    training = load_base_model(resolved, section, adapter=AdapterSection())
    inference = load_base_model(resolved, section)
    assert (training.training, training.config.use_cache) == (True, False)
    assert (inference.training, inference.config.use_cache) == (False, True)


def test_the_tokenizer_gets_a_pad_token_and_the_sections_template(
    own_llama: Path, cache: Location, tmp_path: Path
) -> None:
    settings = json.loads((own_llama / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (own_llama / "tokenizer_config.json").write_text(json.dumps(settings))
    resolved = resolve(own_llama, cache)
    assert load_tokenizer(resolved).pad_token == "<|im_end|>"
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0]['content'] }}!")
    for text in (str(template), template.read_text()):
        tokenizer = load_tokenizer(resolved, ModelSection(base_model=str(own_llama), chat_template=text))
        assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"
    for wrong, said in (("missing.jinja", "cannot be read"), ("{% for %}", "not a Jinja template")):
        with pytest.raises(ConfigError, match=said):
            load_tokenizer(resolved, ModelSection(base_model=str(own_llama), chat_template=wrong))


def test_an_artifact_is_a_base_model_by_its_own_digest(
    tiny_llama: Path, tmp_path: Path, cache: Location
) -> None:
    place = Location(str(tmp_path / "artifact"))
    with ArtifactWriter(place, kind="model") as writer:
        shutil.copytree(tiny_llama, writer.path, dirs_exist_ok=True)
        artifact = writer.commit()
    assert resolve(place.uri, cache).digest == artifact.digest
    assert resolve(f"file://{place.uri}", cache).digest == artifact.digest
    weights = artifact.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(IntegrityError, match=r"model\.safetensors is damaged"):
        resolve(place.uri, cache)


def test_a_gguf_is_converted_once(tmp_path: Path, cache: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    resolved = resolve(file, cache)
    artifact = open_artifact(Location(resolved.path), kind="base_model")
    assert (resolved.digest, resolved.licence) == (artifact.digest, "cc0-1.0")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(artifact.manifest.files)
    model = load(file, cache)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokenizer = load_tokenizer(resolved)
    ids = tokenizer("the thing", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == "the thing"
    assert model(input_ids=ids).logits.isfinite().all()

    def refuse(*_: object) -> None:
        raise AssertionError("it was converted a second time")

    monkeypatch.setattr("raytrain.models.gguf._write_converted", refuse)
    assert resolve(file, cache) == resolved


def test_converting_again_elsewhere_gives_the_same_digest(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "copy").mkdir()
    copy = shutil.copy(file, tmp_path / "copy" / "other.gguf")
    here, there = resolve(file, Location(str(tmp_path / "a"))), resolve(copy, Location(str(tmp_path / "b")))
    assert here.digest == there.digest
    assert here.path != there.path


@pytest.mark.parametrize("damage", ["truncated", "header", "text", "empty", "middle"])
def test_a_damaged_gguf_is_refused_by_name(tmp_path: Path, cache: Location, damage: str) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    content = file.read_bytes()
    file.write_bytes(
        {
            "truncated": content[:-1000],
            "header": content[:4] + b"\xff" * 20 + content[24:],
            "text": b"version https://git-lfs.github.com/spec/v1\n",
            "empty": b"",
            "middle": content[:60] + b"\xff" * 200 + content[260:],
        }[damage]
    )
    with pytest.raises(IntegrityError) as caught:
        resolve(file, cache)
    assert str(file) in caught.value.what
    assert not list(cache.path.rglob("*.safetensors"))


def test_a_broken_installation_is_no_fault_of_the_gguf(
    tmp_path: Path, cache: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def broken(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("Could not import module 'LlamaConfig'")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", broken)
    with pytest.raises(ConfigError, match="a package is missing or broken") as caught:
        resolve(write_tiny_gguf(tmp_path / "tiny.gguf"), cache)
    assert "LlamaConfig" in caught.value.why


def test_a_converted_model_that_was_damaged_is_found_at_the_next_start(
    tmp_path: Path, cache: Location
) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    weights = Path(resolve(file, cache).path) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-10] ^= 255
    weights.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="SHA-256") as caught:
        resolve(file, cache)
    assert "remove" in caught.value.fix
