"""GROOVE's own code, whose meta-training is in its repository alone (EmptyJackson/groove).

A checkout is expected in the folder `source` of the environment that `build.py` makes. What is compiled and timed is the whole
program of its `train.py`, as it is; how long agents live is set in its table of environments.
"""

import sys
import types
from pathlib import Path
from typing import Any

import measure as clock

SOURCE = Path(sys.prefix) / "source"


def measure(row):
    """Seconds to compile, and speeds over fewer meta-steps than ours: its antagonists are trained in each of them alike."""
    return clock.measure(sys.modules[__name__], row | {"num_updates": row["peer_updates"]}, is_ours=False)


def make_train(row):
    """`key -> (metrics, rule, buffer)`."""
    wandb: Any = types.ModuleType("wandb")  # imported only
    sys.modules["wandb"] = wandb
    sys.path[:0] = [str(SOURCE)]
    from environments.gridworld import configs
    from experiments.parse_args import parse_args
    from train import make_train

    configs.ENV_MODE_LIFETIME[row["levels"]] = lambda _: row["lifetime"]
    configs.ENV_MODE_LIFETIME_MAX[row["levels"]] = row["lifetime"]
    replays = row["algorithm"] == "groove"
    options = {"train_steps": row["num_updates"], "env_mode": row["levels"], "env_workers": row["agent_envs"]}
    options |= {"train_rollout_len": row["agent_steps"], "num_agents": row["num_agents"], "num_mini_batches": 1}
    options |= {"num_agent_updates": row["num_inner_updates"], "lpg_gru_width": row["rule_size"]}
    options |= {"lpg_target_width": row["num_bins"], "score_function": "alg_regret" if replays else "random"}
    options |= {"buffer_size": row["buffer_size"]}
    return make_train(parse_args([word for name, value in options.items() for word in (f"--{name}", str(value))]))
