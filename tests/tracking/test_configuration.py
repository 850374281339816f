"""What the user has told wandb counts: wandb itself says, in a process of its own, what it makes of the same words."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tracked import KEY, MANIFEST, only_run, run_cell, runs

from dae.errors import UserError
from sweep.cli import main
from sweep.tracking import configuration
from sweep.tracking.configuration import check_environment, check_project, resolve_mode
from sweep.tracking.tracker import Tracker

USER_FILE, FOLDER_FILE, DOT_FILE = ".config/wandb/settings", "wandb/settings", ".wandb/settings"
KEYED = {"WANDB_API_KEY": KEY}
OFFLINE, DISABLED, ENABLED = (
    {FOLDER_FILE: f"[default]\nmode = {mode}\n"} for mode in ("offline", "disabled", "online")
)


def netrc(machine: str, key: str = KEY) -> str:
    return f"machine {machine}\n  login user\n  password {key}\n"


TABLE: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("offline", {}, {}),
    ("online", KEYED, {}),
    # variables
    ("offline", KEYED | {"WANDB_MODE": "offline"}, {}),
    ("offline", KEYED | {"WANDB_MODE": "dryrun"}, {}),
    ("online", KEYED | {"WANDB_MODE": "run"}, {}),
    ("online", KEYED | {"WANDB_MODE": "shared"}, {}),
    ("disabled", KEYED | {"WANDB_MODE": "disabled"}, {}),
    ("online", {"WANDB_MODE": "online"}, {}),
    ("offline", {"WANDB_MODE": "dryrun"}, {}),
    # what `wandb offline`, `wandb disabled` and `wandb enabled` leave in a folder
    ("offline", KEYED, OFFLINE),
    ("disabled", KEYED, DISABLED),
    ("online", KEYED, ENABLED),
    ("offline", KEYED, {DOT_FILE: "[default]\nmode = dryrun\n"}),
    ("online", KEYED | {"WANDB_MODE": "run"}, OFFLINE),
    ("offline", KEYED | {"WANDB_MODE": "dryrun"}, ENABLED),
    # the user's file, which a folder's overrules
    ("offline", KEYED, {USER_FILE: "[default]\nmode = offline\n"}),
    ("online", KEYED, ENABLED | {USER_FILE: "[default]\nmode = offline\n"}),
    ("offline", KEYED | {"WANDB_CONFIG_DIR": "~/elsewhere"}, {"elsewhere/settings": "[default]\nmode = offline\n"}),
    ("online", KEYED | {"WANDB_CONFIG_DIR": "~/elsewhere"}, {USER_FILE: "[default]\nmode = offline\n"}),
    # keys
    ("online", {}, {".netrc": netrc("api.wandb.ai")}),
    ("online", {}, {"_netrc": netrc("api.wandb.ai")}),
    ("offline", {}, {".netrc": netrc("api.wandb.ai.example")}),
    ("offline", {}, {".netrc": "machine"}),
    ("online", {"NETRC": "~/keys"}, {"keys": netrc("api.wandb.ai")}),
    ("offline", {"NETRC": "~/keys"}, {".netrc": netrc("api.wandb.ai")}),
    ("offline", {"WANDB_BASE_URL": "http://w.example:8080"}, {".netrc": netrc("api.wandb.ai")}),
    ("online", {"WANDB_BASE_URL": "http://w.example:8080"}, {".netrc": netrc("w.example:8080")}),
    ("online", {}, {".netrc": netrc("w.example"), USER_FILE: "[default]\nbase_url = http://w.example\n"}),
    ("online", {}, {USER_FILE: f"[default]\napi_key = {KEY}\n"}),
    ("offline", {}, OFFLINE | {".netrc": netrc("api.wandb.ai")}),
]

ORACLE = """
import json, os, sys
import wandb
for home, variables in json.load(sys.stdin):
    sys.stdout.flush()
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    os.environ |= variables | {"HOME": home, "WANDB_SILENT": "true"}
    os.chdir(home)
    settings = wandb.setup().settings
    print(json.dumps({
        "mode": settings.mode,
        "is_told": "mode" in settings.model_fields_set,
        "has_key": wandb.api.api_key is not None,
        "base_url": settings.base_url,
    }))
    wandb.teardown()
    sys.stdout.flush()
    os._exit(0)
"""


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What wandb makes of each row of the table."""
    rows = []
    for number, (_, variables, contents) in enumerate(TABLE):
        home = tmp_path_factory.mktemp(f"row{number}-")
        write(home, contents)
        rows.append((str(home), variables))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", ORACLE], input=json.dumps(rows), env=clean, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("private", [True, False], ids=["as it is", "without private names"])
