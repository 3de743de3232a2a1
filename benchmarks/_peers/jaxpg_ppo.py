"""Our PPO at the peers' setting."""

import gymnax  # noqa: F401  (the peers import it before the clock starts, too)
import jax

import jaxpg
import jaxpg_envs
from jaxpg.training import advance


def make_train(env_id, num_envs, num_steps, num_epochs, num_minibatches, num_updates):
    """`key -> (learner, metrics)`."""
    env, params = jaxpg_envs.make(env_id)
    algorithm = jaxpg.make(
        "ppo",
        env,
        params,
        total_steps=num_envs * num_steps * num_updates,
        num_envs=num_envs,
        num_steps=num_steps,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        learning_rate=2.5e-4,
        entropy_coefficient=0.01,
        normalize_observations=False,
        normalize_rewards=False,
    )

    def train(key: jax.Array):
        state, metrics = advance(algorithm.update, algorithm.init(key), num_updates)
        return state.learner, metrics

    return train
