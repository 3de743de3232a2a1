"""XLand-MiniGrid's environments behind gymnax's interface."""

from typing import Any

import xminigrid
from gymnax.environments import spaces
from jaxtyping import Array, PRNGKeyArray, PyTree
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from jaxpg_envs.suite import SuiteEnvironment, SuiteParams, SuiteStep


class XMiniGridEnvironment(SuiteEnvironment):
    """One MiniGrid or XLand-MiniGrid environment (see `SuiteEnvironment`).

    An observation is what the agent sees of the grid, a tile and a colour for each cell, uint8. The reward at the
    goal falls with the time as a part of `params.max_steps_in_episode`. `params.suite` are XLand-MiniGrid's
    parameters: sizes are fixed when the environment is made, but the `ruleset` of XLand, its goal, rules and
    objects, may differ between the environments of a batch. An episode ends at the first success: to remember over several
    trials, an agent would need a wrapper that makes one episode of them.
    """

    def __init__(self, grid: Any, grid_params: Any, name: str) -> None:
        """An environment that follows gymnax's interface.

        Args:
            grid: an unwrapped `xminigrid.environment.Environment`.
            grid_params: its parameters; their `max_steps` becomes `max_steps_in_episode` in `default_params`.
            name: what `name` returns.
        """
        self.grid = grid
        params = SuiteParams(grid_params.max_steps, grid_params.replace(max_steps=None))
        view = spaces.Box(0, max(NUM_TILES, NUM_COLORS) - 1, grid.observation_shape(grid_params), "uint8")
        super().__init__(name, spaces.Discrete(grid.num_actions(grid_params)), view, params)

    def reset_suite(self, key: PRNGKeyArray, params: SuiteParams) -> tuple[PyTree, PyTree]:
        timestep = self.grid.reset(_with_limit(params), key)
        return timestep.observation, timestep

    def step_suite(self, key: PRNGKeyArray, state: PyTree, action: Array, params: SuiteParams) -> SuiteStep:
        timestep = self.grid.step(_with_limit(params), state, action)
        return SuiteStep(timestep.observation, timestep, timestep.reward, timestep.last() & (timestep.discount == 0))


def _with_limit(params: SuiteParams) -> Any:
    return params.suite.replace(max_steps=params.max_steps_in_episode)


def make(name: str, /, max_steps_in_episode: int | None = None, **kwargs: Any) -> XMiniGridEnvironment:
    """XLand-MiniGrid's `name`; `kwargs` replace parameters of its own, such as `view_size` or `ruleset`.

    Raises:
        ValueError: an XLand environment has no `ruleset`, and so no goal.
    """
    if name.startswith("XLand") and "ruleset" not in kwargs:
        raise ValueError("it has no goal without a ruleset: ruleset=xminigrid.load_benchmark(...).sample_ruleset(key)")
    grid, params = xminigrid.make(name, **kwargs)
    params = params.replace(max_steps=max_steps_in_episode or params.max_steps)
    return XMiniGridEnvironment(grid, params, f"xminigrid/{name}")
