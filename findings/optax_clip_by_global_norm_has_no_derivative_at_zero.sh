#!/usr/bin/env bash
# optax 0.2.8, `clip_by_global_norm` (on jax 0.10.2).
#
# Good guess:      a gradient that is shorter than the bound passes through unchanged, so who differentiates through the step
#                  (meta-gradients, learned optimisers) finds the identity there, at zero as well.
# What happens:    the value is right, but the derivative at a gradient of zero is NaN: of the root in the norm, which the
#                  branch that was not taken brings along. One minibatch without a gradient (no reward, or everything cut off by
#                  PPO's clipping) makes a whole meta-gradient NaN. Next to zero it is the identity.
# Do instead:      differentiate through a bound that takes the root of a safe number where the norm fits, or give the
#                  transformation a derivative of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -I - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import optax

bound = optax.clip_by_global_norm(1.0)


def step(gradient):
    return bound.update(gradient, bound.init(gradient))[0]


zero, small = jnp.zeros(2), jnp.array([1e-3, 0.0])
at_zero, near = jax.jacobian(step)(zero), jax.jacobian(step)(small)
print("guess: the identity at both")
print("seen:  value at zero", step(zero), "derivative at zero", at_zero.tolist(), "and beside it", near.tolist())
sys.exit(not (bool((step(zero) == 0).all()) and bool(jnp.isnan(at_zero).all()) and bool(jnp.allclose(near, jnp.eye(2)))))
PYTHON
