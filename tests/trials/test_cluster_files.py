"""The files of cluster/ are what Ray's launcher and Kubernetes accept, and a mistake in one is seen."""

import copy
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from documented import Example, commands_of, examples

from sweep.cli.jobs import check_run_options

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
LAUNCHER_FILES = ["config.yaml", "on-premise.yaml"]
KUBERNETES = "1.34"

# ---- KubeRay's own layer. No package ships its schema: these are the fields of RayJob and RayCluster as KubeRay's API
# reference (ray.io/v1, KubeRay 1.6) lists them. What stands in `template` is checked with Kubernetes' schema.

STRING, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$"}
STRINGS = {"type": "object", "additionalProperties": STRING}
ANY: dict[str, Any] = {}


def fields(required: tuple[str, ...] = (), **known: Any) -> dict[str, Any]:
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


GROUP = {"rayStartParams": STRINGS, "template": {"type": "object"}, "resources": STRINGS, "labels": STRINGS}
HEAD = fields(("template",), **GROUP, serviceType=STRING, headService=ANY, enableIngress=FLAG)
WORKERS = fields(
    ("groupName", "template"),
    **GROUP,
    groupName=STRING,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    numOfHosts=COUNT,
    suspend=FLAG,
    scaleStrategy=ANY,
)
AUTOSCALER = fields(
    idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    image=STRING,
    imagePullPolicy=STRING,
    resources=ANY,
    env=ANY,
    envFrom=ANY,
    volumeMounts=ANY,
    securityContext=ANY,
)
RAY_CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion=STRING,
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=STRING),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    gcsFaultToleranceOptions=ANY,
    headServiceAnnotations=STRINGS,
    managedBy=STRING,
    suspend=FLAG,
)
RAY_JOB = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields(
        ("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?$"}, labels=STRINGS
    ),
    spec=fields(
        ("entrypoint", "rayClusterSpec"),
        entrypoint=STRING,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=STRING,
        runtimeEnvYAML=STRING,
        jobId=STRING,
        metadata=STRINGS,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterPodTemplate=ANY,
        submitterConfig=fields(backoffLimit=COUNT),
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds=COUNT,
        backoffLimit=COUNT,
        suspend=FLAG,
        managedBy=STRING,
        clusterSelector=STRINGS,
        deletionStrategy=ANY,
        rayClusterSpec=RAY_CLUSTER,
    ),
)


def validate_launcher_file(content: dict[str, Any]) -> None:
    """As `ray up` does before it touches anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(content)))


def pods(ray_job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its pod templates, by the name of their group."""
    cluster = ray_job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"], **{each["groupName"]: each for each in cluster["workerGroupSpecs"]}}
    return {name: group["template"] for name, group in groups.items()}


def validate_kubernetes_file(documents: list[dict[str, Any]]) -> None:
    """Each document against its schema, and what their names refer to."""
    for document in documents:
        if document["kind"] != "RayJob":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            continue
        jsonschema.validate(document, RAY_JOB)
        claims = {each["metadata"]["name"] for each in documents if each["kind"] == "PersistentVolumeClaim"}
        for name, template in pods(document).items():
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **template}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
            volumes = {each["name"]: each for each in template["spec"].get("volumes", ())}
            for container in template["spec"]["containers"]:
                assert {each["name"] for each in container.get("volumeMounts", ())} <= set(volumes)
            for volume in volumes.values():
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def load(name: str) -> Any:
    documents = list(yaml.safe_load_all((FOLDER / name).read_text()))
    return documents if name == "kuberay.yaml" else documents[0]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_launcher_accepts_it(name: str) -> None:
    validate_launcher_file(load(name))


def test_kubernetes_accepts_it() -> None:
    validate_kubernetes_file(load("kuberay.yaml"))


# ---- a mistake is seen


def put(content: Any, path: str, value: Any) -> Any:
    """A copy in which the value stands at a path of keys and positions."""
    changed = copy.deepcopy(content)
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    at = changed
    for part in way:
        at = at[part]
    at[last] = value
    return changed


@pytest.mark.parametrize("name", LAUNCHER_FILES)
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("initial_workers", 2),
        ("max_wrokers", 2),
        ("idle_timeout_minutes", "five"),
        ("provider", {"region": "us-west-2"}),
        ("auth/ssh_usr", "ubuntu"),
        ("cluster_name", ["dae-sweep"]),
    ],
    ids=["a field of old", "a slip of the hand", "a word for a number", "no type", "an unknown field", "no name"],
)
def test_the_launcher_refuses_a_mistake(name: str, path: str, value: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, click.ClickException, ValueError, KeyError)):
        validate_launcher_file(put(load(name), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("available_node_types/gpu-spot/min_workers", 9),
        ("available_node_types/gpu-spot/node_confg", {}),
        ("head_node_type", "nobody"),
    ],
    ids=["more at least than at most", "a slip of the hand", "a head of no type"],
)
def test_the_launcher_refuses_a_mistake_in_the_machines_of_aws(path: str, value: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, click.ClickException, ValueError)):
        validate_launcher_file(put(load("config.yaml"), path, value))


