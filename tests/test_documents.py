"""The documents name only commands, options, files and headings that exist."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from denoisecli.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
PROGRAM = typer.main.get_command(app)
COMMANDS: dict[str, click.Command] = PROGRAM.commands

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def codes(text: str) -> Iterator[str]:
    """Yield the lines of code in a document, with continued lines joined."""
    # of a console block, only the commands, not what they print
    text = CONSOLE.sub(lambda lines: "".join(re.findall(r"^\$ .*\n", lines[0], re.M)), text)
    blocks = FENCE.findall(text)
    text = FENCE.sub("", text)
    for block in [*blocks, *INDENTED.findall(text)]:
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")
    yield from INLINE.findall(text)


def calls(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `denoise` in a document."""
    for code in codes(text):
        for part in re.split(r"\||&&|;", code):
            words = [word for word in part.split() if not re.fullmatch(r"[A-Z_]+=\S+", word)]
            if words[:1] == ["denoise"] and len(words) > 1:
                yield shlex.split(" ".join(words[1:]), comments=True)


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def slugs(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
class TestDocument:
    def test_calls_can_be_parsed(self, document: Path) -> None:
        for name, *arguments in calls(document.read_text(encoding="utf-8")):
            if name == "COMMAND":
                continue
            if name.startswith("-"):
                assert name in options(PROGRAM), name
                continue
            assert name in COMMANDS, f"denoise {name}"
            given = [word for word in arguments if word != "..."]
            if given and given[-1].startswith("--"):  # an option mentioned without its value
                assert given.pop() in options(COMMANDS[name])
            parser = COMMANDS[name].make_parser(click.Context(COMMANDS[name]))
            _, left, _ = parser.parse_args(given)  # raises where there is no such option
            assert not left, f"denoise {name} takes no {left}"

    def test_options_alone_exist(self, document: Path) -> None:
        known = {"-h"}.union(*map(options, COMMANDS.values()))
        for code in codes(document.read_text(encoding="utf-8")):
            if re.match(r"--?[a-z]", code):
                assert re.split(r"[ =]", code)[0] in known, code

    def test_links_lead_somewhere(self, document: Path) -> None:
        for link in LINK.findall(document.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), link
            if anchor:
                assert anchor in slugs(target.read_text(encoding="utf-8")), link


def test_the_readme_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[<>=]", package)[0] for packages in lists for package in packages}
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| package |")[2]
    words = set(re.findall(r"[\w\[\]-]+", table))
    own = {name for name in names if name.startswith("denoisecli")}
    assert names - own <= words
    assert {f"[{extra}]" for extra in project["optional-dependencies"]} <= words