@pytest.mark.parametrize("row", range(len(TABLE)))
def test_auto_is_what_wandb_would_do(
    row: int,
    private: bool,
    answers: list[dict[str, Any]],
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected, variables, contents = TABLE[row]
    monkeypatch.chdir(clean_environment)
    write(clean_environment, contents)
    for name, value in (variables | {"WANDB_CACHE_DIR": str(clean_environment / "cache")}).items():
        monkeypatch.setenv(name, value)
    if not private:
        monkeypatch.setattr("sweep.tracking.wandb_private.lookup", lambda _path: None)
    environment = dict(os.environ)

    answer = answers[row]
    if answer["mode"] in ("offline", "dryrun", "disabled"):
        assert expected == {"dryrun": "offline"}.get(answer["mode"], answer["mode"])
    else:
        assert expected == ("online" if answer["has_key"] or answer["is_told"] else "offline")
    assert resolve_mode("auto") == expected
    assert configuration.has_key() == answer["has_key"]
    assert configuration.read().base_url == answer["base_url"]
    assert [resolve_mode(mode) for mode in ("online", "offline", "disabled")] == ["online", "offline", "disabled"]
    assert dict(os.environ) == environment


VARIABLES = {
    "WANDB_PROJECT": "denoise",
    "WANDB_ENTITY": "team",
    "WANDB_TAGS": "first,second",
    "WANDB_NOTES": "on a whim",
    "WANDB_JOB_TYPE": "train",
    "WANDB_RUN_GROUP": "theirs",
    "WANDB_NAME": "theirs",
    "WANDB_RUN_ID": "theirs",
    "WANDB_MODE": "disabled",
}


@pytest.mark.parametrize(
    ("option", "variables", "contents", "project", "entity"),
    [
        (None, {}, {}, "dae-sweep", None),
        (None, VARIABLES, {}, "denoise", "team"),
        ("mine", VARIABLES, {}, "mine", "team"),
        (None, {}, {FOLDER_FILE: "[default]\nmode = disabled\nproject = filed\nentity = lab\n"}, "filed", "lab"),
    ],
    ids=["nothing", "variables", "an option", "a file"],
)
def test_what_a_run_is_filed_under(
    option: str | None,
    variables: dict[str, str],
    contents: dict[str, str],
    project: str,
    entity: str | None,
    clean_environment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clean_environment)
    write(clean_environment, contents)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "tiny"
    folder.mkdir()
    tracker = Tracker(MANIFEST, folder, mode="offline", project=option, warn=pytest.fail)
    run_cell(tracker)
    tracker.report([{"cell": "a"}], [])
    tracker.close()
    by_name = runs(folder)
    assert set(by_name) == {"DAE_1_5-s0", "tiny report"}
    for run in by_name.values():
        assert run.start["project"] == project
        assert run.start.get("entity") == entity
        assert run.start["run_group"] == "tiny"
        assert run.start.get("tags", []) == (["first", "second"] if variables else [])
        assert run.start.get("notes") == variables.get("WANDB_NOTES")
    assert by_name["DAE_1_5-s0"].start["job_type"] == variables.get("WANDB_JOB_TYPE", "cell")
    assert by_name["tiny report"].start["job_type"] == "report"


def test_what_wandb_offline_leaves_in_the_folder_keeps_a_sweep_offline(
    clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clean_environment)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    log = {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "wandb", "offline"], env=os.environ | log, check=True, capture_output=True)
    folder = tmp_path / "tiny"
    folder.mkdir()
    tracker = Tracker(MANIFEST, folder, mode="auto", project=None, warn=pytest.fail)
    run_cell(tracker)
    tracker.close()
    assert tracker.mode == "offline"
    assert only_run(folder).epochs == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("team/denoise", "WANDB_ENTITY=team and --project denoise"),
        ("a/b/c", "give a name without them"),
        ("50%", "give a name without them"),
        ("", "--project is empty"),
        ("a" * 129, "at most 128 characters"),
    ],
)
def test_a_project_that_wandb_refuses_is_refused_at_once(name: str, words: str) -> None:
    import wandb

    if name:
        with pytest.raises(Exception, match="Invalid project name"):
            wandb.Settings(project=name)
    with pytest.raises(UserError, match=words):
        check_project(name)


def test_a_project_that_wandb_refuses_costs_no_training(clean_environment: Path, tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    for words in (["run"], ["submit", "--address", "http://127.0.0.1:9", "--shared", "--"]):
        result = CliRunner().invoke(main, [*words, "--storage", str(storage), "--project", "team/denoise"])
        assert result.exit_code == 2
        assert "--project denoise" in result.output
        assert not storage.exists()


def test_names_that_wandb_takes_are_taken() -> None:
    import wandb

    for name in ("a" * 128, "dénoise 1", "a.b-c_d", "a&b", "x'y"):
        wandb.Settings(project=name)
        check_project(name)


def test_variables_that_wandb_refuses_are_refused_where_they_count(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE=ofline is no mode"):
        check_environment("auto")
    check_environment("offline")
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_PROJECT", "team/denoise")
    with pytest.raises(UserError, match="WANDB_ENTITY=team and WANDB_PROJECT=denoise"):
        check_environment("auto")
    check_environment("disabled")


def test_a_server_is_asked_for_beside_a_tracker(
    clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clean_environment)
    write(clean_environment, {FOLDER_FILE: "[default]\nbase_url = http://w.example\n"})
    folder = tmp_path / "tiny"
    folder.mkdir()
    tracker = Tracker(MANIFEST, folder, mode="offline", project=None, warn=pytest.fail)
    for latent in (5, 8):
        assert configuration.base_url() == "http://w.example"
        run_cell(tracker, latent)
    tracker.close()
    assert [run.epochs for run in runs(folder).values()] == [[1, 2, 3, 4]] * 2
