"""rejax's PPO, in the environment that `build.py` makes: rejax speaks gymnax's old interface."""

import jax
from rejax import get_algo


def make_train(env_id, num_envs, num_steps, num_epochs, num_minibatches, num_updates):
    """`key -> final state`."""
    total = num_envs * num_steps * num_updates
    algorithm = get_algo("ppo").create(
        env=env_id,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        num_envs=num_envs,
        num_steps=num_steps,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        learning_rate=2.5e-4,
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        ent_coef=0.01,
        vf_coef=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())  # evaluation is not what is measured

    def train(key):
        return jax.tree.leaves(algorithm.train(key)[0].actor_ts.params)

    return train
