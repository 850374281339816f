"""What README.md says about `dae-sweep` is true: its commands exist, and those that train nothing are run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from documented import Example, commands_of, examples
from synthetic import make_sweep

from sweep.cli import main
from sweep.cli.parsing import grid_of
from sweep.cli.settings import settings_of
from sweep.records.grid import Grid

README = Path(__file__).parents[2] / "README.md"
FAULTS = README.parent / "docs" / "faults.md"


TEXT = README.read_text(encoding="utf-8")
EXAMPLES = examples(TEXT)
MENTIONED = sorted(set(re.findall(r"`dae-sweep ([a-z][a-z-]*)", TEXT)))
OPTIONS = sorted(set(re.findall(r"`(--[a-z][a-z-]*)", TEXT)))
WITHOUT_TRAINING = {"plan", "status", "report"}
FOREIGN_OPTIONS: set[str] = set()
"""Options in README's text that are another program's."""


def is_question(example: Example) -> bool:
    """Whether it only asks for help or the version."""
    return bool({"--help", "-h", "--version"} & set(example.words))


# ---- the reader of README itself

SAMPLE = """
Use `dae-sweep frobnicate`.
```sh
make setup
dae-sweep run --depths 1,3 \\
    --latents 5   # a comment with dae-sweep plan in it
cd x && .venv/bin/dae-sweep status | head; python -m sweep report --name "a b"
```
```console
$ dae-sweep plan
name  latent
$ ls
name
```
```python
dae-sweep nothing
```
"""


def test_the_reader_finds_every_command_of_a_sample() -> None:
    assert [(example.words, example.shown) for example in examples(SAMPLE)] == [
        (("run", "--depths", "1,3", "--latents", "5"), ()),
        (("status",), ()),
        (("report", "--name", "a b"), ()),
        (("plan",), ("name  latent",)),
    ]


# ---- README


def test_readme_has_commands() -> None:
    assert any(example.words[:1] == ("run",) for example in EXAMPLES)
    assert WITHOUT_TRAINING & {example.words[0] for example in EXAMPLES if example.words}


@pytest.mark.parametrize("name", MENTIONED)
def test_commands_in_the_text_exist(name: str) -> None:
    assert name in main.commands


@pytest.mark.parametrize("option", OPTIONS)
def test_options_in_the_text_exist(option: str) -> None:
    known = {name for command in main.commands.values() for each in command.params for name in each.opts}
    assert option in known | {"--help", "--version"} | FOREIGN_OPTIONS


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not is_question(each)], ids=str)
def test_commands_can_be_parsed_and_their_values_are_allowed(example: Example) -> None:
    command, rest = commands_of(example.words)
    context = command.make_context(command.name, rest)
    if "depths" in context.params:
        values = dict(context.params)
        with context:
            settings = settings_of(values)
            if (side := values.get("patch")) is not None:  # there is no such folder here to take the size from
                settings = replace(settings, image=f"{side}x{side}x3")
            grid_of(values, settings)


@pytest.mark.parametrize(
    "example",
    [each for each in EXAMPLES if is_question(each) or WITHOUT_TRAINING & set(each.words[:1])],
    ids=str,
)
def test_commands_that_train_nothing_do_what_they_say(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_signals: None
) -> None:
    monkeypatch.chdir(tmp_path)
    if not is_question(example) and example.words[0] in {"status", "report"}:
        command, rest = commands_of(example.words)
        given = command.make_context(command.name, list(rest)).params
        name = given.get("name") or given.get("dataset") or "mnist-5k"
        storage = tmp_path / given["storage"]
        assert storage.is_relative_to(tmp_path), "this test writes nowhere else"
        make_sweep(storage / name, Grid.product((1, 3), (13, 5), (0,)), name=name)
    result = CliRunner().invoke(main, list(example.words), prog_name="dae-sweep")
    assert result.exit_code == 0, result.output
    if example.words[0] in {"status", "report"}:
        return  # what README shows of them is another sweep
    said = {" ".join(line.split()) for line in result.output.splitlines()}
    for line in example.shown:
        if line.strip() and "..." not in line and "…" not in line:
            assert " ".join(line.split()) in said


# ---- docs/faults.md


def test_the_table_of_faults_names_tests_that_are_there() -> None:
    named = re.findall(r"`(test_\w+?)(\.py|_?\.\.\.|)`", FAULTS.read_text())
    assert len(named) > 20
    folder = Path(__file__).parents[1]
    there = re.findall(r"^def (test_\w+)", "".join(path.read_text() for path in folder.rglob("test_*.py")), re.M)
    for name, ending in named:
        if ending == ".py":
            assert list(folder.rglob(f"{name}.py"))
        else:
            assert any(each.startswith(name) if ending else each == name for each in there), name
