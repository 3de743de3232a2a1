"""PPO's return against brax's at the same number of environment steps, on its robots; how it is measured: `_peers/contest.py`.

The deterministic policy is evaluated, in our adapter of brax; episodes of 1,000 steps. brax trains with its own wrappers: an
environment returns to the same start after every episode, and the step at a time limit is left out of the loss. It rounds the
number of steps up to whole updates (its published batches are of 327,680 steps: it gets up to that many more than we).

"published" are the settings that brax's notebook gives for the robot (for 50 million steps), with brax's own networks. "Our
settings" as far as brax has them: it scales rewards by a constant, and its policy is a Gaussian squashed by tanh whose
deviation depends on the state. They are the best of nine that were tried on ant, once each, for 300,000 steps (annealed rate,
raw rewards, smaller rate, higher discount, no clipping, tanh, larger networks); brax's were not tuned.
"""

from typing import Any

from benchmarks._peers.contest import Contest, Peer, claims_of, hold
from benchmarks._runs import Task
from jaxpg.experiment.plots import Picture

SYSTEMS = {"ppo": ""}
SEEDS = {"smoke": 1, "small": 3, "full": 5}
OURS = {
    "num_envs": 128,
    "num_steps": 32,
    "num_epochs": 8,
    "num_minibatches": 8,
    "clip_values": True,
    "learning_rate": 5e-4,
    "discount": 0.97,
    "anneal_learning_rate": False,
    "hidden_sizes": (64, 64),
    "activation": "swish",
}
SAME = {
    "num_envs": 128,
    "unroll_length": 32,
    "batch_size": 16,  # sequences in a minibatch
    "num_updates_per_batch": 8,
    "num_minibatches": 8,
    "learning_rate": 5e-4,
    "discounting": 0.97,
    "gae_lambda": 0.95,
    "clipping_epsilon": 0.2,
    "entropy_cost": 0.0,
    "max_grad_norm": 0.5,
}
SAME_NETWORKS = {"policy_hidden_layer_sizes": (64, 64), "value_hidden_layer_sizes": (64, 64), "activation": "swish"}
PUBLISHED = {
    "ant": {
        "num_envs": 4096,
        "unroll_length": 5,
        "batch_size": 2048,
        "num_updates_per_batch": 4,
        "num_minibatches": 32,
        "learning_rate": 3e-4,
        "discounting": 0.97,
        "entropy_cost": 1e-2,
        "reward_scaling": 10,
    },
    "halfcheetah": {
        "num_envs": 2048,
        "unroll_length": 20,
        "batch_size": 512,
        "num_updates_per_batch": 8,
        "num_minibatches": 32,
        "learning_rate": 3e-4,
        "discounting": 0.95,
        "entropy_cost": 1e-3,
        "reward_scaling": 1,
    },
}


def contest(robot: str, steps: int = 2_000_000) -> Contest:
    """Both on one robot."""
    peers = {"brax, our settings": Peer("brax", SAME, SAME_NETWORKS)}
    if robot in PUBLISHED:
        peers["brax, published"] = Peer("brax", PUBLISHED[robot], {})
    task = Task(f"brax/{robot}", steps, env_options={"backend": "spring"}, hyperparameters=OURS)
    return Contest(task, peers, deterministic=True)


CONTESTS = {
    "smoke": [contest("inverted_pendulum", 40_000)],  # it compiles sooner than the others
    "small": [contest("ant")],
    "full": [contest("ant"), contest("halfcheetah")],
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every robot of the size."""
    return hold(CONTESTS[size], num_seeds)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of us beside the best peer; of short runs, only that all learned something."""
    return claims_of(results, compare=size != "smoke")
