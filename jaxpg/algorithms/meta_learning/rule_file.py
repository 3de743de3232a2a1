"""Update rules as files: arrays in `NAME.npz`, and beside it `NAME.json`, which says what they are and where they come from."""

import hashlib
import importlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxpg.algorithm import MOST_UNITS, InputError, unknown, whole_number
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule

SHIPPED = Path(__file__).parent / "rules"
FORMAT = "jaxpg update rule, 1"
TRAINERS = ("lpg", "groove", "evolved_rule")
WORDS = "lpg, groove or evolved_rule"


def save_rule(path: str | Path, rule: UpdateRule, params: PyTree, provenance: dict[str, Any]) -> None:
    """Writes `path.npz` and `path.json`.

    Args:
      params: of one rule, such as `state.rule` of `lpg`, `groove` and `evolved_rule`.
      provenance: how it was trained, for whoever reads the file: anything that JSON holds.

    Raises:
      InputError: these are no parameters of the rule.
    """
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in _by_name(params).items()}
    if not _fits(rule, arrays):
        raise InputError("save_rule: these are no parameters of one rule of these sizes: of several seeds, give one's")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    about = {
        "format": FORMAT,
        "hidden_size": rule.hidden_size,
        "num_bins": rule.num_bins,
        "temporally_aware": rule.temporally_aware,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "provenance": provenance,
    }
    text = json.dumps(about, indent=2) + "\n"
    described, data = _files(Path(path))
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(buffer.getvalue())
    described.write_text(text, encoding="utf-8")


def load_rule(where: str | Path) -> tuple[UpdateRule, PyTree]:
    """A rule and its parameters.

    Args:
      where: the name of one that jaxpg ships; the path of its files, without their ending; or the folder of a run of `lpg`,
        `groove` or `evolved_rule`, whose newest checkpoint is read: of several seeds, the first one's rule.

    Raises:
      InputError: there is no such rule, its files are damaged or something else, or the run trains none or has saved nothing.
    """
    path = SHIPPED / where if str(where) in shipped_rules() else Path(where)
    try:
        if all(file.is_file() for file in _files(path)):
            return _from_files(path)
        if (path / "config.json").is_file():
            return _from_run(path)
    except OSError as error:
        raise InputError(f"the rule {path} cannot be read: {error.strerror}") from error
    raise InputError(
        f"rule = {unknown(str(where), shipped_rules())}. A rule of your own is two files, .json and .npz, as save_rule writes "
        f"them, and named by their path without the ending, or by the folder of a run of {WORDS}; there is none at "
        f"{path.absolute()}, where it must stay for as long as a run that learns by it is to go on"
    )


def _from_files(path: Path) -> tuple[UpdateRule, PyTree]:
    described, data = _files(path)
    try:
        about = json.loads(described.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {FORMAT!r}")
        hidden_size, num_bins = (whole_number(name, about[name], 1, MOST_UNITS) for name in ("hidden_size", "num_bins"))
        if not isinstance(about["temporally_aware"], bool):
            raise ValueError("temporally_aware is neither true nor false")
        rule = UpdateRule(hidden_size, num_bins, about["temporally_aware"])
        content = data.read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{data.name} is not the file that it describes")
        if not zipfile.is_zipfile(io.BytesIO(content)):  # but a pickle, which numpy would advise to trust
            raise ValueError(f"{data.name} is no archive of arrays")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not _fits(rule, arrays):
            raise ValueError("its arrays are not those of a rule of these sizes")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("some of its numbers are not finite")
    except (ValueError, KeyError, TypeError, EOFError, RecursionError, InputError, zipfile.BadZipFile) as error:
        raise InputError(f"the rule {path} cannot be read: {error}: write it anew with save_rule") from error
    like = _shapes(rule)
    leaves = [jnp.asarray(arrays[name]) for name in _by_name(like)]
    return rule, jax.tree.unflatten(jax.tree.structure(like), leaves)


def _from_run(folder: Path) -> tuple[UpdateRule, PyTree]:
    # By its name, because experiments stand above algorithms.
    experiment = importlib.import_module("jaxpg.experiment")
    try:
        with jax.ensure_compile_time_eval():  # who learns by the rule may be made within a program
            run = experiment.load(folder, lambda text: print(f"jaxpg: warning: {text}", file=sys.stderr))
    except (InputError, experiment.RunError) as error:
        raise InputError(f"rule: {error}") from error
    name = run.description["algorithm"]
    if name not in TRAINERS:
        raise InputError(f"rule: {folder} holds a run of {name}, which trains none: give the folder of one of {WORDS}")
    config = run.algorithm.config
    rule = UpdateRule(config.rule_size, config.num_bins, config.temporally_aware)
    return rule, jax.tree.map(jnp.asarray, run.state().rule)


def shipped_rules() -> list[str]:
    """The names of the rules that come with jaxpg."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def _files(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}.json"), Path(f"{path}.npz")


def _shapes(rule: UpdateRule) -> PyTree:
    return jax.eval_shape(rule.initial, jax.random.key(0))


def _fits(rule: UpdateRule, arrays: dict[str, np.ndarray]) -> bool:
    expected = {name: (leaf.shape, leaf.dtype) for name, leaf in _by_name(_shapes(rule)).items()}
    return {name: (array.shape, array.dtype) for name, array in arrays.items()} == expected


def _by_name(params: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
