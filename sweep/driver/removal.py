"""Cells taken out of a sweep, and back in. Their files wait in a folder of the sweep; the manifest keeps their keys."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from dae.errors import UserError
from sweep.records.grid import Cell, Grid
from sweep.records.sweep import MANIFEST, REMOVED, Manifest, gather, where
from sweep.storage.store import Store


def remove(store: Store, keys: Sequence[str]) -> Manifest:
    """Take cells out of the sweep; the caller holds it.

    Raises:
        UserError: one is not a cell of the sweep, or none would be left.
    """
    manifest = gather(store).manifest
    declared = {cell.key: cell for cell in manifest.grid.cells}
    _check(keys, {*declared, *manifest.removed}, manifest)
    left = Grid.of((cell for key, cell in declared.items() if key not in keys), manifest.grid.image)
    if not left.cells:
        raise UserError(f"{manifest.name} would have no cell left: delete the folder {store.uri()} to be rid of it.")
    removed = tuple(dict.fromkeys((*manifest.removed, *keys)))
    manifest = replace(manifest, grid=left, removed=removed)
    for key in keys:  # in an order that a kill leaves nothing lost and the same command completes
        _copy(store, f"cells/{key}", f"{REMOVED}/{key}")
    store.write(MANIFEST, manifest.to_bytes())
    for key in keys:
        _delete(store, f"cells/{key}")
    return manifest


def restore(store: Store, keys: Sequence[str]) -> Manifest:
    """Undo `remove`, of all cells where none is named; the caller holds the sweep.

    Raises:
        UserError: one was not removed.
    """
    manifest = gather(store).manifest
    keys = keys or manifest.removed
    _check(keys, manifest.removed, manifest)
    for key in keys:
        _copy(store, f"{REMOVED}/{key}", f"cells/{key}")
    manifest = replace(
        manifest,
        grid=manifest.grid.union(Grid.of(map(Cell.from_key, keys))),
        removed=tuple(key for key in manifest.removed if key not in keys),
    )
    store.write(MANIFEST, manifest.to_bytes())
    for key in keys:
        _delete(store, f"{REMOVED}/{key}")
    return manifest


def check_none_removed(grid: Grid, store: Store, removed: Collection[str]) -> None:
    """Refuse to train removed cells as if they were new.

    Raises:
        UserError: the grid has one.
    """
    if again := [cell.key for cell in grid.cells if cell.key in removed]:
        raise UserError(
            f"{', '.join(again)} {'was' if len(again) == 1 else 'were'} removed from this sweep. Leave out what was "
            "removed (without --depths, --latents, --seeds and --axis a command trains all that is left), or take it "
            f"back: dae-sweep remove {store.name} {' '.join(again)} --restore{where(store)}."
        )


def _check(keys: Sequence[str], known: Collection[str], manifest: Manifest) -> None:
    if unknown := [key for key in keys if key not in known]:
        shown = ", ".join(sorted(known)[:6]) + (", ..." if len(known) > 6 else "")
        raise UserError(f"{', '.join(unknown)} cannot be taken from {manifest.name}: there are {shown or 'none'}.")


def _copy(store: Store, source: str, target: str) -> None:
    names = [name for name in store.names(source) if not name.endswith("/")]
    contents = store.read_all(names)
    store.write_all({target + name.removeprefix(source): content for name, content in contents.items()})


def _delete(store: Store, folder: str) -> None:
    for name in store.names(folder):
        if not name.endswith("/"):
            store.delete(name)
    store.discard(folder)
