"""Formats by themselves: what is written, what a model cannot have, and faults that are found without a process."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from trained import train_tiny

from raytrain.errors import ConfigError, IntegrityError
from raytrain.release.bundle.description import describe
from raytrain.release.bundle.formats.format import find_formats, write_format
from raytrain.release.bundle.formats.material import Material
from raytrain.release.bundle.formats.torch_export import pickled_parts
from raytrain.release.bundle.formats.traced import Logits
from raytrain.release.bundle.parity.check import FormatResult, judge
from raytrain.release.bundle.parity.compare import differences, first_other_token, lead
from raytrain.release.bundle.parity.facts import description_faults, folder_faults, weight_faults
from raytrain.release.bundle.parity.fresh import FreshAnswer
from raytrain.release.bundle.parity.prompts import Prompt, packaged_prompts, read_prompts
from raytrain.release.bundle.parity.reference import Answer, answers_of
from raytrain.release.bundle.parity.section import ExportCheckSection, LimitsSection, settings_from
from raytrain.release.bundle.subject import Subject, find_subject
from raytrain.storage.artifact import ArtifactWriter, open_artifact
from raytrain.storage.location import Location


def silent(text: str) -> None:
    """Told nobody."""


def subject_of(folder: Path, **options: Any) -> Subject:
    return find_subject(str(folder), Location(str(folder.parent)), **options)


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    return train_tiny(tiny_llama, folder, target_modules=["q_proj", "down_proj"])


@pytest.fixture
def material(adapter: Path) -> Material:
    subject = subject_of(adapter)
    return Material(subject, subject.model.load())


@pytest.fixture
def written(material: Material, tmp_path: Path) -> Path:
    """adapter and merged, as they stand in a bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    settings: Any = material.loaded.model.generation_config
    settings.update(do_sample=True, temperature=0.3, top_k=7)  # as the base model's authors may have them
    for form in find_formats(["adapter,merged"], material.subject):
        write_format(form, material, folder)
    return folder


