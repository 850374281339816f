"""The notebook's function as a Ray Tune trainable, the way the documentation shows it: default settings, Ray's own
W&B callback, one report an epoch. As a script: prints the test losses as JSON; or empty trials on reused actors.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "WANDB_MODE": "offline", "RAY_AUTH_MODE": "disabled"}
import ray
from ray import tune


def trainable(config: dict[str, Any], given: dict[str, Any]) -> None:
    from tests.benchmarks import notebook

    cell = {"depth": config["cell"][0], "latent": config["cell"][1]}
    last: dict[str, float] = {}

    def report(metrics: dict[str, float]) -> None:
        last.update(metrics)
        if metrics["epoch"] < given["epochs"]:
            tune.report(metrics)

    loss = notebook.train(
        cell, given["data_dir"], given["fraction"], given["epochs"], given["device"], given["seed"], report
    )
    tune.report({**last, "test/loss": loss})


def sweep(given: argparse.Namespace) -> dict[str, float]:
    from ray.air.integrations.wandb import WandbLoggerCallback

    given_now = vars(given) | {"data_dir": str(Path(given.data_dir).absolute())}
    if given.device == "cuda":
        resources = tune.with_resources(tune.with_parameters(trainable, given=given_now), {"cpu": 1, "gpu": 1 / 3})
    else:
        resources = tune.with_parameters(trainable, given=given_now)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WANDB_DIR"] = folder
        results = tune.Tuner(
            resources,
            param_space={"cell": tune.grid_search([tuple(cell) for cell in given.cells])},
            run_config=tune.RunConfig(storage_path=folder, callbacks=[WandbLoggerCallback(project="bench")]),
        ).fit()
    return {
        "DAE_{}_{}".format(*result.config["cell"]): result.metrics["test/loss"] for result in results if result.metrics
    }


class Empty(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        pass

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        return {"began": time.time(), "done": True}


def empty_trials(count: int) -> float:
    """Seconds from the beginning of one empty trial to that of the next, on reused actors, Tune's own loggers off."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "3600"}
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            Empty,
            param_space={"number": tune.grid_search(list(range(count)))},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
    began = sorted(result.metrics["began"] for result in results if result.metrics)
    return float(began[-1] - began[0]) / (count - 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=json.loads)
    parser.add_argument("--empty", type=int)
    parser.add_argument("--data-dir")
    parser.add_argument("--fraction", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False)
    found = {"cell_s": empty_trials(given.empty)} if given.empty else sweep(given)
    given.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
