"""What is concluded from what the nodes of a cluster offer and answer; `test_on_cluster` has real nodes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.trials.preflight import Answer, differences, misfits
from sweep.trials.resources import Node, Resources

CPU_NODE = Node("1", "cpu-node", 8, 0)
GPU_NODE = Node("2", "gpu-node", 4, 2)
POOR_NODE = Node("3", "poor-node", 1, 1)


def resources(*nodes: Node, cpus: int = 64, gpus: int = 0, trials_per_gpu: int = 3) -> Resources:
    return Resources(cpus=cpus, gpus=gpus, trials_per_gpu=trials_per_gpu, nodes=nodes)


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        (resources(CPU_NODE, GPU_NODE), 12),
        (resources(CPU_NODE, GPU_NODE, cpus=5), 5),
        (resources(CPU_NODE, GPU_NODE, gpus=2), 6),
        (resources(CPU_NODE, GPU_NODE, POOR_NODE, gpus=3), 9),
        (resources(CPU_NODE, GPU_NODE, POOR_NODE, gpus=1), 3),
        (resources(CPU_NODE, GPU_NODE, POOR_NODE).alone, 1),
        (resources(CPU_NODE, GPU_NODE, POOR_NODE, gpus=3).alone, 3),
    ],
    ids=[
        "all cores",
        "five cores",
        "GPUs beside a CPU node",
        "mixed GPUs",
        "one GPU",
        "alone on a node",
        "alone on GPUs",
    ],
)
def test_slots_are_what_fits_the_nodes_and_was_allowed(asked: Resources, slots: int) -> None:
    assert asked.slots == slots


def test_the_machine_of_a_run_without_a_cluster_is_counted_as_before() -> None:
    assert Resources(cpus=4, gpus=0, trials_per_gpu=3).slots == 4
    here = Resources(cpus=2, gpus=1, trials_per_gpu=4)
    assert (here.slots, here.trial) == (4, {"cpu": 0.5, "gpu": 0.25})
    assert Resources(cpus=4, gpus=0, trials_per_gpu=3).alone.slots == 1


nodes = st.builds(Node, st.just("id"), st.just("name"), st.integers(0, 64), st.integers(0, 8))


@given(st.lists(nodes, min_size=1, max_size=5), st.integers(1, 12))
def test_no_gpu_lies_idle_for_want_of_cores_and_none_is_shared_by_more(several: list[Node], sharing: int) -> None:
    gpus = int(sum(node.gpus for node in several))
    asked = resources(*several, gpus=gpus, trials_per_gpu=sharing)
    if gpus:
        assert asked.slots == gpus * sharing
        assert all(node.fits(asked.trial) == node.gpus * sharing for node in several)
        assert Fraction(asked.trial["gpu"]).limit_denominator(100) == Fraction(1, sharing)


def test_a_trial_that_fits_no_node_is_said_with_what_was_asked_and_what_is_there() -> None:
    assert misfits([CPU_NODE, GPU_NODE], resources(CPU_NODE, GPU_NODE, gpus=2)) == []
    assert misfits([CPU_NODE], resources(gpus=1, trials_per_gpu=4)) == [
        "asked 1 CPU and 0.25 GPU per trial; the largest node has 8 CPU and 0 GPU. Raise --trials-per-gpu, or give "
        "--gpus 0, or --allow-autoscaling if larger nodes come."
    ]
    half = Node("4", "half-node", 4, 0.5)
    assert misfits([half], resources(gpus=1, trials_per_gpu=1)) == [
        "asked 1 CPU and 1 GPU per trial; the largest node has 4 CPU and 0.5 GPU. Raise --trials-per-gpu, or give "
        "--gpus 0, or --allow-autoscaling if larger nodes come."
    ]
    assert "there is no node" in misfits([], resources())[0]


OWN = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1+cpu", "dae-sweep": "0.1.0"}


def test_a_node_like_this_machine_is_sound_whatever_it_builds_torch_for() -> None:
    like = Answer(versions=OWN | {"torch": "2.14.1+cu128", "python": "3.11.9"}, dataset="d")
    assert differences("n", like, OWN, "s3://b", "d") == []


def test_all_that_is_wrong_with_a_node_is_said() -> None:
    other = Answer(
        versions={"python": "3.12.1", "ray": "2.59.0", "torch": None, "dae-sweep": "0.1.0"},
        storage="it does not know this access key",
        dataset="e",
    )
    assert differences("n", other, OWN, "s3://b", "d") == [
        "node n has python 3.12.1, this machine 3.11.7: install the same on all nodes",
        "node n has ray 2.59.0, this machine 2.60.0: install the same on all nodes",
        "node n has no torch; this machine has 2.14.1+cpu: install the same on all nodes",
        "node n cannot use the storage s3://b: it does not know this access key",
        "node n received another dataset than was sent: its fingerprint differs",
    ]
    assert differences("n", "it left", OWN, "s3://b", "d") == ["node n does not answer: it left"]


def test_the_dataset_that_arrives_is_told_from_another(tiny: object) -> None:
    from dataclasses import replace

    from sweep.trials.preflight import digest

    assert digest(tiny) == digest(replace(tiny))  # type: ignore[arg-type, type-var]
    other = replace(tiny, test=np.roll(tiny.test, 1))  # type: ignore[attr-defined, type-var]
    assert digest(tiny) != digest(other)  # type: ignore[arg-type]
