"""rejax's PPO, in the environment that `build.py` makes: rejax speaks gymnax's old interface."""

import jax
from rejax import get_algo


def make_train(row):
    """`key -> final state`."""
    total = row["num_envs"] * row["num_steps"] * row["num_updates"]
    sizes = {name: row[name] for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches")}
    algorithm = get_algo("ppo").create(
        env=row["env"],
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        learning_rate=2.5e-4,
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
        agent_kwargs={"activation": row["activation"], "hidden_layer_sizes": tuple(row["hidden_sizes"])},
        **sizes,
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())  # evaluation is not what is measured

    def train(key):
        return jax.tree.leaves(algorithm.train(key)[0].actor_ts.params)

    return train
