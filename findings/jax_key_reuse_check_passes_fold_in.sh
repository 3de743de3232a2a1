#!/usr/bin/env bash
# jax 0.10.2, the checker of key reuse (`jax_debug_key_reuse`).
#
# Good guess:      with the checker on, a key that was split, or drawn from, is used up, and any later use of it raises.
# What happens:    `fold_in` does not use a key up and accepts keys that are: `split(key)` and then `fold_in(key, 0)` passes,
#                  although it gives a key again that `split` has given. A second `split` raises as it should.
# Do instead:      do not take a silent checker as proof. Where a program folds into keys, search it for keys that are folded
#                  into and also split or drawn from.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys

import jax

jax.config.update("jax_debug_key_reuse", True)


def outcome(program):
    try:
        program(jax.random.key(0))
    except jax.errors.KeyReuseError:
        return "raises"
    return "passes"


def split_twice(key):
    jax.random.split(key)
    jax.random.split(key)


def split_then_fold_in(key):
    first, _ = jax.random.split(key)
    jax.random.normal(first)
    jax.random.normal(jax.random.fold_in(key, 0))


def draw_then_fold_in(key):
    jax.random.normal(key)
    jax.random.fold_in(key, 0)


programs = (split_twice, split_then_fold_in, draw_then_fold_in)
seen = {program.__name__: outcome(program) for program in programs}
print("guess:", {program.__name__: "raises" for program in programs})
print("seen: ", seen)
sys.exit(list(seen.values()) != ["raises", "passes", "passes"])
PYTHON