@pytest.mark.parametrize("path", ["available_node_types", "head_node"])
def test_the_launcher_refuses_kinds_of_machines_on_premise(path: str) -> None:
    with pytest.raises(click.ClickException, match="not supported for on-premise"):
        validate_launcher_file(put(load("on-premise.yaml"), path, {"gpu": {"resources": {}, "node_config": {}}}))


GPU_POD = "1/spec/rayClusterSpec/workerGroupSpecs/0/template/spec"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("0/spec/accessModes", "ReadWriteMany"),
        ("0/spec/storageClass", "nfs"),
        ("1/spec/entryPoint", "dae-sweep run"),
        ("1/spec/backoffLimit", "2"),
        ("1/spec/rayClusterSpec/authOptions/mode", "tokens"),
        ("1/spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0),
        ("1/spec/rayClusterSpec/workerGroupSpecs/0/maxReplica", 4),
        (f"{GPU_POD}/containers/0/resources/limits", "nvidia.com/gpu"),
        (f"{GPU_POD}/containers/0/volumeMounts/0", {"name": "shared", "path": "/shared"}),
        (f"{GPU_POD}/tolerations/0/seconds", 5),
        (f"{GPU_POD}/volumes/0/persistentVolumeClaim/claimName", "sweeps"),
    ],
    ids=[
        "a word for a list",
        "an unknown field of the volume",
        "an unknown field of the job",
        "a word for a number",
        "an unknown mode",
        "a number for a word",
        "an unknown field of a group",
        "a word for limits",
        "a mount to nowhere",
        "an unknown field of a pod",
        "a volume that is not claimed",
    ],
)
def test_kubernetes_refuses_a_mistake(path: str, value: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        validate_kubernetes_file(put(load("kuberay.yaml"), path, value))


# ---- what no schema says


def test_the_same_ray_everywhere() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == version("ray")
    assert load("kuberay.yaml")[1]["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    images = [value for key, value in load("config.yaml")["docker"].items() if key.endswith("image")]
    assert len(images) == 2
    assert all(image.startswith(f"rayproject/ray:{pinned[1]}-py311-") for image in images)


@pytest.mark.parametrize("name", [*LAUNCHER_FILES, "kuberay.yaml"])
def test_no_nightly_build_and_no_secret(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not re.search(r"nightly|latest|\.whl|dev0", text.replace("No nightly builds", ""))
    assert not re.search(r"AKIA|password:|[0-9a-f]{40}", text)
    assert len(re.findall(r"# [123]\. ", text)) == 3, "three lines to change"


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_all_of_the_package_goes_along(name: str) -> None:
    mounted = set(load(name)["file_mounts"].values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        *(name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if "." not in name),
        project["project"]["readme"],
        "LICENSE",
    }
    assert needed | {"pyproject.toml", "constraints.txt"} <= mounted
    assert all((ROOT / each).exists() for each in mounted if not each.startswith("~"))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
@pytest.mark.parametrize("role", ["head", "worker"])
def test_only_who_has_the_token_gets_in(name: str, role: str) -> None:
    content = load(name)
    assert "~/.ray/auth_token" in content["file_mounts"]
    [start] = [line for line in content[f"{role}_start_ray_commands"] if "ray start" in line]
    assert "RAY_AUTH_MODE=token" in start
    assert "0.0.0.0" not in start


def test_the_head_on_aws_has_no_gpu_and_workers_go_when_idle() -> None:
    content = load("config.yaml")
    types = content["available_node_types"]
    assert types[content["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert all(each["min_workers"] == 0 for each in types.values())
    assert content["idle_timeout_minutes"] == 5
    assert content["provider"]["cache_stopped_nodes"] is False


def commands(text: str) -> list[str]:
    """The `dae-sweep` commands of a file's comments, joined."""
    joined = re.sub(r"\\\n#\s*", "", text)
    return re.findall(r"^#\s+(dae-sweep (?:submit|run) .*)$", joined, re.MULTILINE)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_the_command_in_its_comment_is_accepted(name: str) -> None:
    [command] = commands((FOLDER / name).read_text())
    before, run_options = command.split(" -- ")
    assert f"--cluster cluster/{name}" in before
    check_run_options(run_options.split(), shared=False)


def test_the_entrypoint_is_a_command() -> None:
    words = load("kuberay.yaml")[1]["spec"]["entrypoint"].split()
    assert words[:4] == ["dae-sweep", "run", "--address", "auto"]
    check_run_options(words[4:], shared=True)


@pytest.mark.parametrize("example", examples((FOLDER / "README.md").read_text()), ids=str)
def test_commands_in_its_readme_can_be_parsed(example: Example) -> None:
    command, rest = commands_of(example.words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    if command.name == "submit":
        check_run_options(context.params["run_options"], shared=context.params["shared"])
