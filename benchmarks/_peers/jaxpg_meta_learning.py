"""Our GROOVE and LPG at the setting of GROOVE's code."""

import jax.numpy as jnp

import jaxpg
import jaxpg_envs
from jaxpg.experiment import use_cpu_devices
from jaxpg.training import advance


def prepare(row):
    """What the command line does before JAX wakes."""
    use_cpu_devices(row["devices"], linear_algebra=False)


def make_train(row):
    """`key -> (rule, metrics)`."""
    env, params = jaxpg_envs.make("GridWorlds-v0", levels=row["levels"])
    fields = {name: row[name] for name in ("num_agents", "num_inner_updates", "rule_size", "num_bins", "lifetime")}
    fields |= {"num_envs": row["agent_envs"], "num_steps": row["agent_steps"], "num_minibatches": 1}
    if row["algorithm"] == "groove":
        fields |= {"buffer_size": row["buffer_size"]}
    algorithm = jaxpg.make(row["algorithm"], env, params, total_steps=10**12, **fields)

    def train(key):
        state = algorithm.init(key)
        lives = state.lives  # they end one after the other, as many in each piece of a life as on average
        ages = row["lifetime"] - jnp.arange(1, row["num_agents"] + 1) * row["lifetime"] // row["num_agents"]
        lifetimes = jnp.full(row["num_agents"], row["lifetime"])
        state = state._replace(lives=lives._replace(lifetime=lifetimes, learner=lives.learner._replace(step=ages)))
        state, metrics = advance(algorithm.update, state, row["num_updates"])
        return state.rule, metrics

    return train
