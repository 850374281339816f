"""Takes private names away from a process and all below it, by ``PYTHONPATH`` and ``DAE_SWEEP_WITHOUT``.

The dependencies use these names themselves, so it is our look-up that does not find them.
"""

import importlib.util
import os
import sys

NAMES = os.environ.get("DAE_SWEEP_WITHOUT", "").split(",")


class Finder:
    """Finds `dae.private`, and gives it another `lookup`."""

    def find_spec(self, name, folders, target=None):
        if name != "dae.private":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_replace(module):
            execute(module)
            lookup = module.lookup
            module.lookup = lambda path: None if path in NAMES or NAMES == ["all"] else lookup(path)

        spec.loader.exec_module = execute_and_replace
        return spec


if NAMES != [""]:
    sys.meta_path.insert(0, Finder())
