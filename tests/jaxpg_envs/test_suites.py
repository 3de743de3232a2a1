"""What the contract in `test_conformance.py` does not say of the suites that are extras. How to run it: see there."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError
from jaxpg_envs.suites import SUITES

THEIR_NAMES = {
    "jumanji": lambda jumanji: jumanji.registered_environments(),
    "pgx": lambda pgx: pgx.available_envs(),
    "xminigrid": lambda xminigrid: xminigrid.registered_environments(),
    "playground": lambda playground: playground.dm_control_suite.ALL_ENVS,  # the others download their robots
}
LEFT_OUT = {
    "jumanji": {
        "Connector-v3",  # a reward for each agent
        "LevelBasedForaging-v0",  # a reward for each agent
        "SearchAndRescue-v0",  # a reward for each agent
        "MultiCVRP-v0",  # its action space has one node more than its mask
        "Sokoban-v0",  # downloads its levels
    },
    "pgx": {"sparrow_mahjong"},  # three players: a game may end before the agent's first turn
    "playground": {"ReacherEasy", "ReacherHard"},  # call a method that MuJoCo no longer has
}


def require(suite):
    package = {"playground": "mujoco_playground"}.get(suite, suite)
    return pytest.importorskip(package, reason=f"needs the extra jaxpg[{suite}]")


def play(env, params, key, actions):
    """The steps of one episode: a list of (observation, state, reward, terminated, truncated, info), and its start."""
    start, state = quick_jit(env.reset)(key, params)
    step = quick_jit(env.step_env)
    steps = []
    for action in actions:
        observation, state, reward, terminated, info = step(key, state, action, params)
        steps.append((observation, state, float(reward), bool(terminated), bool(env.is_truncated(state, params)), info))
    return start, steps


@pytest.mark.parametrize("suite", THEIR_NAMES)
def test_the_table_is_complete(suite):
    theirs = THEIR_NAMES[suite](require(suite))
    assert set(SUITES[suite]) == set(theirs) - LEFT_OUT.get(suite, set())


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_that_is_not_installed(suite, monkeypatch):
    monkeypatch.delitem(sys.modules, f"jaxpg_envs.{suite}_adapter", raising=False)
    for module in (suite, "craftax.craftax_env", "mujoco_playground"):
        monkeypatch.setitem(sys.modules, module, None)
    name = next(iter(SUITES[suite]))
    hint = re.escape(f".venv/bin/pip install -c requirements.lock -e '.[{suite}]'")  # as the README says it
    with pytest.raises(EnvironmentInputError, match=rf"^{suite}/{name} is not installed .*: in jaxpg's folder, {hint}$"):
        jaxpg_envs.make(f"{suite}/{name}")


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("jumanji/Maze-v0", {"time_limti": 3}, "refuses time_limti=3: .*unexpected keyword argument"),
        ("pgx/go_9x9", {"size": 5}, "unknown argument size; it takes opponent, max_steps_in_episode"),
        ("craftax/Craftax-Symbolic-v1", {"day_length": 5}, "unknown argument day_length; it takes max_steps_in_episode"),
        ("xminigrid/XLand-MiniGrid-R1-9x9", {}, r"refuses its defaults: it has no goal without a ruleset.*load_benchmark"),
        ("xminigrid/MiniGrid-Unlock", {"view": 5}, "refuses view=5: .*unexpected keyword argument"),
        ("playground/PointMass", {"ctrl": 5}, "refuses ctrl=5: .*ctrl"),
        (
            "playground/PointMass",
            {"action_repeat": 4},
            "refuses action_repeat=4: action_repeat is not supported; .* by ctrl_dt",
        ),
    ],
)
def test_wrong_arguments(id, kwargs, message):
    require(id.partition("/")[0])
    with pytest.raises(EnvironmentInputError, match=message):
        jaxpg_envs.make(id, **kwargs)


def flags(env, params, num_steps):
    """(terminated, truncated) at every step of an episode in which the agent does nothing but action 0."""
    _, steps = play(env, params, jax.random.key(0), [jnp.int32(0)] * num_steps)
    return [(terminated, truncated) for *_, terminated, truncated, _ in steps]


def test_jumanji_says_by_its_discount_whether_a_last_step_is_terminated():
    require("jumanji")
    goes_on, terminated, truncated = (False, False), (True, False), (False, True)
    env, params = jaxpg_envs.make("jumanji/Maze-v0", time_limit=3)
    assert flags(env, params, 3) == [goes_on, goes_on, terminated]
    assert flags(env, params.replace(max_steps_in_episode=2), 2) == [goes_on, truncated]

    class WithDiscount(type(env.jumanji)):
        def step(self, state, action):
            state, timestep = super().step(state, action)
            return state, timestep.replace(discount=jnp.ones_like(timestep.discount))

    env = type(env)(WithDiscount(time_limit=3), "maze")
    assert flags(env, params, 3) == [goes_on, goes_on, truncated]


def test_who_shows_the_time_limit_of_jumanji():
    jumanji = require("jumanji")
    limits = {}
    for name in SUITES["jumanji"]:
        env = jumanji.make(name)
        if hasattr(env, "time_limit"):
            limits[name] = env.time_limit, "step_count" in env.observation_spec._specs
    assert {name for name, (_, is_shown) in limits.items() if not is_shown} == {"PacMan-v1"}
    assert len(limits) == 10
    assert f"over after {limits['PacMan-v1'][0]} steps, which one does not see" in SUITES["jumanji"]["PacMan-v1"]


@pytest.mark.parametrize(
    ("name", "limit", "is_shown"),
    [
        ("go_9x9", 162, False),
        ("go_19x19", 722, False),
        ("shogi", 512, False),
        ("chess", 512, True),
        ("gardner_chess", 256, True),
        ("animal_shogi", 256, True),
        ("othello", None, False),
        ("hex", None, False),
    ],
)
def test_the_move_limits_of_pgx(name, limit, is_shown):
    """pgx terminates at a number of moves; the description says at which, and whether one sees it coming."""
    game = require("pgx").make(name)
    start = game.init(jax.random.key(0))
    action = jnp.argmax(start.legal_action_mask)

    def after(moves):
        inner = getattr(start, "_x", None)
        return (
            start.replace(_x=inner._replace(step_count=moves))
            if hasattr(inner, "step_count")
            else start.replace(_step_count=moves)
        )

    made = jnp.arange(1, 1001, 2)
    ended = quick_jit(jax.vmap(lambda moves: game.step(after(moves), action, jax.random.key(1)).terminated))(made)
    assert (int(made[jnp.argmax(ended)]) + 1 if ended.any() else None) == limit
    early, late = (np.asarray(game.observe(after(jnp.int32(moves)), start.current_player)) for moves in (4, 100))
    assert (early != late).any() == is_shown
    hint = "" if limit is None else f"; over after {limit} moves" + ("" if is_shown else ", which one does not see coming")
    assert SUITES["pgx"][name].partition(";")[2] == hint.removeprefix(";")


def test_jumanji_chance_is_the_key_of_the_step():
    require("jumanji")
    env, params = jaxpg_envs.make("jumanji/Game2048-v1")
    _, state = env.reset(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), 8)[jnp.array([0, 0, 1, 2, 3, 4])]
    boards = quick_jit(jax.vmap(env.step_env, (0, None, None, None)))(keys, state, jnp.int32(0), params)[0]["board"]
    assert (boards[0] == boards[1]).all()
    assert (boards != boards[0]).any()


def first_legal(key, observation, legal_action_mask):
    return jnp.argmax(legal_action_mask)


@pytest.mark.parametrize("opponent_begins", [False, True])
@pytest.mark.parametrize(
    ("actions", "last_reward"),
    [
        ([2, 4, 6], 1.0),  # a diagonal, while the opponent fills from the left of the top row
        ([8, 5, 6], -1.0),  # the opponent completes the top row
        ([4, 4], -1.0),  # a cell that is taken
    ],
)
def test_tic_tac_toe_against_the_first_legal_action(actions, last_reward, opponent_begins):
    require("pgx")
    env, params = jaxpg_envs.make("pgx/tic_tac_toe", opponent=first_legal)
    taken = lambda key: 9 - env.reset(key, params)[0]["legal_action_mask"].sum()
    keys = jax.random.split(jax.random.key(0), 10)
    key = next(key for key in keys if bool(quick_jit(taken)(key)) == opponent_begins)
    if opponent_begins and actions == [8, 5, 6]:
        actions = [8, 5]
    start, steps = play(env, params, key, [jnp.int32(action) for action in actions])
    assert start["legal_action_mask"].tolist() == [not opponent_begins] + [True] * 8
    *before, last = [(reward, terminated, truncated) for _, _, reward, terminated, truncated, _ in steps]
    assert before == [(0.0, False, False)] * (len(actions) - 1)
    assert last == (last_reward, True, False)
    mine, theirs = np.asarray(steps[0][0]["observation"]).reshape(9, 2).T  # seen by the agent, whoever began
    assert mine.nonzero()[0].tolist() == actions[:1]
    assert theirs.nonzero()[0].tolist() == ([0, 1] if opponent_begins else [0])


def test_the_random_opponent_plays_every_legal_action_equally_often():
    require("pgx")
    from jaxpg_envs.pgx_adapter import random_opponent

    mask = jnp.array([True, False, True, True])
    actions = jax.vmap(lambda key: random_opponent(key, mask, mask))(jax.random.split(jax.random.key(0), 3000))
    np.testing.assert_allclose(np.bincount(actions, minlength=4), [1000, 0, 1000, 1000], atol=4 * np.sqrt(3000 * 2 / 9))


def test_the_reward_at_a_grids_goal():
    require("xminigrid")
    env, params = jaxpg_envs.make("xminigrid/MiniGrid-Empty-5x5", max_steps_in_episode=50)
    forward, clockwise = jnp.int32(0), jnp.int32(1)
    _, steps = play(env, params, jax.random.key(0), [forward, forward, clockwise, forward, forward])
    assert [(reward, terminated) for _, _, reward, terminated, *_ in steps[:4]] == [(0.0, False)] * 4
    assert steps[4][2:5] == (pytest.approx(1 - 0.9 * 5 / 50), True, False)


def test_every_environment_of_a_batch_may_have_its_ruleset():
    require("xminigrid")
    from xminigrid.core.constants import Colors, Tiles
    from xminigrid.core.goals import AgentHoldGoal
    from xminigrid.core.rules import EmptyRule
    from xminigrid.types import RuleSet

    def hold(color):
        ball = jnp.array([Tiles.BALL, color], jnp.uint8)
        return RuleSet(AgentHoldGoal(ball).encode(), EmptyRule().encode()[None], ball[None])

    rulesets = [hold(color) for color in (Colors.RED, Colors.BLUE)]
    env, params = jaxpg_envs.make("xminigrid/XLand-MiniGrid-R1-9x9", ruleset=rulesets[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rulesets)
    reset = lambda ruleset: env.reset(jax.random.key(0), params.replace(suite=params.suite.replace(ruleset=ruleset)))[1]
    grids = np.asarray(quick_jit(jax.vmap(reset))(stacked).suite.state.grid)
    colors = [grid[grid[..., 0] == Tiles.BALL][:, 1].tolist() for grid in grids]
    assert colors == [[Colors.RED], [Colors.BLUE]]


def test_a_step_of_playground_leaves_the_state_it_is_given_alone():
    require("playground")
    env, params = jaxpg_envs.make("playground/CartpoleBalance")  # Playground writes into this one's `metrics`

    def step(state):
        before = dict(state.suite.metrics), dict(state.suite.info)
        env.step_env(jax.random.key(0), state, jnp.zeros(1), params)
        for mapping, held in zip((state.suite.metrics, state.suite.info), before, strict=True):
            assert all(mapping[name] is value for name, value in held.items())

    jax.eval_shape(step, jax.eval_shape(env.reset, jax.random.key(0), params)[1])
