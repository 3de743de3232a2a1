"""All algorithms, one file each, in a folder per field.

A file registers its algorithm, which bears the file's name, when it is imported, and that is when somebody asks for it.
"""

import importlib
import pkgutil

from jaxpg._lazy import import_when_used

MODULES = [module.name for module in pkgutil.walk_packages(__path__, f"{__name__}.") if not module.ispkg]


def import_algorithms(name: str | None = None) -> None:
    """Imports the files called `name`, or all."""
    for module in MODULES:
        if name is None or module.rpartition(".")[2] == name:
            importlib.import_module(module)


import_when_used(__name__)
