"""Every algorithm under the flags by which people look for mistakes: `JAX_DEBUG_NANS=1 python tests/flags.py [NAME ...]`.

So with `JAX_ENABLE_X64=1` and `JAX_DISABLE_JIT=1`. Each algorithm is made, updated twice and evaluated, tiny; what fails is
printed, and the exit code says how many did. `make test-flags` runs them all.
"""

import os
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

# Compiling is most of what this costs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import numpy as np

import jaxpg
import jaxpg.experiment
import jaxpg_envs
from jaxpg_envs.cave_escape import cave_escape

JIT = not jax.config.jax_disable_jit
KEY = jax.random.key(0)
NUM_STEPS, NUM_ENVS = (8, 4) if JIT else (2, 2)  # without jit, each step costs a second

ON_POLICY = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "hidden_sizes": (8,), "total_steps": 1000}
MINIBATCHES = {"num_epochs": 2, "num_minibatches": 2} if JIT else {"num_epochs": 1, "num_minibatches": 1}
OFF_POLICY = {"num_envs": NUM_ENVS, "hidden_sizes": (8,), "buffer_size": 256, "batch_size": 4, "learning_starts": 4}
OFF_POLICY |= {"total_steps": 1000}
CURRICULUM = {**ON_POLICY, **MINIBATCHES, "memory": "none"}
VAE = {"vae_latent_size": 4, "vae_hidden_sizes": (16,), "vae_epochs": 1, "vae_batch_size": 8, "num_points": 2}
AGENTS = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "lifetime": 2, "rule_size": 4, "num_bins": 3, "num_minibatches": 1}
META = {**AGENTS, "num_agents": 3, "num_inner_updates": 2, "max_endings": 2}
REPERTOIRE = {"num_cells": 16, "num_offspring": 8, "hidden_sizes": (4,), "total_steps": 8 * NUM_STEPS * 10}
GRADIENTS = {"critic_hidden_sizes": (4,), "critic_steps": 2, "policy_gradient_steps": 2, "batch_size": 5}
SIZES = {
    "a2c": ON_POLICY,
    "accel": {**CURRICULUM, "buffer_size": 8},
    "cma_me": {**REPERTOIRE, "num_emitters": 2},
    "dcg_map_elites": {**REPERTOIRE, **GRADIENTS, "actor_hidden_sizes": (5,)},
    "dcrl_map_elites": {**REPERTOIRE, **GRADIENTS},
    "ddpg": OFF_POLICY,
    "domain_randomization": CURRICULUM,
    "dqn": OFF_POLICY,
    "dred": {**CURRICULUM, **VAE, "buffer_size": 14},
    "evolved_rule": {**AGENTS, "num_pairs": 2},
    "groove": {**META, "buffer_size": 4},
    "impala": ON_POLICY,
    "learned_rule": ON_POLICY,
    "lpg": {**META, "bandit": True},
    "map_elites": REPERTOIRE,
    "me_es": {**REPERTOIRE, "num_offspring": 9, "generations_per_elite": 2},
    "paired": {**CURRICULUM, "num_walls": 3},
    "pga_map_elites": {**REPERTOIRE, **GRADIENTS},
    "plr": CURRICULUM,
    "pmoe_ppo": {**ON_POLICY, **MINIBATCHES, "num_experts": 2},
    "pmoe_sac": {**OFF_POLICY, "num_experts": 2},
    "ppo": {**ON_POLICY, **MINIBATCHES},
    "pqn": {**ON_POLICY, **MINIBATCHES},
    "qr_dqn": OFF_POLICY,
    "reinforce": ON_POLICY,
    "robust_plr": {**CURRICULUM, "buffer_size": 8},
    "sac": OFF_POLICY,
    "sac_discrete": OFF_POLICY,
    "sfl": {**CURRICULUM, "buffer_size": 4, "period": 3, "copies": 2},
    "soft_option_critic": {**OFF_POLICY, "num_experts": 2},
    "td3": OFF_POLICY,
    "trpo": {**ON_POLICY, "num_minibatches": 2, "num_value_epochs": 1, "num_cg_iterations": 2, "num_backtracks": 2},
}


