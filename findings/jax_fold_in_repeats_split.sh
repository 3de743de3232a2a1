#!/usr/bin/env bash
# jax 0.10.2, jax.random with the default generator (Threefry, `jax_threefry_partitionable` on).
#
# Good guess:      `fold_in(key, i)` and `split(key, n)` are two ways of deriving keys, so their keys differ.
# What happens:    `fold_in(key, i)` is `split(key, n)[i]` for every n and i < n. Code that splits a key and also folds small
#                  numbers into the same key draws the same numbers twice.
# Do instead:      use one of the two on a key. Where both are wanted, split first and fold into one of the parts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys

import jax

key, n = jax.random.key(7), 8
parts = jax.random.split(key, n)
same = [bool((jax.random.key_data(jax.random.fold_in(key, i)) == jax.random.key_data(parts[i])).all()) for i in range(n)]
print("guess: no fold_in(key, i) equals split(key, 8)[i]")
print("seen:  equal for i = 0, 1, ..., 7:", same)
print(
    "       normal draws with split(key, 8)[3] and fold_in(key, 3):",
    float(jax.random.normal(parts[3])),
    float(jax.random.normal(jax.random.fold_in(key, 3))),
)
own = jax.random.fold_in(parts[0], 3)
apart = not any(bool((jax.random.key_data(own) == jax.random.key_data(part)).all()) for part in parts)
print("       folded into a part of the split instead, it differs from all of them:", apart)
sys.exit(not (all(same) and apart))
PYTHON
