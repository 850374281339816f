"""From the options of a command to settings, and what a user's own images say of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dae.config import check_dataset, default_training, kept_of
from dae.errors import UserError
from dae.images.location import absolute, exists, is_path, name_of
from sweep.records.grid import Settings
from sweep.records.sweep import Manifest


def is_given(option: str) -> bool:
    """Whether the command line, or the environment, says something of an option of the command that runs."""
    source = click.get_current_context().get_parameter_source(option)
    return source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


def settings_of(given: Mapping[str, Any], manifest: Manifest | None = None) -> Settings:
    """The settings among a command's options; what it does not say, the sweep's manifest says, else the defaults.

    Raises:
        UserError: a value is out of range.
    """
    if manifest is not None:
        values = {name: given[name] for name in Settings.__slots__ if is_given(name)}
        if source_of(given, manifest) is not None and manifest.dataset.get("source") is not None:
            values.pop("dataset", None)  # the images may lie elsewhere now: their fingerprint says which they are
        elif "dataset" in values:
            values["dataset"] = _dataset_name(given["dataset"])
        return replace(manifest.settings, **values)
    values = {name: given[name] for name in Settings.__slots__ if given.get(name) is not None}
    return Settings.usual(**values | {"dataset": _dataset_name(given["dataset"])})


def _dataset_name(text: str) -> str:
    """The name of a dataset, or the one that is made of the path of a user's own images.

    Raises:
        UserError: it is neither.
    """
    if not is_path(text):
        check_dataset(text)
    return name_of(text)


def source_of(given: Mapping[str, Any], manifest: Manifest | None) -> str | None:
    """Where a user's own images are: the path given, else the one that the sweep has recorded.

    None for a dataset with a name.
    """
    text = given["dataset"]
    if is_path(text) and (is_given("dataset") or manifest is None):
        return str(absolute(text))
    if manifest is None or (is_given("dataset") and text != manifest.settings.dataset):
        return None
    recorded = manifest.dataset.get("source")
    return None if recorded is None else str(recorded)


def skips_unreadable(given: Mapping[str, Any], manifest: Manifest | None) -> bool:
    """Whether files that are no images are left out: the command says so, or the sweep was begun so."""
    return given["skip_unreadable"] or (manifest is not None and bool(manifest.dataset.get("skip_unreadable")))


def with_images(
    settings: Settings,
    source: str | None,
    manifest: Manifest | None,
    *,
    skip_unreadable: bool = False,
    thorough: bool = False,
) -> Settings:
    """The settings with what a user's own images say: their size and, in a new sweep, a training for so many.

    Args:
        settings: those of the command and the sweep.
        source: where the images are; None for a dataset with a name.
        manifest: of the sweep that was begun.
        skip_unreadable: leave files out that are no images.
        thorough: look at the beginning of every file, where nobody reads the images afterwards.

    Raises:
        UserError: they are not there, cannot be used, or bring their own noise, and noise is asked for; or tiles are to
            be cut from images that are not a user's own.
    """
    if source is None:
        if settings.patch is not None:
            check_dataset(settings.dataset, settings.patch)
        return settings
    recorded = None if manifest is None else manifest.dataset.get("source")
    if source == recorded and not is_given("dataset") and not exists(Path(source)):
        raise UserError(
            f"the sweep was trained on the images in {source}, and there is no such file or folder now. Give --dataset "
            "with the path where they are."
        )
    from dae.images.source import describe

    facts = describe(source, settings.patch, skip_unreadable=skip_unreadable, thorough=thorough)
    if facts.has_noise and (asked := _noise_options()):
        raise UserError(
            f"{asked[0]} has no effect on {source}: it holds pairs, whose noisy images are its noise, and nothing is "
            "drawn. Leave it out, or give the folder of the clean images."
        )
    epochs = settings.epochs if is_given("epochs") else None
    images = kept_of(facts.training, settings.train_fraction)
    training = default_training(settings.dataset, epochs, images) if manifest is None else {}
    return replace(
        settings,
        image=str(facts.shape),
        **{name: value for name, value in training.items() if not is_given(name)},
    )


def _noise_options() -> list[str]:
    """The options of the command at hand that say something of the noise to draw."""
    given = click.get_current_context().params
    axes = [name for name, _values in given.get("axes", ())]
    space = [text.partition("=")[0].strip() for text in given.get("space", ())]
    return [
        *(f"--{name}" for name in ("alpha", "noise") if is_given(name)),
        *(f"--axis {name}" for name in axes if name in ("alpha", "noise")),
        *(f"--space {name}" for name in space if name in ("alpha", "noise")),
    ]
