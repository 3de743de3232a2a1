"""PPO's return against rejax's at the same number of environment steps, on MinAtar; how it is measured: `_peers/contest.py`.

The stochastic policy is evaluated: it is what PPO optimises, and what rejax evaluates itself. rejax 0.1.3 trains with gymnax
0.0.9, in the environment that `python -m benchmarks._peers.build` makes (without it its rows are missing, and the results say
so); all policies are evaluated in gymnax 1.0. Breakout and Asterix are the same game in both: dynamics, rewards, starts, and a
time limit of 1,000 steps, which only 1.0 keeps apart from the end of the game, so that rejax cannot bootstrap there.

rejax publishes no tuned configuration for MinAtar; "published" is that of its speed comparison on Breakout, of one million
steps. "Our settings" are those published with gymnax (gymnax-blines, for ten million steps), with observations and rewards
normalised, as is our default, and a constant rate as there (with our annealed one Breakout came to 17.5 in a first run, and
then the rate was set as published). Both get them; what still differs: rejax clips the gradient element by element, and begins
with other random weights.
"""

from typing import Any

from benchmarks._peers.contest import Contest, Peer, claims_of, hold
from benchmarks._runs import Task
from jaxpg.experiment.plots import Picture

SYSTEMS = {"ppo": ""}
SEEDS = {"smoke": 1, "small": 3, "full": 5}
OURS = {
    "num_envs": 64,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 8,
    "clip_values": True,
    "learning_rate": 5e-4,
    "anneal_learning_rate": False,
    "discount": 0.999,
    "entropy_coefficient": 0.01,
    "hidden_sizes": (256, 256),
    "activation": "relu",
}
PUBLISHED = {
    "num_envs": 32,
    "num_steps": 32,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 0.00025674088686342003,
    "gamma": 0.995,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 1,
    "agent_kwargs": {"activation": "tanh"},
}
SAME = {
    "num_envs": 64,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 8,
    "learning_rate": 5e-4,
    "gamma": 0.999,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "normalize_observations": True,
    "normalize_rewards": True,
    "reward_normalization_discount": 0.999,
    "agent_kwargs": {"activation": "relu", "hidden_layer_sizes": (256, 256)},
}
PEERS = {"rejax, published": Peer("rejax", PUBLISHED, {}), "rejax, our settings": Peer("rejax", SAME, {})}


def contest(game: str, steps: int = 1_000_000) -> Contest:
    """All on one game."""
    return Contest(Task(f"{game}-MinAtar", steps, hyperparameters=OURS), PEERS, deterministic=False)


CONTESTS = {
    "smoke": [contest("Breakout", 20_000)],
    "small": [contest("Breakout"), contest("Asterix")],
    "full": [contest("Breakout"), contest("Asterix")],
}


def run(size: str, num_seeds: int) -> tuple[dict[str, Any], Picture]:
    """Every game of the size."""
    return hold(CONTESTS[size], num_seeds)


def claims(size: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of us beside the best peer; of short runs, only that all learned something."""
    return claims_of(results, compare=size != "smoke")
