"""rejax's SAC and TD3, in the environment that `build.py` makes: rejax speaks gymnax's old interface."""

import jax
from rejax import get_algo


def make_train(row):
    """`key -> final parameters`."""
    total = row["num_envs"] * row["num_updates"]
    relu = {"activation": "relu"}
    own: dict[str, dict] = {
        "sac": {"agent_kwargs": dict(relu), "hidden_layer_sizes": tuple(row["hidden_sizes"])},
        "td3": {  # whose hidden layers are two of 64 units whatever one asks for
            "actor_kwargs": dict(relu),
            "critic_kwargs": dict(relu),
            "policy_delay": 2,
            "exploration_noise": 0.1,
            "target_noise": 0.2,
            "target_noise_clip": 0.5,
        },
    }
    algorithm = get_algo(row["algorithm"]).create(
        env=row["env"],
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        num_envs=row["num_envs"],
        num_epochs=row["gradient_steps"],
        batch_size=row["batch_size"],
        buffer_size=row["buffer_size"],
        fill_buffer=row["learning_starts"],
        learning_rate=row["learning_rate"],
        gamma=0.99,
        polyak=0.995,
        **own[row["algorithm"]],
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())  # evaluation is not what is measured
    return lambda key: jax.tree.leaves(algorithm.train(key)[0].actor_ts.params)
