#!/usr/bin/env bash
# orbax-checkpoint 0.12.8, `StandardSave` (on jax 0.10.2).
#
# Good guess:      a tree of arrays is saved whatever their shapes; an array without elements costs nothing.
# What happens:    one array with zero elements anywhere in the tree makes the save of the whole tree raise ValueError. States
#                  of simulators hold many such arrays: MJX has them for all that a model lacks.
# Do instead:      leave empty arrays out when saving, and make them again when loading: shape and dtype say all about them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys
import tempfile

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

checkpointer = ocp.Checkpointer(ocp.StandardCheckpointHandler())
tree = {"tendons": jnp.zeros((0, 3)), "weights": jnp.arange(3.0)}
print("guess: a tree with an array of shape (0, 3) is saved")
with tempfile.TemporaryDirectory() as folder:
    try:
        checkpointer.save(f"{folder}/whole", args=ocp.args.StandardSave(tree))
        refused = False
        print("seen:  it is")
    except ValueError as error:
        refused = "zero size" in str(error)
        print("seen:  ValueError:", error)

    leaves, structure = jax.tree.flatten(tree)
    full = {str(i): leaf for i, leaf in enumerate(leaves) if leaf.size}
    checkpointer.save(f"{folder}/without", args=ocp.args.StandardSave(full))
    saved = checkpointer.restore(f"{folder}/without", args=ocp.args.StandardRestore(full))
loaded = structure.unflatten(
    [saved[str(i)] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
)
print("       without it, and with it made again after loading:", loaded)
same = all(jax.tree.leaves(jax.tree.map(lambda a, b: a.shape == b.shape and bool((a == b).all()), loaded, tree)))
sys.exit(not (refused and same))
PYTHON
