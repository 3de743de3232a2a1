"""No random key is used twice: what must be independent is drawn with keys of its own."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from environments import Cycle, Walk
from jax.errors import KeyReuseError
from jax.experimental.key_reuse._core import KeyReuseSignature, Sink, Source, check_key_reuse, key_reuse_signatures

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import REGISTRY
from jaxpg_envs.cave_escape import cave_escape
from jaxpg_envs.point_omni import PointOmni

# Which `vmap` puts before loops: the same keys in another order. The check takes what it does not know for used up.
key_reuse_signatures[jax.lax.transpose_p] = KeyReuseSignature(Sink(0), Source(0))

KEY = jax.random.key(0)
WALK, CYCLE, POINT, (CAVE, ONE) = Walk(), Cycle(3), PointOmni(), cave_escape(5, 12)
GRID = jaxpg_envs.make("GridWorlds-v0", levels="small")
ONLINE = {"num_envs": 4, "hidden_sizes": (4,), "total_steps": 8_000}
SEARCH = {"num_cells": 16, "num_offspring": 9, "hidden_sizes": (4,), "total_steps": 9 * 6 * 4}
DESIGN = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (4,), "memory": "none", "total_steps": 1_000_000, "num_minibatches": 1}
RULES = {"num_envs": 2, "num_steps": 3, "num_minibatches": 1, "lifetime": 2, "rule_size": 4, "num_bins": 3, "total_steps": 1000}
META = RULES | {"num_agents": 4, "num_inner_updates": 2, "bandit": True}
META |= {"remat": False}  # what is computed anew is drawn anew, with the same keys
META_LEARNERS = {"evolved_rule": RULES | {"num_pairs": 2}, "lpg": META, "groove": META | {"buffer_size": 8}}
SIZES = {"cma_me": {"num_emitters": 3}, "sfl": {"copies": 2}, "dred": {"generation": "edits", "buffer_size": 8}}
LEVELS = ONE.replace(level=jax.vmap(CAVE.sample_level)(jax.random.split(KEY, 6)))
CASES = [(name, {}) for name in sorted(REGISTRY)] + [
    ("dqn", {"prioritized": True, "n_step": 3}),
    ("ppo", {"memory": "lstm", "memory_size": 4, "num_minibatches": 2}),
    *(("pmoe_sac", {"estimator": estimator}) for estimator in ("gumbel", "score_ratio", "gating")),
]


def make(name, **fields):
    spec = REGISTRY[name]
    if spec.field == "quality_diversity":
        return jaxpg.make(name, POINT, POINT.default_params.replace(max_steps_in_episode=6), **SEARCH | SIZES.get(name, {}))
    if spec.field == "environment_design":
        return jaxpg.make(name, CAVE, LEVELS, **DESIGN | SIZES.get(name, {}))
    if name in META_LEARNERS:
        return jaxpg.make(name, *GRID, **META_LEARNERS[name] | fields)
    if "continuous" in spec.actions:
        return jaxpg.make(name, WALK, WALK.params(), **ONLINE | fields)
    return jaxpg.make(name, CYCLE, CYCLE.params([1.0, 0.0, -1.0], 4), **ONLINE | fields)


def test_the_check_finds_a_key_that_is_used_twice():
    def twice(key):
        return jax.lax.cond(True, jax.random.normal, jax.random.uniform, key) + jax.random.normal(key)

    with pytest.raises(KeyReuseError):
        check_key_reuse(twice, KEY)


@pytest.mark.parametrize(
    ("name", "fields"), CASES, ids=[" ".join([name, *map(str, fields.values())]) for name, fields in CASES]
)
def test_every_draw_of_an_algorithm_has_a_key_of_its_own(name, fields):
    """Within the first state, and within two updates in a row."""
    algorithm = make(name, **fields)
    check_key_reuse(algorithm.init, KEY)
    state = jax.eval_shape(algorithm.init, KEY)
    update = jax.jit(algorithm.update)  # traced once
    check_key_reuse(lambda state: update(update(state)[0]), state)


@pytest.mark.parametrize("name", ["ppo", "pmoe_ppo"])
def test_every_network_begins_with_a_key_of_its_own(name, monkeypatch):
    """`fold_in(key, i)` is `split(key)[i]`, which the check above does not know."""
    keys, original = [], nn.Module.init

    def init(module, key, *arguments, **named):
        if not isinstance(key, jax.core.Tracer):
            keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return original(module, key, *arguments, **named)

    monkeypatch.setattr(nn.Module, "init", init)
    algorithm = make(name, memory="gru", memory_size=4, num_minibatches=2)
    with jax.disable_jit():
        algorithm.init(KEY)
    assert len(keys) == len(set(keys)) == (5 if name == "pmoe_ppo" else 4)
    np.testing.assert_array_equal(
        jax.random.key_data(jax.random.fold_in(KEY, 1)), jax.random.key_data(jax.random.split(KEY)[1])
    )
