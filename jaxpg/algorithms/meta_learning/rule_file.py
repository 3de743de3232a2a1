"""Update rules as files: arrays in `NAME.npz`, and beside it `NAME.json`, which says what they are and where they come from."""

import hashlib
import io
import json
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


def save_rule(path: str | Path, rule: UpdateRule, params: PyTree, provenance: dict[str, Any]) -> None:
    """Writes `path.npz` and `path.json`.

    Args:
      params: of one rule, such as `state.rule` of `lpg` or `groove`.
      provenance: how it was trained, for whoever reads the file: anything that JSON holds.
    """
    path = Path(path)
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(leaf) for name, leaf in _by_name(params).items()})
    described = {
        "format": FORMAT,
        "hidden_size": rule.hidden_size,
        "num_bins": rule.num_bins,
        "temporally_aware": rule.temporally_aware,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "provenance": provenance,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".npz").write_bytes(buffer.getvalue())
    path.with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")


def load_rule(where: str | Path) -> tuple[UpdateRule, PyTree]:
    """A rule and its parameters, by the name of one that jaxpg ships, or by the path of its files, without their ending.

    Raises:
      InputError: there is no such rule, or its files are damaged or something else.
    """
    path = SHIPPED / where if str(where) in shipped_rules() else Path(where)
    described, data = path.with_suffix(".json"), path.with_suffix(".npz")
    if not (described.is_file() and data.is_file()):
        raise InputError(
            f"rule = {unknown(str(where), shipped_rules())}; a rule of your own is named by its path without the ending, and "
            "is two files, .json and .npz, as save_rule writes them"
        )
    try:
        about = json.loads(described.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {FORMAT!r}")
        sizes = {name: whole_number(name, about[name], 1, MOST_UNITS) for name in ("hidden_size", "num_bins")}
        if not isinstance(about["temporally_aware"], bool):
            raise ValueError("temporally_aware is neither true nor false")
        rule = UpdateRule(**sizes, temporally_aware=about["temporally_aware"])
        content = data.read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise ValueError(f"{data.name} is not the file that it describes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        like = jax.eval_shape(rule.initial, jax.random.key(0))
        expected = {name: (leaf.shape, leaf.dtype) for name, leaf in _by_name(like).items()}
        if {name: (array.shape, array.dtype) for name, array in arrays.items()} != expected:
            raise ValueError("its arrays are not those of a rule of these sizes")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("some of its numbers are not finite")
    except (OSError, ValueError, KeyError, TypeError, InputError, zipfile.BadZipFile) as error:
        raise InputError(f"the rule {path} cannot be read: {error}: write it anew with save_rule") from error
    leaves = [jnp.asarray(arrays[name]) for name in _by_name(like)]
    return rule, jax.tree.unflatten(jax.tree.structure(like), leaves)


def shipped_rules() -> list[str]:
    """The names of the rules that come with jaxpg."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def _by_name(params: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