@cache
def environment(name):
    """One that the algorithm can act in, with episodes that end within few steps, and its params."""
    entry = jaxpg.REGISTRY[name]
    if entry.field == "environment_design":
        env, one = cave_escape(5, NUM_STEPS + 2)
        return env, one.replace(level=jax.vmap(env.sample_level)(jax.random.split(KEY, 10)))
    if entry.field == "quality_diversity":
        env, params = jaxpg_envs.make("PointOmni-v0")
        return env, params.replace(max_steps_in_episode=NUM_STEPS)
    if name in ("evolved_rule", "groove", "lpg"):
        env, params = jaxpg_envs.make("GridWorlds-v0", levels="small")
        return env, params.replace(level=params.level._replace(max_steps=jax.numpy.int32(NUM_STEPS)))
    env, params = jaxpg_envs.make("CartPole-v1" if "discrete" in entry.actions else "Pendulum-v1")
    return env, params.replace(max_steps_in_episode=NUM_STEPS + 2)  # in the first update none may be completed


def check(name):
    """Trains and evaluates; raises if anything is not as it should be."""
    env, params = environment(name)
    algorithm = jaxpg.make(name, env, params, **SIZES[name])
    if jaxpg.REGISTRY[name].field == "environment_design":
        params = params.replace(level=jax.tree.map(lambda x: x[0], params.level))

    def returns_of(state, deterministic):
        policy = algorithm.policy(state, deterministic)
        return jaxpg.evaluate(policy, env, params, KEY, num_episodes=2, max_steps=NUM_STEPS + 3)

    # Types are known before anything is compiled.
    start = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.update, start)
    assert types(after) == types(start), "the state changes its types"
    returns = jax.eval_shape(lambda state: returns_of(state, True), after)
    wide = [str(x.dtype) for x in jax.tree.leaves((after, metrics, returns)) if "64" in str(x.dtype)]
    assert not wide, wide
    if jax.config.jax_enable_x64:
        return
    state = algorithm.init(KEY)
    for _ in range(2 if JIT else 1):
        state, metrics = algorithm.update(state)
        for metric, value in metrics.items():
            assert np.isfinite(value) or metric.startswith("episode_"), f"{metric} is {value}"
    for deterministic in (True, False) if JIT else (True,):
        assert np.isfinite(returns_of(state, deterministic)).all()


def types(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


def check_train():
    """`jaxpg.train`, and a whole run that is saved, resumed and loaded."""
    env, params = environment("ppo")
    _, metrics = jaxpg.train(jaxpg.make("ppo", env, params, **SIZES["ppo"]), KEY, num_updates=2)
    assert np.isfinite(metrics["policy_loss"]).all()
    with tempfile.TemporaryDirectory() as folder:
        settings = {**SIZES["ppo"], "total_steps": 2 * NUM_ENVS * NUM_STEPS}
        out = Path(folder) / "run"
        summary = jaxpg.experiment.run("ppo", "CartPole-v1", out, num_seeds=2, **settings)
        assert np.isfinite(summary["returns"]).all()
        (out / "summary.json").unlink()
        again = jaxpg.experiment.run("ppo", "CartPole-v1", out, num_seeds=2, resume=True, **settings)
        assert again["state_digest"] == summary["state_digest"]
        jaxpg.experiment.evaluate_run(jaxpg.experiment.load(out), num_episodes=2)


def main(names):
    failures = 0
    for name in names or [*sorted(jaxpg.REGISTRY), "run"]:
        try:
            check_train() if name == "run" else check(name)
            print(f"{name}: passed", flush=True)
        except Exception:
            failures += 1
            print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
