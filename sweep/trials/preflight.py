"""Before a sweep begins on a cluster: can every node do what will be asked of it? All that cannot is said at once.

One task a node looks at the node's versions, writes and reads a marker in the storage, and fetches the dataset, which
then lies in the node's object store for its trials.
"""

import hashlib
import pickle
import platform
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dae.data import Dataset
from dae.errors import UserError
from sweep.storage.store import MARKER_FOLDER, Store
from sweep.trials import session
from sweep.trials.resources import Node, Resources

ANSWER_TIMEOUT_S = 120.0
"""For all nodes together; a node's first worker imports Ray and torch."""
PACKAGES = ("ray", "torch", "numpy", "dae-sweep")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a node said of itself; None where it could not say it."""

    versions: Mapping[str, str | None]
    storage: str | None = None
    """Why it cannot use the storage."""
    dataset: str | None = None
    """Digest of the dataset as it arrived."""


def check(
    resources: Resources, store: Store, dataset: Dataset, *, problems: Iterable[str], allow_autoscaling: bool
) -> None:
    """Look at all nodes; ``problems`` are those that the driver knows of already.

    Raises:
        UserError: what keeps the sweep from running, a line each.
    """
    nodes = session.alive_nodes()
    problems = [*problems, *([] if allow_autoscaling else misfits(nodes, resources))]
    marker = uuid.uuid4().hex
    try:
        answers = _ask_all(nodes, store, dataset, marker)
        for node in nodes:
            problems += differences(node.name, answers[node.id], own_versions(), store.uri(), digest(dataset))
        problems += _unshared(nodes, answers, store, marker)
    finally:
        for node in nodes:
            store.delete(_marker(marker, node.id))
    if problems:
        raise UserError("the cluster cannot run this sweep:\n" + "\n".join(f"  - {problem}" for problem in problems))


def misfits(nodes: Sequence[Node], resources: Resources) -> list[str]:
    """Why no trial would ever start, if so; Tune itself would wait without end."""
    trial = resources.trial
    if any(node.fits(trial) for node in nodes):
        return []
    asked = " and ".join(f"{amount:g} {name.upper()}" for name, amount in trial.items())
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus), default=None)
    has = f"the largest node has {largest.cpus:g} CPU and {largest.gpus:g} GPU" if largest else "there is no node"
    ways = "Raise --trials-per-gpu, or give --gpus 0" if resources.gpus else "Start nodes with CPUs"
    return [f"asked {asked} per trial; {has}. {ways}, or --allow-autoscaling if larger nodes come."]


def differences(node: str, answer: Answer | str, here: Mapping[str, str], place: str, data: str) -> list[str]:
    """What of a node's answer keeps it from taking part; a text is why there is no answer."""
    if isinstance(answer, str):
        return [f"node {node} does not answer: {answer}"]
    problems = []
    for name, ours in here.items():
        theirs = answer.versions.get(name)
        if theirs is None:
            problems.append(f"node {node} has no {name}; this machine has {ours}: install the same on all nodes")
        elif _relevant(name, theirs) != _relevant(name, ours):
            problems.append(f"node {node} has {name} {theirs}, this machine {ours}: install the same on all nodes")
    if answer.storage is not None:
        problems.append(f"node {node} cannot use the storage {place}: {answer.storage}")
    if answer.dataset not in (None, data):
        problems.append(f"node {node} received another dataset than was sent: its fingerprint differs")
    return problems


def _relevant(name: str, text: str) -> str:
    """Builds of torch for different devices are one version, and so are Pythons that differ in the last place."""
    return ".".join(text.split(".")[:2]) if name == "python" else text.split("+")[0]


def own_versions() -> dict[str, str]:
    """Of this process."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # dae-sweep itself, where dae-sweep submit has sent it
            versions[name] = version(name)
    return versions


def digest(dataset: Dataset) -> str:
    """SHA-256 of all images, in their order."""
    total = hashlib.sha256()
    noisy = () if dataset.noisy is None else (dataset.noisy.train, dataset.noisy.validation, dataset.noisy.test)
    for images in (dataset.train, dataset.validation, dataset.test, *noisy):
        total.update(np.ascontiguousarray(images).data)
    return total.hexdigest()


def _marker(marker: str, node: str) -> str:
    return f"{MARKER_FOLDER}/{marker}-{node[:12]}"


def _unshared(nodes: Sequence[Node], answers: Mapping[str, Answer | str], store: Store, marker: str) -> list[str]:
    """Nodes whose storage has the same name and is another one: each has a folder of its own there."""
    wrote = {
        node.id: node for node in nodes if isinstance(answer := answers[node.id], Answer) and answer.storage is None
    }
    seen = store.read_all(_marker(marker, node) for node in wrote)
    return [
        f"node {node.name} writes to a storage of its own at {store.uri()}: what it wrote is not seen from here. "
        "Give a --storage that all nodes share: a mounted folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER."
        for node in wrote.values()
        if _marker(marker, node.id) not in seen
    ]


def _ask_all(nodes: Sequence[Node], store: Store, dataset: Dataset, marker: str) -> dict[str, Answer | str]:
    """Every node's answer, or why it gave none."""
    task = ray.remote(num_cpus=0, max_retries=0)(_by_value())
    refs = {}
    for node in nodes:
        # As bytes: a node that lacks the program could not even receive them.
        words = pickle.dumps((store, _marker(marker, node.id)))
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        refs[node.id] = task.options(scheduling_strategy=place).remote(words, [session.shared(dataset)])
    done, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=ANSWER_TIMEOUT_S)
    answers: dict[str, Answer | str] = {}
    for node_id, ref in refs.items():
        if ref not in done:
            ray.cancel(ref, force=True)
            answers[node_id] = f"nothing within {ANSWER_TIMEOUT_S:.0f} s"
            continue
        try:
            answers[node_id] = Answer(**ray.get(ref))
        except ray.exceptions.RayError as error:
            answers[node_id] = str(error).strip().splitlines()[-1]
    return answers


def _by_value() -> Any:
    """The task. Defined in here, so that Ray sends its code and a node without this program can run it too."""
    packages = PACKAGES

    def look(words: bytes, shared: list[Any]) -> dict[str, Any]:
        import importlib.metadata
        import platform

        versions: dict[str, str | None] = {"python": platform.python_version()}
        for name in packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = None
        try:
            from sweep.trials import preflight
        except ImportError:
            return {"versions": versions}
        return {"versions": versions} | preflight.use(words, shared)

    return look


def use(words: bytes, shared: list[Any]) -> dict[str, Any]:
    """On a node: write to the storage and read it back, and fetch the dataset."""
    whole, marker = pickle.loads(words)
    store, storage = whole.impatient(), None
    try:
        store.create()
        store.write(marker, marker.encode())
        if store.read(marker) != marker.encode():
            storage = "it does not give back what was written"
    except Exception as error:  # whatever it is, the user is to know which node and why
        storage = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return {"storage": storage, "dataset": digest(ray.get(shared[0]))}
