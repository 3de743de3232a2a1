"""PLR of jaxued, whose loop is an example in its repository (DramaCow/jaxued, examples/maze_plr.py), not in its package.

A checkout is expected in the folder `source` of the environment that `build.py` makes. The example runs as it is, but for
its logs and its evaluations on held-out mazes, which would count as time otherwise: both are replaced by nothing.
"""

import contextlib
import itertools
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from measure import clock_of

SOURCE = Path(sys.prefix) / "source"


def measure(row):
    """Seconds to compile, and speeds of the intervals between two logs, each of `num_updates` updates."""
    sys.path[:0] = [str(SOURCE / "src")]
    clock, logged = clock_of(row), []
    wandb: Any = types.ModuleType("wandb")
    nothing = lambda *args, **kwargs: None

    def init(config, **kwargs):
        wandb.config = type("Config", (dict,), {"as_dict": lambda self: dict(self)})(config)
        return types.SimpleNamespace(finish=nothing, name="run")

    wandb.init, wandb.define_metric, wandb.Image, wandb.Video = init, nothing, nothing, nothing
    wandb.log = lambda *args, **kwargs: logged.append(clock())
    sys.modules["wandb"] = wandb
    name = "maze_plr"
    updates = row["num_updates"]
    sys.argv = [name, "--num_updates", str(updates * (row["repeats"] + 2)), "--eval_freq", str(updates)]
    sys.argv += ["--num_train_envs", str(row["num_envs"]), "--num_steps", str(row["num_steps"]), "--gae_lambda", "0.95"]
    sys.argv += ["--level_buffer_capacity", str(row["buffer_size"]), "--replay_prob", "0.5", "--exploratory_grad_updates"]
    sys.argv += ["--eval_num_attempts", "1", "--checkpoint_save_interval", "0", "--eval_levels", "SixteenRooms"]
    code = (SOURCE / "examples" / f"{name}.py").read_text()
    start, end = code.index("def evaluate_rnn("), code.index("def update_actor_critic_rnn(")
    namespace = {"__name__": "__main__"}
    no_evaluation = (
        "def evaluate_rnn(rng, env, env_params, train_state, hidden, obs, state, longest):\n"
        "    once = lambda x: x[None]\n"
        "    levels = jax.tree_util.tree_leaves(obs)[0].shape[0]\n"
        "    return jax.tree_util.tree_map(once, state), jnp.zeros((1, levels)), jnp.ones(levels, jnp.int32)\n\n"
    )
    code = code[:start] + no_evaluation + code[end:]
    started = clock()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(compile(code, name, "exec"), namespace)
    # Something is compiled in the first two intervals.
    first, second, *rest = (after - before for before, after in itertools.pairwise([started, *logged]))
    steps = updates * row["num_envs"] * row["num_steps"]
    return {"compile_seconds": first + second - 2 * min(rest), "speeds": [steps / s for s in rest]}
