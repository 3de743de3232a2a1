#!/usr/bin/env bash
# optax 0.2.8, schedules of learning rates (on jax 0.10.2).
#
# Good guess:      `linear_schedule(1.0, 0.0, steps)` ends at 0 after `steps` steps, however many they are.
# What happens:    the step is counted in an int32 that stays at its largest number, 2**31 - 1, without a word. A rate that
#                  falls over 2**32 steps falls to a half and stays there. (The steps have to be given as a float: an int of
#                  that size raises when the schedule is called.)
# Do instead:      count something coarser (updates, not environment steps), or compute the rate yourself and pass it to
#                  `inject_hyperparams`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys

import jax.numpy as jnp
import optax

steps = 2.0**32
optimiser = optax.sgd(optax.linear_schedule(1.0, 0.0, steps))
state = optimiser.init(jnp.zeros(()))
state = optax.tree.set(state, count=jnp.int32(2**31 - 3))  # as after 2**31 - 3 updates
print("guess: the count goes on, and the rate falls below a half")
counts, rates = [], []
for _ in range(5):
    update, state = optimiser.update(jnp.ones(()), state)
    counts.append(int(optax.tree.get(state, "count")))
    rates.append(float(-update))
print("seen:  counts", [f"2**31 - {2**31 - count}" for count in counts], "rates", rates)
sys.exit(not (counts == [2**31 - 2] + [2**31 - 1] * 4 and rates[-1] == 0.5))
PYTHON
