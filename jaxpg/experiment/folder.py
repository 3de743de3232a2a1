"""The folder of a run or a sweep: its `config.json`, and whether it may be continued."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxpg.algorithm import InputError, fields, lookup, plain_value, shortest, still_read, written
from jaxpg.errors import counted
from jaxpg.experiment.files import (
    LARGEST_CONFIG,
    is_sealed,
    read_json,
    remove_remains,
    require_no_links,
    require_writable,
    write_atomically,
)

PACKAGES = ("jaxpg", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "brax", "mujoco-mjx", "numpy")
RUN_FILES = ("summary.json", "checkpoints", "metrics.jsonl")
BOUNDS = {"seed": (0, 2**32), "num_seeds": (1, 2**31), "num_devices": (1, 2**31)}
SUMMARY: dict[str, Any] = {
    "algorithm": str,
    "env": str,
    "seed": int,
    "num_seeds": int,
    "total_steps": int,
    "returns": list,
    "iqm_ci": list,
}
SUMMARY |= {"env_steps_per_second": int | float, "compile_seconds": int | float, "state_digest": str}
SUMMARY |= {"iqm": int | float | None, "initial_iqm": int | float | None}
_is_count = lambda x: type(x) is int and x > 0
_has = lambda x, kinds: isinstance(x, dict) and {name: type(value) for name, value in x.items()} == kinds
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "evaluation": lambda x: _has(x, {"every_steps": int, "episodes": int}) and all(map(_is_count, x.values())),
    "init_from": lambda x: _has(x, {"folder": str, "optimizer": bool}),
    "lengthened_from": lambda x: isinstance(x, list) and all(map(_is_count, x)),
    "env_source": lambda x: isinstance(x, dict) and all(isinstance(text, str) for text in x.values()),
}
PICTURES = ("curve.png", "behaviour.png", "behaviour.html", "experts.png", "repertoire.png", "sweep.png")


def describe(
    algorithm: str,
    env: str,
    env_options: dict[str, Any],
    seed: int,
    num_seeds: int,
    num_devices: int,
    config: Any,
) -> dict[str, Any]:
    """All that reproduces a run, for `config.json`; raises `InputError` if it cannot be written there."""
    try:
        json.dumps(env_options)
    except (TypeError, ValueError) as error:
        raise InputError(f"env_options must be values that JSON can hold, got {written(env_options)}: {error}") from error
    values = {}
    for field in fields(lookup(algorithm).config_class):
        values[field.name] = plain_value(field, getattr(config, field.name))
    return {
        "algorithm": algorithm,
        "env": env,
        "env_options": env_options,
        "seed": seed,
        "num_seeds": num_seeds,
        "num_devices": num_devices,
        "config": values,
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def kind_of(description: dict[str, Any]) -> str:
    """Whether a `config.json` is that of a run or of a sweep."""
    return "sweep" if "grid" in description else "run"


def read_description(folder: Path, kind: str = "run") -> dict[str, Any]:
    """The `config.json` of a run, or of a sweep.

    Raises:
      InputError: there is none, it is not one of ours, or it is of the other kind.
    """
    path = folder / "config.json"
    kinds = {"algorithm": str, "env": str, "seed": int, "num_seeds": int, "num_devices": int}
    kinds |= dict.fromkeys(("env_options", "config", "versions"), dict)
    try:
        description = read_json(path, LARGEST_CONFIG)
        if not isinstance(description, dict):
            raise ValueError("it is not a JSON object")
        faulty = [name for name, kind in sorted(kinds.items()) if not isinstance(description.get(name), kind)]
        faulty += [name for name, is_valid in OPTIONAL.items() if name in description and not is_valid(description[name])]
        faulty += [name for name in sorted(BOUNDS) if name not in faulty and not _is_within(description[name], *BOUNDS[name])]
        if faulty:
            raise ValueError(f"it has no valid {', '.join(faulty)}")
        values = description["config"].items()  # older files have all digits of a float32
        description["config"] = {name: shortest(value) if isinstance(value, float) else value for name, value in values}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} holds no {kind}: there is no config.json") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} was not written by jaxpg: {error}") from error
    if kind_of(description) != kind:
        raise InputError(f"{folder} holds a {kind_of(description)}, not a {kind}: choose another folder")
    return description


def check_folder(
    folder: Path, description: dict[str, Any], resume: bool, warn: Callable[[str], None], files: tuple[str, ...] = RUN_FILES
) -> dict[str, Any] | None:
    """Checks that a folder has nothing in it, or the run (or sweep) that is to be continued. Nothing on disk is changed.

    Args:
      files: what such a folder holds beside its `config.json`, the results first.

    Returns:
      The results, if there are any: the summary of a run that is complete.

    Raises:
      InputError: the folder cannot be made or used, holds another run, or holds a run and `resume` is not set.
    """
    config, results, kind = folder / "config.json", folder / files[0], kind_of(description)
    require_no_links(folder, ("config.json", "latest_checkpoint.json", "best", *files, *PICTURES))
    try:
        if config.exists():
            saved = read_description(folder, kind)
            if not resume:
                raise InputError(f"{folder} holds a {kind} already: continue it with --resume, or choose another --out")
            _require_same(saved, description, folder, warn)
            return _read_results(results) if results.exists() else None
        if any((folder / name).exists() for name in files):
            raise InputError(f"{folder} holds the remains of a {kind} without its config.json: choose another --out")
        require_writable(folder)
    except OSError as error:
        raise InputError(f"cannot read the output folder {folder}: {error}") from error
    return None


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes the `config.json` of a folder that `check_folder` has passed and that nobody else may write to.

    Of a continued run, what it may change: its devices, and its length if that grows.

    Raises:
      InputError: it cannot be written.
    """
    path = folder / "config.json"
    try:
        remove_remains(folder)
        saved = read_description(folder, kind_of(description)) if path.exists() else None
        if saved is not None:
            then, now = (each["config"].get("total_steps") for each in (saved, description))
            free = ("num_devices", "signature")
            if then == now and all(saved.get(name) == description.get(name) for name in free):
                return
            changed = {name: description[name] for name in free if name in description}
            changed["config"] = saved["config"] | description["config"]
            if then != now:
                description["lengthened_from"] = [*saved.get("lengthened_from", []), then]
                changed["lengthened_from"] = description["lengthened_from"]
            saved |= changed
        write_atomically(path, json.dumps(saved or description, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to the output folder {folder}: {error}") from error


def _is_within(value: Any, low: int, high: int) -> bool:
    return not isinstance(value, bool) and low <= value < high


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results = read_json(path)
        if not isinstance(results, dict):
            raise ValueError("it is not a JSON object")
        kinds = SUMMARY if path.name == RUN_FILES[0] else {}
        faulty = [name for name, kind in kinds.items() if not isinstance(results.get(name), kind)]
        if faulty:
            raise ValueError(f"it has no valid {', '.join(faulty)}")
        if not is_sealed(results):
            raise ValueError("its content does not match its checksum")
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): delete it, then continue with --resume") from error
    return results


def _require_same(saved: dict[str, Any], description: dict[str, Any], folder: Path, warn: Callable[[str], None]) -> None:
    """Raises `InputError` if a folder's run is another one; warns if it was begun with other versions."""
    kind = kind_of(saved)
    free = ("config", "versions", "num_devices", "lengthened_from", "signature")
    settings = [name for name in description if name not in free]
    read = still_read(description["algorithm"], description["config"])
    for old, new, names in ((saved, description, settings), (saved["config"], read, read)):
        for name in names:
            is_longer = kind == "run" and name == "total_steps" and old.get(name, math.inf) < new[name]
            if old.get(name) != new[name] and not is_longer:
                more = " or more" if kind == "run" and name == "total_steps" else ""
                raise InputError(
                    f"{folder} holds another {kind}: its {name} is {old.get(name)!r}, not {new[name]!r}; "
                    f"give the same{more}, or choose another --out"
                )
    if saved["num_devices"] != description["num_devices"]:
        devices = f"{counted(description['num_devices'], 'device')}, before {saved['num_devices']}"
        warn(f"{devices}: results may differ in the last bits")
    changed = [name for name, version in description["versions"].items() if saved["versions"].get(name) != version]
    if changed:
        warn(f"other versions than before of {', '.join(changed)}: results may differ in the last bits")
