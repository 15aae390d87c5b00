from __future__ import annotations

import importlib.util
import json
import re
import shutil
import typing
from pathlib import Path

import pytest
from guide import (
    KINDS,
    ROOT,
    Block,
    all_blocks,
    blocks_of,
    check_command,
    check_key,
    check_links,
    check_place,
    command_lines,
    inline_code,
    pages,
    tree_paths,
    write_modules,
)

from raytrain.release.gate.policy import TargetSection

pytestmark = pytest.mark.whole

MINIMAL = "model:\n  base_model: models/smollm2\ndata:\n  sources: rows.jsonl\n"
CHEAP = [
    ("config", "check"),
    ("config", "show"),
    ("config", "schema"),
    ("data", "prepare"),
    ("doctor",),
    ("runs", "list"),
    ("runs", "rebuild"),
]
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]{2,}|RUN\d?|.*…")


def by_place(block: Block) -> str:
    return str(block)


@pytest.fixture
def workplace(tmp_path: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder: jobs/ as in the project, rows.jsonl, and the guide's own mine.yaml."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text(next(iter(all_blocks("yaml"))).text)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def validate(block: Block) -> None:
    """Raises ConfigError where the block is no recipe, or no part of one."""
    from raytrain.config.document import merge, parse_document
    from raytrain.pipeline.section import read_section
    from raytrain.training.spec import spec_from_document
    from raytrain.tuning.spec import tune_recipe

    document = parse_document(block.text, str(block))
    if block.kind == "yaml part":
        document = merge(parse_document(MINIMAL, "minimal"), document)
    bases = document.values.pop("extends", [])
    for base in [bases] if isinstance(bases, str) else bases:
        assert (ROOT / base).is_file(), f"{block}: extends {base}, which is not there"
        document = merge(parse_document((ROOT / base).read_text(), base), document)
    if "search" in document.values:
        tune_recipe(document, default_name="block")
    spec_from_document(document, default_name="block")
    section = read_section(document)
    for file in filter(None, (*section.suites, section.contract)):
        assert (ROOT / file).is_file(), (
            f"{block}: {file} is not there for a recipe in the folder of this project"
        )


def test_the_guide_has_its_pages_and_every_block_says_what_it_is() -> None:
    assert len(pages()) > 5
    unknown = [f"{block}: ```{block.kind}" for block in all_blocks() if block.kind not in KINDS]
    assert unknown == [], f"a block is one of {', '.join(KINDS)}"


@pytest.mark.parametrize("block", all_blocks("yaml suite"), ids=by_place)
def test_suites_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.evaluation.suite import load_suite

    place = tmp_path / "suite.yaml"
    place.write_text(block.text)
    load_suite(place)


@pytest.mark.parametrize(
    "place", sorted((ROOT / "jobs" / "suites").glob("*.yaml")), ids=lambda place: place.stem
)
def test_shipped_suites_are_valid(place: Path) -> None:
    from raytrain.evaluation.suite import load_suite

    assert load_suite(place).suite


@pytest.mark.parametrize("block", all_blocks("yaml contract"), ids=by_place)
def test_contracts_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.evaluation.decision.contract import load_contract

    place = tmp_path / "contract.yaml"
    place.write_text(block.text)
    assert load_contract(place).suites


@pytest.mark.parametrize("block", all_blocks("yaml gate"), ids=by_place)
def test_gate_policies_are_valid(block: Block, workplace: Path) -> None:
    from raytrain.release.gate.policy import load_policy

    place = workplace / "jobs" / "gates" / "block.yaml"
    place.write_text(block.text)
    assert load_policy(place).section.targets


@pytest.mark.parametrize("block", all_blocks("yaml alerts"), ids=by_place)
def test_alerts_files_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.monitoring.alerts.section import load_alerts

    place = tmp_path / "alerts.yaml"
    place.write_text(block.text)
    found = load_alerts(place)
    assert found.webhooks or found.emails or found.watch.endpoints


@pytest.mark.parametrize(
    "place", sorted((ROOT / "jobs" / "alerts").glob("*.yaml")), ids=lambda place: place.stem
)
def test_shipped_alerts_files_are_valid(place: Path) -> None:
    from raytrain.monitoring.alerts.section import load_alerts

    assert load_alerts(place).webhooks


WATCHES = [
    Block(one.name, 1, "yaml watch", one.read_text()) for one in (ROOT / "jobs" / "watches").glob("*.yaml")
]


@pytest.mark.parametrize("block", [*all_blocks("yaml watch"), *WATCHES], ids=by_place)
def test_watches_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.monitoring.drift.section import load_watch

    (tmp_path / "watch.yaml").write_text(block.text)
    assert load_watch(tmp_path / "watch.yaml").watch


@pytest.mark.parametrize("block", all_blocks("yaml triggers"), ids=by_place)
def test_triggers_files_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.monitoring.triggers.section import load_triggers

    place = tmp_path / "triggers.yaml"
    place.write_text(block.text)
    assert load_triggers(place).triggers


@pytest.mark.parametrize(
    "place", sorted((ROOT / "jobs" / "triggers").glob("*.yaml")), ids=lambda place: place.stem
)
def test_shipped_triggers_files_are_valid(place: Path) -> None:
    from raytrain.monitoring.triggers.section import load_triggers

    assert load_triggers(place).triggers


@pytest.mark.parametrize("block", all_blocks("yaml export"), ids=by_place)
def test_export_settings_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.release.bundle.parity.section import settings_from

    (tmp_path / "export.yaml").write_text(block.text, encoding="utf-8")
    assert settings_from([], tmp_path / "export.yaml").model_fields_set


@pytest.mark.parametrize("block", all_blocks("yaml loop"), ids=by_place)
def test_loops_are_valid(block: Block) -> None:
    """But for the files that they name."""
    from raytrain.config.document import parse_document
    from raytrain.config.recipe import build
    from raytrain.pipeline.loop.section import LOOP, LoopSection

    assert build(LoopSection, parse_document(block.text, str(block), LOOP)).loop


@pytest.mark.parametrize(
    "place", sorted((ROOT / "jobs" / "loops").glob("*.yaml")), ids=lambda place: place.stem
)
def test_shipped_loops_are_valid(place: Path) -> None:
    from raytrain.pipeline.loop.section import load_loop

    assert load_loop(place).section.loop


@pytest.mark.parametrize("block", all_blocks("yaml workflow"), ids=by_place)
def test_workflows_are_whole_and_their_commands_understood(block: Block) -> None:
    import yaml

    # GitHub reads YAML 1.2, where `on` is a word; PyYAML reads 1.1.
    found = yaml.load(block.text, Loader=yaml.BaseLoader)
    assert {"name", "on", "jobs"} <= found.keys()
    (job,) = found["jobs"].values()
    assert job["runs-on"] and all("uses" in step or "run" in step for step in job["steps"])
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    commands = [re.sub(r"\$\{\{.*?\}\}", "VALUE", line) for line in lines if line.startswith("raytrain ")]
    faults = {line: check_command(command_lines(line)[0]) for line in commands}
    assert len(faults) > 1 and {line: fault for line, fault in faults.items() if fault} == {}


def test_what_a_pull_request_brings_does_not_judge_it() -> None:
    """Of the workflow with the gate: policy and ring are the base branch's, nothing is secret, nothing of it is run."""
    import yaml

    (block,) = [one for one in all_blocks("yaml workflow") if "raytrain promote" in one.text]
    found = yaml.load(block.text, Loader=yaml.BaseLoader)
    assert found["on"].keys() == {"pull_request_target"} and "secrets." not in block.text
    (job,) = found["jobs"].values()
    checkouts = [step["with"] for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert [one["path"] for one in checkouts if "ref" not in one] == ["base"]
    assert [one["path"] for one in checkouts if "ref" in one] == ["change"]
    assert all(one["persist-credentials"] == "false" for one in checkouts)
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    (gate,) = [line for line in lines if line.startswith("raytrain promote")]
    assert all(one in gate for one in ("--policy base/", "--ring base/", "--dry-run"))
    assert [word for line in lines for word in line.split() if word.startswith("change/")] == [
        "change/releases/reports"
    ]


@pytest.mark.parametrize("block", all_blocks("yaml", "yaml part"), ids=by_place)
def test_recipes_are_valid(block: Block) -> None:
    validate(block)


@pytest.mark.parametrize("block", all_blocks("yaml serving"), ids=by_place)
def test_serving_configs_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.serving.section import load_serving

    (tmp_path / "serving.yaml").write_text(block.text, encoding="utf-8")
    assert load_serving(tmp_path / "serving.yaml").base_model


# vllm.yaml is Ray Serve LLM's: tests/unit/serving/test_serve_configs.py
SERVED = sorted(one for one in (ROOT / "serve").glob("*.yaml") if one.name != "vllm.yaml")


@pytest.mark.parametrize("file", SERVED, ids=lambda file: file.name)
def test_serving_configs_that_come_along_are_valid(file: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    from raytrain.serving.launch import serve_config
    from raytrain.serving.section import load_serving

    deployed = ServeDeploySchema.model_validate(serve_config(load_serving(file)))
    assert deployed.applications[0].import_path == "serve.app:build_application"


@pytest.mark.parametrize("block", all_blocks("yaml pack"), ids=by_place)
def test_packs_are_valid(block: Block, tmp_path: Path) -> None:
    from raytrain.evaluation.safety.probes import load_pack

    (tmp_path / "pack.yaml").write_text(block.text, encoding="utf-8")
    assert load_pack(tmp_path / "pack.yaml").probes


@pytest.mark.parametrize("block", all_blocks("bash"), ids=by_place)
def test_commands_are_understood(block: Block) -> None:
    faults = {" ".join(words): check_command(words) for words in command_lines(block.text)}
    assert faults, "a bash block without a command"
    assert {words: fault for words, fault in faults.items() if fault} == {}


def cheap_commands() -> list[list[str]]:
    commands = [words for block in all_blocks("bash") for words in command_lines(block.text)]
    return [
        words[1:]
        for words in commands
        if words[0] == "raytrain"
        and any(tuple(words[1 : 1 + len(cheap)]) == cheap for cheap in CHEAP)
        and not any(PLACEHOLDER.fullmatch(part) for word in words for part in word.split("="))
    ]


@pytest.mark.parametrize("arguments", cheap_commands(), ids=" ".join)
def test_cheap_commands_run(
    arguments: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from raytrain.cli.main import run

    code = run(arguments)
    told = capsys.readouterr()
    # A doctor that finds this machine wanting has worked.
    assert code in ((0, 2) if arguments[0] == "doctor" else (0,)), told.out + told.err


def test_recipes_in_commands_take_their_overrides(workplace: Path) -> None:
    from raytrain.training.spec import load_spec

    num_checked = 0
    for block in all_blocks("bash"):
        for words in command_lines(block.text):
            recipes = [word for word in words if word.endswith(".yaml")]
            takes_another_file = words[1:2] in (
                ["suite"], ["cluster"], ["triggers"], ["watch"], ["alerts"], ["loop"], ["retrain"],
            )  # fmt: skip
            if (
                not recipes
                or takes_another_file
                or not {"train", "jobs/train.py", "check", "show"} & set(words)
            ):
                continue
            assert Path(recipes[0]).is_file(), f"{block}: there is no {recipes[0]}"
            after = words[words.index(recipes[0]) + 1 :]
            load_spec(Path(recipes[0]), [word for word in after if re.match(r"[a-z][\w.]*=", word)])
            num_checked += 1
    assert num_checked > 3


@pytest.mark.slow
@pytest.mark.parametrize("block", all_blocks("python"), ids=by_place)
def test_python_blocks_run(block: Block, workplace: Path, tiny_llama: Path) -> None:
    shutil.copytree(tiny_llama, workplace / "models" / "smollm2")
    write_modules(workplace)
    exec(compile(block.text, str(block), "exec"), {"__name__": "__guide__"})


@pytest.mark.parametrize("block", all_blocks("python module", "python trains"), ids=by_place)
def test_python_of_modules_and_of_training_compiles_and_imports(block: Block, workplace: Path) -> None:
    """Blocks that train run whole in tests/integration."""
    code = compile(block.text, str(block), "exec")
    write_modules(workplace)
    if block.kind == "python module":
        exec(code, {"__name__": "__guide__"})
        return
    imports = [line for line in block.text.splitlines() if re.match(r"(from|import) ", line)]
    exec("\n".join(imports), {})


@pytest.mark.parametrize("block", all_blocks("jsonl", "jsonl refused"), ids=by_place)
def test_rows_are_taken_or_refused(block: Block) -> None:
    from raytrain.data.layouts import canonicalise
    from raytrain.data.rows import RowFault

    for line in block.text.splitlines():
        found = canonicalise(json.loads(line), "auto", {})
        assert isinstance(found, RowFault) is (block.kind == "jsonl refused"), (line, found)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    faults = [f"{page.name}:{line}: {fault}" for line, fault in inline_faults(text)]
    assert faults + list(check_links(text, page)) == []


def inline_faults(text: str) -> list[tuple[int, str]]:
    faults = []
    for line, code in inline_code(text):
        fault = check_place(code) or check_key(code)
        if code.startswith(("raytrain ", "make ", "ray job submit ", "python ")):
            fault = check_command(command_lines(code)[0], is_naming=True)
        if fault:
            faults.append((line, f"`{code}`: {fault}"))
    return faults


def test_the_tree_of_folders_is_there_and_whole() -> None:
    block = next(block for block in all_blocks("text") if block.text.startswith("raytrain/"))
    told = tree_paths(block.text)
    assert [path for path in told if not (ROOT / path).exists()] == []
    rooms = {f"raytrain/{one.parent.name}/" for one in ROOT.glob("raytrain/*/__init__.py")}
    assert rooms <= set(told), "a room of raytrain/ is missing in the README's tree"


def test_reasons_for_rejection_are_all_told() -> None:
    from raytrain.data.rows import REASONS
    from raytrain.data.section import Layout

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in (*REASONS, *typing.get_args(Layout)) if f"`{name}`" not in text] == []


def test_every_exit_code_of_an_error_is_told() -> None:
    from raytrain import errors

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")]
    assert len(kinds) > 5
    missing = [f"{one.exit_code} {one.kind}" for one in kinds if not in_table(text, one.exit_code, one.kind)]
    assert missing == []


def in_table(text: str, code: int, kind: str) -> bool:
    return any(line.startswith(f"| {code} ") and f"`{kind}`" in line for line in text.splitlines())


def test_the_reference_is_what_the_sections_say() -> None:
    place = ROOT / "docs" / "reference.py"
    specification = importlib.util.spec_from_file_location("guide_reference", place)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for page, text in module.pages().items():
        written = page.read_text(encoding="utf-8")
        assert written == text, f"{page.name} is out of date: run `python docs/reference.py`"


def test_a_default_that_is_made_anew_is_told() -> None:
    told = (ROOT / "docs" / "gate-reference.md").read_text(encoding="utf-8")
    for key, field in TargetSection.model_fields.items():
        if field.default_factory is not None:
            default = json.dumps(field.get_default(call_default_factory=True))
            row = next(line for line in told.splitlines() if line.startswith(f"| `{key}` |"))
            assert f"| `{default}` |" in row, row


BROKEN = """
```yaml
model: {base_model: x}
data: {sources: rows.jsonl}
train: {lerning_rate: 1e-4}
```
```yaml part
train: {schedule: quadratic}
```
```bash
raytrain trian mine.yaml
raytrain train mine.yaml --fersh
raytrain data prepare --sources rows.jsonl
raytrain runs list --limit many
make demos
ray job submit --working-dir . -- python jobs/trian.py
python -m benchmarks.nothing
pip install 'raytrain[everything]'
rm -rf /
```
```jsonl
{"question": "How many?"}
```
"""


def test_a_broken_guide_would_be_seen() -> None:
    from raytrain.errors import ConfigError

    blocks = {block.kind: block for block in blocks_of(BROKEN, "broken.md")}
    for kind in ("yaml", "yaml part"):
        with pytest.raises(ConfigError, match=r"lerning_rate|schedule"):
            validate(blocks[kind])
    commands = command_lines(blocks["bash"].text)
    assert len(commands) == 9
    assert [words for words in commands if check_command(words) is None] == []
    with pytest.raises(AssertionError):
        test_rows_are_taken_or_refused(blocks["jsonl"])
    with pytest.raises(AssertionError, match="left open"):
        list(blocks_of("```bash\nmake demo\n", "open.md"))


@pytest.mark.parametrize(
    "code",
    [
        "raytrain/training/no_such.py",
        "raytrain/training/losses.py:no_such_loss",
        "tests/unit/training/test_loop.py::test_no_such",
        "train.lerning_rate",
        "data.sources.0.pth=rows.jsonl",
        "make demos",
        "raytrain runs lst",
    ],
)
def test_a_broken_name_would_be_seen(code: str) -> None:
    assert inline_faults(f"It stands in `{code}`.") != []


def test_a_broken_link_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](nowhere.md) [b](#two) [c](#one) [d](page.md#one) [e](https://x.y/z)\n")
    assert len(list(check_links(page.read_text(), page))) == 2
