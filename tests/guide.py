"""The guide (README.md, docs/*.md) as a test sees it: fenced blocks, inline code, and the commands in them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

KINDS = {
    "yaml": "a whole recipe",
    "yaml part": "sections that are put over a minimal recipe",
    "yaml suite": "a whole suite of an evaluation",
    "yaml contract": "what a candidate must show",
    "yaml pack": "a pack of safety probes",
    "yaml serving": "a serving config",
    "yaml watch": "what is watched, and what is an alarm",
    "yaml gate": "what a version must show, and who approves",
    "yaml alerts": "who is told of what",
    "yaml triggers": "when production is trained again",
    "yaml loop": "what is kept good, and how",
    "yaml export": "settings of an export and its check",
    "yaml workflow": "a GitHub Actions file; its commands are parsed, and it is held against what such a file needs",
    "python": "runs as it stands, without Ray",
    "python trains": "runs in the integration tests",
    "python module": "a module of the reader's own; later blocks import it by the name in its first line",
    "bash": "commands; each is parsed, and the cheap ones run",
    "jsonl": "rows, each of which raytrain takes",
    "jsonl refused": "rows, each of which raytrain rejects",
    "text": "what a command prints, or a picture in letters",
}


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence."""

    file: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(text: str, file: str) -> Iterator[Block]:
    """Every fenced block. AssertionError where a fence is left open."""
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line.strip().removeprefix("```").strip()), []
        else:
            yield Block(file, *opened, "\n".join(lines) + "\n")
            opened = None
    assert opened is None, f"{file}:{opened and opened[0]}: a fence is left open"


def all_blocks(*kinds: str) -> list[Block]:
    return [
        block
        for page in pages()
        for block in blocks_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
        if not kinds or block.kind in kinds
    ]


def inline_code(text: str) -> Iterator[tuple[int, str]]:
    """Line number and content of each `code` outside fenced blocks."""
    inside = False
    for number, line in enumerate(without_comments(text).splitlines(), start=1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield from ((number, found) for found in re.findall(r"`([^`]+)`", line))


def command_lines(text: str) -> list[list[str]]:
    """The commands of a bash block as words; continued lines are joined, comments are left out."""
    joined = text.replace("\\\n", " ")
    commands = []
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # VARIABLE=value before a command
            words = words[1:]
        if words:
            commands.append(words[: words.index("|")] if "|" in words else words)
    return commands


def write_modules(folder: Path) -> None:
    """The modules that the guide shows, under the file name in their first line (`# notes.py`)."""
    for block in all_blocks("python module"):
        name = block.text.splitlines()[0].removeprefix("#").strip()
        assert name.endswith(".py"), f"{block}: the first line of a module names its file"
        (folder / name).write_text(block.text, encoding="utf-8")


def without_comments(text: str) -> str:
    """The text without <!-- … -->, its lines where they were."""
    return re.sub(r"<!--.*?-->", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)


def check_raytrain(arguments: Sequence[str], *, is_naming: bool = False) -> str | None:
    """What is wrong with `raytrain ARGUMENTS`: the command, an option, or a value that it does not take.

    With `is_naming` a command without anything behind it is only named, and may lack its arguments.
    """
    import typer

    from raytrain.cli.main import command_line

    command = command_line()
    rest, context = list(arguments), None
    name = "raytrain"
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        if name not in command.commands:
            return f"there is no command `{name}`; there are {', '.join(command.commands)}"
        command = command.commands[name]
    if rest == ["--help"]:
        return None  # every command has it
    try:
        context = command.make_context(name, rest, resilient_parsing=is_naming and not rest)
    except typer.TyperException as error:
        return str(error.format_message())
    return None if context is not None else "it was not understood"


def check_command(words: Sequence[str], *, is_naming: bool = False) -> str | None:
    """What is wrong with a command line of the guide, or None. Nothing is run."""
    program, arguments = words[0], list(words[1:])
    if program == "raytrain":
        return check_raytrain(arguments, is_naming=is_naming)
    if program == "make":
        return next(
            (f"the Makefile has no target `{one}`" for one in arguments if one not in targets()), None
        )
    if program == "ray" and arguments[:2] == ["job", "submit"]:
        rest = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
        return check_command(rest) if rest else "a job needs `-- COMMAND`"
    if program == "python":
        return _check_python(arguments)
    if program == "pip":
        asked = [one for word in arguments for one in re.findall(r"raytrain\[(\w+)\]", word)]
        return next((f"raytrain has no extra `{one}`" for one in asked if one not in extras()), None)
    return (
        None if program in ("source", "export", "kill", "tensorboard", "mlflow") else f"unknown `{program}`"
    )


def _check_python(arguments: list[str]) -> str | None:
    if arguments[0] == "-m":
        script = arguments[1].replace(".", "/") + ".py"
    else:
        script = arguments[0]
    if not (ROOT / script).is_file():
        return f"there is no {script}"
    return check_raytrain(["train", *arguments[1:]]) if script == "jobs/train.py" else None


def targets() -> set[str]:
    """Targets of the Makefile that a person asks for."""
    found = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(found)


def extras() -> set[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(project["project"]["optional-dependencies"])


_PLACE = re.compile(
    r"(?P<path>\.ci/run|Makefile|README\.md|(?:pyproject|constraints)\.\w+|"
    r"(?:raytrain|jobs|docs|tests|benchmarks)/[\w./-]*)(?:::?(?P<name>[A-Za-z_]\w*))?"
)


def check_place(code: str) -> str | None:
    """Where `code` reads like a file of the project (`path`, `path:name`, `path::test`): is it there?"""
    found = _PLACE.fullmatch(code)
    if found is None:
        return None
    path = ROOT / found["path"]
    if not path.exists():
        return f"there is no {found['path']}"
    if found["name"] and not re.search(rf"\b{found['name']}\b", path.read_text(encoding="utf-8")):
        return f"{found['path']} knows no {found['name']}"
    return None


_KEY = re.compile(r"(model|adapter|data|train|scaling|storage|tracking|cost)((?:\.[a-z_0-9]+)+)(?:=.*|: .*)?")


def check_key(code: str) -> str | None:
    """Where `code` reads like a key of a recipe (`train.seed`, `data.val_fraction=0.1`): does it exist?"""
    found = _KEY.fullmatch(code)
    if found is None or found[2].endswith((".py", ".parquet", ".jsonl")):
        return None
    from raytrain.config.recipe import known_keys
    from raytrain.training.spec import RunSpec

    path = (found[1], *(part for part in found[2][1:].split(".") if not part.isdigit()))
    if path[-1] in known_keys(RunSpec, path[:-1]) or path[:-1] == ("data", "sources", "columns"):
        return None
    return f"a recipe has no key {'.'.join(path)}"


def check_links(text: str, page: Path) -> Iterator[str]:
    """Links to files that are not there, or to a heading that the page there does not have."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_comments(text)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists():
            yield f"{page.name}: the link {target} leads nowhere"
        elif anchor and anchor not in _anchors(place):
            yield f"{page.name}: {place.name} has no heading #{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def tree_paths(text: str) -> list[str]:
    """Paths of the tree of folders: the first word of each line, under the folders that its indentation names."""
    found: list[str] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        above = [one for one in above if one[0] < indent]
        name = line.split()[0]
        path = "".join(part for _, part in above) + name
        found.append(path)
        if name.endswith("/"):
            above.append((indent, name))
    return found
