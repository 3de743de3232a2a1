"""Our PLR on random mazes, from the generator, at the peers' setting."""

import jaxpg
import jaxpg_envs
from jaxpg.experiment import use_cpu_devices
from jaxpg.training import advance


def prepare(row):
    """What the command line does before JAX wakes."""
    use_cpu_devices(row["devices"], linear_algebra=False)


def make_train(row):
    """`key -> (buffer, metrics)`."""
    env, params = jaxpg_envs.make("Maze-v0", size=row["size"])
    fields = {"num_envs": row["num_envs"], "num_steps": row["num_steps"], "memory_size": row["memory_size"]}
    fields |= {"buffer_size": row["buffer_size"], "levels": "generator", "score": "max_mc", "total_steps": 10**9}
    algorithm = jaxpg.make("plr", env, params, hidden_sizes=(32,), **fields)

    def train(key):
        state, metrics = advance(algorithm.update, algorithm.init(key), row["num_updates"])
        return state.memory, metrics

    return train
