"""Packages that import what they hold when it is first asked for.

`import jaxpg` would otherwise import every algorithm, and distrax with TensorFlow Probability behind it: seconds of processor
time, also for who only wants `jaxpg --help`.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def import_when_used(package: str, homes: dict[str, str] | None = None) -> None:
    """Makes a package find its modules, and the names in `homes`, when they are first used.

    Python allows a module another class for that, and its import system, with whatever hooks are installed, does the rest.

    Args:
      package: `__name__` of the package that calls this.
      homes: the module that each other public name comes from.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = homes or {}
    module.__class__ = _LazyPackage


class _LazyPackage(ModuleType):
    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:  # called for what is not there yet
        if name in self._homes:
            value = getattr(importlib.import_module(self._homes[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{self.__name__}.{name}"):
            value = importlib.import_module(f"{self.__name__}.{name}")
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module `jaxpg.experiment.run` may not hide the function of that name.
        if name not in self._homes or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *vars(self).get("__all__", ())})
