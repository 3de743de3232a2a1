"""pgx's games behind gymnax's interface, against an opponent where there are more players than one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pgx
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jaxpg_envs.spaces import Dict
from jaxpg_envs.suite import SuiteEnvironment, SuiteParams, SuiteStep, unbounded

Opponent = Callable[[PRNGKeyArray, Array, Bool[Array, " action"]], Int[Array, ""]]


def random_opponent(key: PRNGKeyArray, observation: Array, legal_action_mask: Bool[Array, " action"]) -> Int[Array, ""]:
    """A legal action drawn uniformly."""
    return jax.random.categorical(key, jnp.where(legal_action_mask, 0.0, -jnp.inf))


class PgxEnvironment(SuiteEnvironment):
    """One pgx game seen by player 0 (see `SuiteEnvironment`).

    The other players are the environment: after each action, and at the start where another player begins, the
    opponent moves until it is player 0's turn. The reward is the sum of what player 0 gets on the way. Chance
    decides who begins.

    An observation is a dictionary of pgx's `observation` and `legal_action_mask`, an illegal action loses at
    once; in MinAtar's games every action is legal, and the observation is the array alone. Where the opponent
    ended the game, the final observation is that of the player to move.

    Some games have a limit of moves, the opponent's included, at which pgx terminates them: chess and shogi 512, gardner_chess
    and animal_shogi 256, Go twice its points. The two chesses and animal_shogi show in the observation how near it is; Go and
    shogi do not, so that their values cannot tell it from other ends.
    """

    def __init__(
        self, game: pgx.Env, name: str, opponent: Opponent = random_opponent, max_steps_in_episode: int = 10_000
    ) -> None:
        """An environment that follows gymnax's interface.

        Args:
            game: a pgx game.
            name: what `name` returns.
            opponent: maps key, observation and legal actions of the player to move to an action. It is part of
                the compiled program: close over its parameters.
            max_steps_in_episode: time limit in `default_params`, which truncates; pgx's own limits terminate.
        """
        self.game = game
        self._opponent = opponent
        self._shows_mask = not game.id.startswith("minatar")
        start = jax.eval_shape(game.init, jax.random.key(0))
        observation_space = unbounded(start.observation)
        if self._shows_mask:
            observation_space = Dict(
                {"observation": observation_space, "legal_action_mask": unbounded(start.legal_action_mask)}
            )
        action_space = spaces.Discrete(start.legal_action_mask.shape[0])
        super().__init__(name, action_space, observation_space, SuiteParams(max_steps_in_episode))

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        key, key_opponent = jax.random.split(key)
        state, _ = self._opponents_move(key_opponent, self.game.init(key))
        return self._observation(state), state

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        key, key_opponent = jax.random.split(key)
        state, reward = self._opponents_move(key_opponent, self.game.step(state, action, key))
        return SuiteStep(self._observation(state), state, reward, state.terminated, state.truncated)

    def _opponents_move(self, key: PRNGKeyArray, state: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        """The state where it is player 0's turn or the game is over, and player 0's rewards up to it."""
        if self.game.num_players == 1:
            return state, state.rewards[0]

        def is_their_turn(carry: tuple) -> Bool[Array, ""]:
            _, state, _ = carry
            return (state.current_player != 0) & ~state.terminated & ~state.truncated

        def move(carry: tuple) -> tuple:
            key, state, reward = carry
            key, key_opponent, key_game = jax.random.split(key, 3)
            action = self._opponent(key_opponent, state.observation, state.legal_action_mask)
            state = self.game.step(state, action, key_game)
            return key, state, reward + state.rewards[0]

        _, state, reward = jax.lax.while_loop(is_their_turn, move, (key, state, state.rewards[0]))
        return state, reward

    def _observation(self, state: PyTree) -> Any:
        return state if self._shows_mask else state.observation


def make(name: str, /, opponent: Opponent = random_opponent, max_steps_in_episode: int = 10_000) -> PgxEnvironment:
    """pgx's game `name`."""
    return PgxEnvironment(pgx.make(name), f"pgx/{name}", opponent, max_steps_in_episode)
