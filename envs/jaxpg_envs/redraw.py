"""Parameters that are drawn anew for every episode: levels, physics, tasks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Num, PRNGKeyArray, PyTree

from jaxpg_envs.auto_reset import reset_where_done, step_and_reset, strongly_typed, typed_like


class RedrawnState(NamedTuple):
    """The environment's own state, and the parameters and the context of its running episode."""

    env_state: PyTree
    params: PyTree
    context: PyTree


class Redrawn:
    """An environment whose automatic reset begins the next episode with new parameters.

    It has gymnax's interface; what is given to `reset` and `step` as parameters is the source that they are drawn from. The
    parameters of the running episode are part of the state, so that a batch of environments has as many, and an episode that
    a rollout interrupts goes on with its own. `info["context"]` says at every step what the draw said of them.

    Physics that differ from episode to episode (`jaxpg_envs.sample_params`):

        env = Redrawn(env, lambda key, params, *_: (sample_params(key, params, ranges), ()))
    """

    def __init__(self, env: Any, draw: Callable[[PRNGKeyArray, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]) -> None:
        """Wraps an environment.

        Args:
            env: with gymnax's interface; where it has `step_env`, `reset_env` and `is_truncated`, no reset is computed twice.
            draw: pure function `(key, source, params, context) -> (params, context)` of the last episode's parameters and
                context, which are None before the first episode. It is called at every step, so it should be cheap, and
                counts where the episode ends. Shapes and dtypes are those of the first draw.
        """
        self.env = env
        self._draw = draw

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def default_params(self) -> PyTree:
        return self.env.default_params

    def action_space(self, params: PyTree | None = None) -> Any:
        """That of the environment; `params` are such as it takes."""
        return self.env.action_space(params)

    def observation_space(self, params: PyTree) -> Any:
        """That of the environment; `params` are such as it takes."""
        return self.env.observation_space(params)

    @partial(jax.jit, static_argnames=("self",))
    def reset(self, key: PRNGKeyArray, params: PyTree) -> tuple[PyTree, RedrawnState]:
        """A start of the first episode: observation, state; `params` is the source."""
        draw_key, reset_key = jax.random.split(key)
        drawn, context = strongly_typed(self._draw(draw_key, params, None, None))
        observation, env_state = self.env.reset(reset_key, drawn)
        return observation, RedrawnState(env_state, drawn, context)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: PRNGKeyArray, state: RedrawnState, action: Array, params: PyTree
    ) -> tuple[PyTree, RedrawnState, Num[Array, ""], Bool[Array, ""], Bool[Array, ""], dict]:
        """As gymnax's, `params` being the source; `info["context"]` is that of the episode the step belongs to."""
        draw_key, key = jax.random.split(key)
        running = state.params, state.context
        following = typed_like(running, strongly_typed(self._draw(draw_key, params, *running)))
        if all(hasattr(self.env, method) for method in ("step_env", "reset_env", "is_truncated")):
            observation, env_state, reward, terminated, truncated, info = step_and_reset(
                self.env, key, state.env_state, action, state.params, following[0]
            )
        else:
            step_key, reset_key = jax.random.split(key)
            *stepped, reward, terminated, truncated, info = self.env.step(step_key, state.env_state, action, state.params)
            observation, env_state = reset_where_done(
                self.env.reset, terminated | truncated, reset_key, following[0], tuple(stepped)
            )
        # Only the parameters drawn, not the source, went to the reset, which copies what it is given for every row.
        done = terminated | truncated
        drawn = jax.tree.map(lambda new, old: jnp.where(done, new, old), following, running)
        return observation, RedrawnState(env_state, *drawn), reward, terminated, truncated, info | {"context": state.context}
