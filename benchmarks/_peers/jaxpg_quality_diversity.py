"""Our MAP-Elites, PGA-MAP-Elites and DCRL-MAP-Elites at QDax's setting."""

import jaxpg
import jaxpg_envs
from jaxpg.experiment import use_cpu_devices
from jaxpg.training import advance


def prepare(row):
    """What the command line does before JAX wakes."""
    use_cpu_devices(row["devices"], linear_algebra=False)


def make_train(row):
    """`key -> (repertoire, metrics)`."""
    fields = {"num_cells": row["num_cells"], "num_offspring": row["num_envs"]}
    if row["env"] == "arm":
        env, params = jaxpg_envs.make("PlanarArm-v0", num_joints=row["num_joints"])
        fields |= {"controller": "open_loop"}
    else:
        options = {"backend": "spring", "max_steps_in_episode": row["episode_length"]}
        env, params = jaxpg_envs.make(f"brax/{row['env']}", **options)
        fields |= {"hidden_sizes": tuple(row["hidden_sizes"])}
    if "critic_steps" in row:
        fields |= {"critic_hidden_sizes": tuple(row["hidden_sizes"]), "batch_size": row["batch_size"]}
        fields |= {"critic_steps": row["critic_steps"], "policy_gradient_steps": row["policy_gradient_steps"]}
        fields |= {"buffer_size": row["buffer_size"]}
    algorithm = jaxpg.make(row["algorithm"], env, params, total_steps=10**9, **fields)

    def train(key):
        state, metrics = advance(algorithm.update, algorithm.init(key), row["num_updates"])
        return state.repertoire, metrics

    return train