def test_formats_are_found_once_and_in_one_order(adapter: Path) -> None:
    subject = subject_of(adapter)
    assert [one.name for one in find_formats([], subject)] == ["adapter"]
    named = find_formats(["torch_export, merged", "adapter", "merged"], subject)
    assert [one.name for one in named] == ["adapter", "merged", "torch_export"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gguf", "convert_hf_to_gguf.py"),
        ("torchscript", "torch_export"),
        ("mergd", "did you mean `merged`"),
        ("adapter,", "is empty"),
    ],
)
def test_what_is_not_built_says_so(name: str, told: str, adapter: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        find_formats([name], subject_of(adapter))


def test_a_whole_model_has_no_adapter_and_onnx_no_bfloat16(tiny_llama: Path, tmp_path: Path) -> None:
    subject = subject_of(train_tiny(tiny_llama, tmp_path / "whole", method="full"))
    assert [one.name for one in find_formats([], subject)] == ["merged"]
    with pytest.raises(ConfigError, match="cannot be written as adapter"):
        find_formats(["adapter"], subject)
    halved = subject_of(tmp_path / "whole", dtype="bfloat16")
    with pytest.raises(ConfigError, match="onnx in bfloat16"):
        find_formats(["onnx"], halved)


def test_the_adapter_is_the_very_bytes_and_merged_is_loaded_by_transformers(
    written: Path, adapter: Path, tiny_llama: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights = "adapter_model.safetensors"
    assert (written / "adapter" / weights).read_bytes() == (adapter / weights).read_bytes()
    config, trained = (
        json.loads((one / "adapter_config.json").read_text()) for one in (written / "adapter", adapter)
    )
    assert config == {**trained, "base_model_name_or_path": f"./{tiny_llama.name}"}
    merged = AutoModelForCausalLM.from_pretrained(written / "merged").eval()
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, str(written / "adapter")).eval()(ids).logits
        found = merged(ids).logits
    assert (found - adapted).abs().max() < 1e-5
    assert (found - before).abs().max() > 1e-3, "the adapter does something"
    assert merged.generation_config.eos_token_id == [2], "ends as the tokenizer and the base say"
    for folder in ("adapter", "merged"):
        found = json.loads((written / folder / "generation_config.json").read_text())
        assert (found["eos_token_id"], found["temperature"], found["top_k"]) == ([2], 0.3, 7), folder
    assert not any("lora" in name for name in load_file(written / "merged" / "model.safetensors"))


def test_a_head_of_its_own_is_merged_and_no_longer_tied(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = train_tiny(
        tiny_llama, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    subject = subject_of(folder)
    loaded = subject.model.load()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = loaded.model(ids).logits
        (merged_form,) = find_formats(["merged"], subject)
        write_format(merged_form, Material(subject, loaded), tmp_path)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(ids).logits
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.slow
def test_a_traced_graph_takes_any_shape_and_names_no_file_of_ours(material: Material, tmp_path: Path) -> None:
    (form,) = find_formats(["torch_export"], material.subject)
    write_format(form, material, tmp_path)
    file = tmp_path / "torch_export" / "model.pt2"
    assert pickled_parts(file) == []
    with zipfile.ZipFile(file) as archive:
        assert not any(b"site-packages" in archive.read(name) for name in archive.namelist())
    graph = torch.export.load(file).module()
    model = Logits(material.merged)
    for rows, width in ((1, 1), (1, 9), (3, 33)):
        ids = torch.randint(3, 300, (rows, width))
        mask = torch.ones_like(ids)
        mask[0, : width // 2] = 0
        with torch.no_grad():
            apart = (graph(ids, mask) - model(ids, mask))[mask.bool()]
        assert apart.abs().max() < 1e-5


def test_a_pickle_in_an_archive_is_found(tmp_path: Path) -> None:
    pickled = io.BytesIO()
    torch.save((torch.ones(2),), pickled)
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("m/data/weights/weight_0", b"\x80\x02 raw bytes of a tensor")
        archive.writestr("m/data/sample_inputs/model.pt", pickled.getvalue())
        archive.writestr("m/data/weights/model_weights_config.json", '{"a": {"use_pickle": true}}')
    found = pickled_parts(tmp_path / "x.pt2")
    assert found == ["m/data/sample_inputs/model.pt", "m/data/weights/model_weights_config.json"]


class Choosy(torch.nn.Module):
    """Looks at its numbers to decide what to do, which no graph can hold."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Any, attention_mask: Any, **options: Any) -> Any:
        if input_ids.sum() > 50:
            input_ids = input_ids + 1
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **options)


@pytest.mark.slow
def test_a_model_that_cannot_be_traced_is_told_by_format(material: Material, tmp_path: Path) -> None:
    material.merged = Choosy(material.merged)  # type: ignore[assignment]
    (form,) = find_formats(["torch_export"], material.subject)
    with pytest.raises(ConfigError, match="cannot be written as torch_export") as caught:
        write_format(form, material, tmp_path)
    assert "adapter,merged" in caught.value.fix


def test_each_untruth_of_a_description_is_named(material: Material) -> None:
    stated = describe(material.subject, ("adapter",))
    assert description_faults(stated, stated) == []
    assert stated.adapter is not None
    untrue = replace(
        stated,
        adapter=replace(stated.adapter, rank=8, target_modules=["v_proj"]),
        base_model=replace(stated.base_model, digest="sha256:other"),
        tokenizer="sha256:other",
    )
    told = "\n".join(description_faults(untrue, stated))
    for name in ("adapter.rank 8", "adapter.target_modules", "base_model.digest", "tokenizer"):
        assert f"bundle.json says {name}" in told


def test_one_changed_weight_is_named_with_its_place(written: Path, material: Material) -> None:
    assert weight_faults(written / "merged", material.merged) == []
    file = written / "merged" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][5, 7] += 0.01
    removed = "model.norm.weight"
    del tensors[removed]
    save_file(tensors, file, metadata={"format": "pt"})
    faults = weight_faults(written / "merged", material.merged)
    assert faults == [f"{name} differs from base and adapter by 0.01 at [5, 7]", f"{removed} is missing"]


def test_an_adapter_or_a_tokenizer_that_is_another_is_told(written: Path, material: Material) -> None:
    stated = describe(material.subject, ("adapter",))
    folder = written / "adapter"
    assert folder_faults(folder, "adapter", material.subject, stated) == []
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 4}))
    weights = bytearray((folder / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    told = "\n".join(folder_faults(folder, "adapter", material.subject, stated))
    for part in ("adapter_model.safetensors is not", "adapter_config.json is not", "rank is 4"):
        assert part in told
    assert "its tokenizer is another" in told and "chat template is another" in told
    (folder / "tokenizer.json").write_text("{")
    assert "cannot be loaded" in folder_faults(folder, "adapter", material.subject, stated)[0]


def test_differences_name_the_worst_position() -> None:
    expected = np.zeros((70, 5), dtype=np.float32)
    found = expected.copy()
    found[66, 2] = 3.0
    apart = differences(expected, found)
    assert (apart.largest.value, apart.largest.position) == (3.0, 66)
    assert (round(apart.mean.value, 6), apart.mean.position, apart.kl.position) == (0.6, 66, 66)
    # By hand: p is uniform over 5; KL = log((4 + e^3) / 5) - 3 / 5.
    assert apart.kl.value == pytest.approx(np.log((4 + np.e**3) / 5) - 0.6)
    found[3, 0] = np.nan
    assert differences(expected, found).largest.value == np.inf
    assert differences(expected, found).largest.position == 3


@pytest.mark.parametrize(
    ("found", "place"), [([1, 2, 3], None), ([1, 9, 3], 1), ([1, 2], 2), ([1, 2, 3, 4], 3), ([], 0)]
)
def test_where_answers_part(found: list[int], place: int | None) -> None:
    assert first_other_token([1, 2, 3], found) == place


def test_a_lead_is_over_the_next_best() -> None:
    assert lead(np.array([1.0, 5.0, 4.5, -3.0], dtype=np.float32)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("leads_by", "faults", "near_ties"), [(0.005, 0, 1), (0.5, 1, 0)], ids=["near tie", "another token"]
)
def test_answers_may_part_where_two_tokens_are_as_likely(
    leads_by: float, faults: int, near_ties: int, tmp_path: Path
) -> None:
    logits = np.zeros((4, 9), dtype=np.float32)
    logits[2, 5], logits[2, 6] = 1.0 + leads_by, 1.0
    np.save(tmp_path / "x.npy", logits)
    answer = Answer(Prompt("one", "a"), [1, 2], [3, 5], 64, tmp_path / "x.npy")
    result = FormatResult()
    judge(answer, FreshAnswer([1, 2], [3, 6], logits), LimitsSection(), result)
    assert (len(result.faults), result.num_near_ties) == (faults, near_ties)
    assert (result.num_matched, result.num_tokens, result.max_difference) == (1, 2, 0.0)


def test_other_tokens_shapes_and_logits_are_faults_with_prompt_and_position(tmp_path: Path) -> None:
    logits = np.zeros((3, 9), dtype=np.float32)
    np.save(tmp_path / "x.npy", logits)
    answer = Answer(Prompt("one", "a"), [1, 2], [3], 64, tmp_path / "x.npy")
    moved = logits.copy()
    moved[1, 4] = 0.5
    for fresh, told in (
        (FreshAnswer([1, 7], [], None), "first at position 1"),
        (FreshAnswer([1, 2], [3], logits[:, :8]), "shape"),
        (FreshAnswer([1, 2], [3], moved), "position 1: the largest difference of a logit is 0.5"),
        (FreshAnswer([1, 2], [3], logits * np.nan), "position 0"),
    ):
        result = FormatResult()
        judge(answer, fresh, LimitsSection(), result)
        assert not result.passed and "prompt `one`" in result.faults[0] and told in result.faults[0]


def test_packaged_prompts_come_in_many_scripts_and_lengths() -> None:
    texts = {one.id: str(one.asked) for one in packaged_prompts(has_template=True)}
    assert sum(not text.isascii() for text in texts.values()) >= 4
    assert min(map(len, texts.values())) < 5 and max(map(len, texts.values())) > 1000
    assert all(isinstance(one.asked, str) for one in packaged_prompts(has_template=False))


def test_prompts_of_a_person_are_read_or_named(tmp_path: Path) -> None:
    lines = tmp_path / "asked.txt"
    lines.write_text("first\n\nsecond\n")
    assert [one.asked for one in read_prompts(lines, has_template=False)] == ["first", "second"]
    rows = tmp_path / "asked.jsonl"
    rows.write_text('{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}]}\n')
    assert [one.id for one in read_prompts(rows, has_template=True)] == ["asked.jsonl:1", "asked.jsonl:2"]
    with pytest.raises(ConfigError, match="this is no prompt") as caught:
        read_prompts(rows, has_template=False)
    assert "asked.jsonl:2" in caught.value.what
    for content in ("", "{", '{"text": "a"}', '{"messages": "a"}', "[1]"):
        rows.write_text(content)
        with pytest.raises(ConfigError):
            read_prompts(rows, has_template=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "nowhere.txt", has_template=True)


def test_an_adapter_of_no_numbers_is_refused_with_prompt_and_position(
    material: Material, tmp_path: Path
) -> None:
    model: Any = material.loaded.model
    with torch.no_grad():
        model.get_output_embeddings().weight[7, 0] = float("nan")
    prompts, section = [Prompt("first", "The answer is five.")], ExportCheckSection()
    with pytest.raises(IntegrityError, match="no number") as caught:
        answers_of(material.loaded, prompts, section, tmp_path, silent)
    assert "prompt `first`, position" in caught.value.why


def test_a_base_that_is_another_now_is_refused_with_both_digests(tiny_llama: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama, base)
    folder = train_tiny(base, tmp_path / "adapter", target_modules=["q_proj"])
    before = open_artifact(Location(str(folder))).manifest.parents["base_model"]
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError) as caught:
        subject_of(folder)
    assert before in caught.value.why and caught.value.why.count("sha256:") == 2


def test_a_damaged_adapter_is_refused_with_its_file(adapter: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(adapter, damaged)
    file = damaged / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match="adapter_model"):
        subject_of(damaged)


def test_a_model_of_another_task_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = train_tiny(tiny_llama, tmp_path / "trained", target_modules=["q_proj"])
    record = json.loads((folder / "training.json").read_text())
    record["model"]["task"] = "token_classification"
    with ArtifactWriter(Location(str(tmp_path / "classifier")), kind="adapter") as writer:
        shutil.copytree(folder, writer.path, dirs_exist_ok=True)
        (writer.path / "training.json").write_text(json.dumps(record))
        (writer.path / "manifest.json").unlink()
        writer.commit()
    with pytest.raises(ConfigError, match="does not answer in text") as caught:
        subject_of(tmp_path / "classifier")
    assert "token_classification" in caught.value.why


def test_limits_are_set_on_the_command_line() -> None:
    settings = settings_from(["export_check.float32.max_kl=1e-9", "export_check.max_new_tokens=3"])
    assert settings.export_check.limits("float32").max_kl == 1e-9
    assert settings.export_check.limits("float32").max_difference == 0.02
    assert settings.export_check.max_new_tokens == 3
    for wrong in ("export_check.float32.max_kl=-1", "export_check.float8.max_kl=1", "export.max_kl=1"):
        with pytest.raises(ConfigError):
            settings_from([wrong])
