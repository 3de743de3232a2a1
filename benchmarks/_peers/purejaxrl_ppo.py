"""The loop of purejaxrl's PPO (luchris429/purejaxrl, `ppo.py`), expressed anew on gymnax 1.0's interface.

Its choices, kept: one function is the whole run; a key per environment and step; automatic reset inside the step; episode ends
of either kind are terminal; episode statistics of every step are returned; the batch is shuffled whole, by a sort, in every
epoch; separate actor and critic; per-leaf Adam with a linearly falling rate; a global-norm clip.
"""

import distrax
import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState


class Network(nn.Module):
    actions: int
    sizes: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x):
        dense = lambda size, gain: nn.Dense(size, kernel_init=nn.initializers.orthogonal(gain))
        activation = getattr(nn, self.activation)
        actor, critic = x, x
        for size in self.sizes:
            actor = activation(dense(size, np.sqrt(2))(actor))
        logits = dense(self.actions, 0.01)(actor)
        for size in self.sizes:
            critic = activation(dense(size, np.sqrt(2))(critic))
        return distrax.Categorical(logits=logits), dense(1, 1.0)(critic)[..., 0]


def make_train(row):
    """`key -> (final parameters, returns and flags of every step)`."""
    env, env_params = gymnax.make(row["env"])
    num_envs, num_steps, num_updates = row["num_envs"], row["num_steps"], row["num_updates"]
    num_epochs, num_minibatches = row["num_epochs"], row["num_minibatches"]
    batch_size = num_envs * num_steps
    gamma, gae_lambda, clip, entropy_weight, value_weight, rate = 0.99, 0.95, 0.2, 0.01, 0.5, 2.5e-4
    flat = lambda x: x.reshape(num_envs, -1)

    def train(key):
        network = Network(env.action_space(env_params).n, tuple(row["hidden_sizes"]), row["activation"])
        key, init_key, reset_key = jax.random.split(key, 3)
        schedule = lambda count: rate * (1.0 - (count // (num_minibatches * num_epochs)) / num_updates)
        optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule, eps=1e-5))
        size = int(np.prod(env.observation_space(env_params).shape))
        state = TrainState.create(apply_fn=network.apply, params=network.init(init_key, jnp.zeros(size)), tx=optimizer)
        observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), env_params)
        logged = (jnp.zeros(num_envs), jnp.zeros(num_envs))  # running return, return of the last complete episode

        def env_step(carry, _):
            state, env_state, observation, logged, key = carry
            key, act_key, step_key = jax.random.split(key, 3)
            policy, value = network.apply(state.params, flat(observation))
            action = policy.sample(seed=act_key)
            log_prob = policy.log_prob(action)
            following, env_state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(step_key, num_envs), env_state, action, env_params
            )
            done = terminated | truncated
            running = logged[0] + reward
            logged = (running * (1 - done), jnp.where(done, running, logged[1]))
            step = (done, action, value, reward, log_prob, flat(observation), (logged[1], done))
            return (state, env_state, following, logged, key), step

        def update(carry, _):
            carry, steps = jax.lax.scan(env_step, carry, None, num_steps)
            state, env_state, observation, logged, key = carry
            done, action, value, reward, log_prob, seen, info = steps
            last_value = network.apply(state.params, flat(observation))[1]

            def advantage(carry, step):
                following, next_value = carry
                done, value, reward = step
                delta = reward + gamma * next_value * (1 - done) - value
                following = delta + gamma * gae_lambda * (1 - done) * following
                return (following, value), following

            start = (jnp.zeros_like(last_value), last_value)
            advantages = jax.lax.scan(advantage, start, (done, value, reward), reverse=True, unroll=16)[1]
            batch = (seen, action, log_prob, value, advantages, advantages + value)
            batch = jax.tree.map(lambda x: x.reshape(batch_size, *x.shape[2:]), batch)

            def minibatch_step(state, minibatch):
                def loss(params):
                    seen, action, old_log_prob, old_value, advantages, targets = minibatch
                    policy, value = network.apply(params, seen)
                    clipped = old_value + (value - old_value).clip(-clip, clip)
                    value_loss = 0.5 * jnp.maximum(jnp.square(value - targets), jnp.square(clipped - targets)).mean()
                    ratio = jnp.exp(policy.log_prob(action) - old_log_prob)
                    normalized = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
                    gain = jnp.minimum(ratio * normalized, jnp.clip(ratio, 1 - clip, 1 + clip) * normalized).mean()
                    entropy = policy.entropy().mean()
                    return -gain + value_weight * value_loss - entropy_weight * entropy, (value_loss, gain, entropy)

                losses, gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
                return state.apply_gradients(grads=gradient), losses

            def epoch(carry, _):
                state, key = carry
                key, shuffle_key = jax.random.split(key)
                order = jax.random.permutation(shuffle_key, batch_size)
                shuffled = jax.tree.map(lambda x: jnp.take(x, order, axis=0), batch)
                minibatches = jax.tree.map(lambda x: x.reshape(num_minibatches, -1, *x.shape[1:]), shuffled)
                state, losses = jax.lax.scan(minibatch_step, state, minibatches)
                return (state, key), losses

            (state, key), losses = jax.lax.scan(epoch, (state, key), None, num_epochs)
            return (state, env_state, observation, logged, key), (info, losses)

        carry = (state, env_state, observation, logged, key)
        carry, (info, _) = jax.lax.scan(update, carry, None, num_updates)
        return carry[0].params, info

    return train
