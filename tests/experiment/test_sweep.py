"""Sweeps: what a configuration gets there is what it gets alone; groups are one program each; interrupted ones continue."""

import csv
import importlib
import json
import math
import shutil
from functools import partial

import commands
import jax
import numpy as np
import pytest
from checks import QUICK_COMPILE, assert_close, quick_jit, row
from commands import EVALUATION, PROGRAM, RUNNER, WALK, Command

import jaxpg
from jaxpg.algorithm import InputError
from jaxpg.experiment import RunError, plot_sweep, run, sweep
from jaxpg.experiment.evaluation import evaluation_keys
from jaxpg.experiment.files import is_sealed
from jaxpg.experiment.search_space import combine, draw
from jaxpg.experiment.sweep_picture import coordinate, value_text

COMMAND_LINE = importlib.import_module("jaxpg.experiment.command_line")
SWEEPER = importlib.import_module("jaxpg.experiment.sweep")
NUM_SEEDS = 3
SETTINGS = commands.SETTINGS | {"total_steps": 5 * 64, "anneal_learning_rate": False}
GRID = {"learning_rate": [1e-3, 1e38, 1e-2], "num_steps": [16, 32]}  # the second diverges
FLAGS = f"{commands.TINY} --total-steps {SETTINGS['total_steps']} --set.anneal-learning-rate False"


commands.register_walk()


@pytest.fixture(scope="module", autouse=True)
def quick_programs():
    """Compiles the programs of runs and sweeps without XLA's optimisations."""
    compile, returns, over_seeds = jax.stages.Lowered.compile, EVALUATION.mean_returns, PROGRAM.over_seeds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", lambda self: compile(self, compiler_options=QUICK_COMPILE))
        for module in (EVALUATION, SWEEPER):
            patch.setattr(module, "mean_returns", quick_jit(returns.__wrapped__, static_argnums=range(5)))
        for module in (PROGRAM, SWEEPER):
            patch.setattr(module, "over_seeds", lambda *args: quick_jit(over_seeds(*args).__wrapped__))
        yield


def sweep_walk(folder, **arguments):
    settings = {name: value for name, value in SETTINGS.items() if name not in arguments.get("grid", GRID)}
    return sweep("ppo", "SmallWalk", folder, **{"grid": GRID, "num_seeds": NUM_SEEDS, **settings, **arguments})


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def without_seconds(summary):
    return {
        **{name: value for name, value in summary.items() if name not in ("seconds", "best")},
        "results": [{name: value for name, value in result.items() if name != "seconds"} for result in summary["results"]],
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep of three learning rates in each of two groups, and how often its updates and steps were traced."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    traced = []
    with pytest.MonkeyPatch.context() as patch:
        advance = PROGRAM.advance
        patch.setattr(PROGRAM, "advance", lambda *args: traced.append(WALK.traces) or advance(*args))
        patch.setattr("jaxpg.algorithm.require_interface", lambda *_: None)  # which traces at every `make`
        before = WALK.traces
        sweep_walk(folder)
    return folder, [count - before for count in (*traced, WALK.traces)]


# --- The same as alone ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone():
    """`jaxpg.train` and `jaxpg.evaluate` of one configuration over all seeds: (learning_rate) -> states, returns."""
    settings = {**SETTINGS, "num_steps": GRID["num_steps"][0]}

    @quick_jit
    def train(learning_rate, keys, evaluation_keys):
        agent = jaxpg.make("ppo", WALK, WALK.params(), learning_rate=learning_rate, **settings)

        def of_seed(key, evaluation_key):
            state, _ = jaxpg.train(agent, key)
            policy = agent.policy(state)
            return state, jaxpg.evaluate(policy, WALK, WALK.params(), evaluation_key, SWEEPER.EVALUATION_EPISODES).mean()

        return jax.vmap(of_seed)(keys, evaluation_keys)

    return lambda learning_rate: train(
        learning_rate, jax.random.split(jax.random.key(0), NUM_SEEDS), evaluation_keys(0, NUM_SEEDS)
    )


@pytest.mark.parametrize("learning_rate", [1e-3, 1e-2])
def test_a_configuration_gets_what_it_gets_alone(finished, alone, learning_rate):
    hyperparameters = {"num_steps": 16, "learning_rate": learning_rate}
    (result,) = [r for r in read(finished[0])["results"] if r["hyperparameters"] == hyperparameters]
    returns = np.asarray(alone(learning_rate)[1])
    np.testing.assert_allclose(result["returns"], returns, rtol=1e-4)
    assert len(set(result["returns"])) == NUM_SEEDS
    assert result["iqm"] == pytest.approx(np.mean(returns), rel=1e-4)  # of three seeds, none is cut
    assert min(returns) - 1e-3 <= result["iqm_ci"][0] <= result["iqm"] <= result["iqm_ci"][1] <= max(returns) + 1e-3


def test_members_train_as_the_algorithm_does_alone(alone):
    build = partial(jaxpg.make, "ppo", WALK, WALK.params(), **{**SETTINGS, "num_steps": 16})
    agent = build()
    population = SWEEPER.population(build, agent)
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)[np.array([0, 1, 0, 1])]
    start = {"learning_rate": np.float32([1e-3, 1e-3, 1e-2, 1e-2])}, keys

    def train(start):
        return jax.lax.fori_loop(0, agent.num_updates, lambda _, m: population.update(m)[0], population.init(start))

    members = quick_jit(jax.vmap(train))(start)
    for place, (learning_rate, seed) in enumerate([(1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 1)]):
        assert_close(row(members.state, place), row(alone(learning_rate)[0], seed), rtol=1e-3, atol=1e-5)
        assert members.hyperparameters["learning_rate"][place] == np.float32(learning_rate)


def test_a_group_is_traced_once_whatever_the_number_of_configurations(finished):
    # One trace of the first update beforehand, then one of the update and one of the evaluation in each of two groups.
    assert finished[1] == [1, 3, 5]


def test_a_configuration_that_diverges_is_a_result(finished):
    results = read(finished[0])["results"]
    for result in results:
        if result["hyperparameters"]["learning_rate"] == 1e38:
            assert result["diverged"] == [0, 1, 2]
            assert result["returns"] == [None] * NUM_SEEDS
            assert (result["iqm"], result["iqm_ci"]) == (None, [None, None])
        else:
            assert result["diverged"] == []
            assert all(math.isfinite(x) for x in result["returns"])
    assert sum(result["iqm"] is None for result in results) == 2


def test_a_seed_that_diverges_takes_its_configurations_score():
    group = SWEEPER.Group(None, None, [4, 7], [{"discount": 0.5}, {"discount": 0.9}], {})
    returns, diverged = np.array([[1.0, math.nan], [3.0, 5.0]]), np.array([[False, True], [False, False]])
    first, second = SWEEPER._results(2, group, returns, diverged, 1.5)
    assert is_sealed(first)
    assert {name: value for name, value in first.items() if name != "checksum"} == {
        "configuration": 4,
        "group": 2,
        "hyperparameters": {"discount": 0.5},
        "iqm": None,
        "iqm_ci": [None, None],
        "returns": [1.0, None],
        "diverged": [1],
        "seconds": 1.5,
    }
    assert (second["iqm"], second["iqm_ci"], second["diverged"]) == (4.0, [3.0, 5.0], [])


def test_of_equal_scores_the_surer_is_better():
    scores = [(500.0, 300.0), (500.0, 490.0), (480.0, 480.0), (None, None)]
    results = [{"iqm": iqm, "iqm_ci": [low, 500.0]} for iqm, low in scores]
    assert [results.index(result) for result in sorted(results, key=SWEEPER.rank, reverse=True)] == [1, 0, 2, 3]


def test_on_two_devices_the_last_pair_is_repeated_and_dropped(finished, tmp_path):
    arguments = "--env SmallWalk --num-seeds 3 --num-devices 2 --grid.learning-rate 1e-2,1e-3,1e38 --json"  # nine pairs
    result = Command(f"sweep ppo {arguments} {FLAGS} --out {tmp_path / 'sweep'}", tmp_path, commands.compile_quickly).wait()
    assert result.code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == read(tmp_path / "sweep")
    expected = {r["hyperparameters"]["learning_rate"]: r["returns"] for r in read(finished[0])["results"] if r["group"] == 0}
    for found in summary["results"]:
        np.testing.assert_allclose(
            np.array(found["returns"], float), np.array(expected[found["hyperparameters"]["learning_rate"]], float), rtol=1e-4
        )
    assert [r["hyperparameters"]["learning_rate"] for r in summary["results"]] == [1e-2, 1e-3, 1e38]


# --- The folder -----------------------------------------------------------------------------------------------------------


def test_the_folder(finished):
    folder, _ = finished
    summary, config = read(folder), read(folder, "config.json")
    assert (summary["algorithm"], summary["env"], summary["num_seeds"]) == ("ppo", "SmallWalk", NUM_SEEDS)
    assert (summary["num_configurations"], summary["num_groups"]) == (6, 2)
    swept = [tuple(result["hyperparameters"].items()) for result in summary["results"]]
    assert swept == [(("num_steps", n), ("learning_rate", lr)) for n in (16, 32) for lr in (1e-3, 1e38, 1e-2)]
    assert summary["best"]["iqm"] == max(r["iqm"] for r in summary["results"] if r["iqm"] is not None)
    assert summary["seconds"] == pytest.approx(sum({r["group"]: r["seconds"] for r in summary["results"]}.values()))
    assert config["grid"] == GRID
    assert config["versions"]["jax"] == jax.__version__
    assert config["config"]["discount"] == 0.99
    assert not set(config["config"]) & set(GRID)
    with open(folder / "results.csv") as file:
        rows = list(csv.DictReader(file))
    for line, result in zip(rows, summary["results"], strict=True):
        named = {"iqm": result["iqm"], "iqm_low": result["iqm_ci"][0], "iqm_high": result["iqm_ci"][1]}
        named |= {f"return_{seed}": value for seed, value in enumerate(result["returns"])} | result["hyperparameters"]
        assert {name: np.float32(line[name]) if line[name] else None for name in named} == {
            name: None if value is None else np.float32(value) for name, value in named.items()
        }
        assert all(len(line[name]) <= 14 for name in named)  # no digits that a float32 does not have
        assert int(line["diverged"]) == len(result["diverged"])
    best = read(folder, "best.json")
    # The sweep's length stands apart: it is no hyperparameter of the run that follows.
    assert best["config"] | {"total_steps": best["total_steps"]} == config["config"] | summary["best"]["hyperparameters"]
    assert "total_steps" not in best["config"]
    assert (best["final"], best["finished_configurations"], best["num_configurations"]) == (True, 6, 6)
    assert (best["algorithm"], best["env"], best["iqm"]) == ("ppo", "SmallWalk", summary["best"]["iqm"])
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob("*.tmp"))


def test_the_best_configuration_reproduces_its_returns(finished, tmp_path):
    best = read(finished[0], "best.json")
    length = best["total_steps"]
    summary = run(best["algorithm"], best["env"], tmp_path / "run", num_seeds=NUM_SEEDS, total_steps=length, **best["config"])
    np.testing.assert_allclose(summary["returns"], best["returns"], rtol=1e-4)


# --- Interrupted ----------------------------------------------------------------------------------------------------------


def test_finished_groups_are_not_trained_again(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    train_group, trained = SWEEPER._train_group, []

    def interrupted(number, *arguments):
        trained.append(number)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_group(number, *arguments)

    monkeypatch.setattr(SWEEPER, "_train_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep_walk(folder)
    assert {result["group"] for result in read(folder)["results"]} == {0}
    assert read(folder)["num_configurations"] == 6
    best = read(folder, "best.json")
    assert (best["final"], best["finished_configurations"], best["num_configurations"]) == (False, 3, 6)
    assert (folder / "results.csv").read_text().count("\n") == 4
    with pytest.raises(InputError, match="holds a sweep already: continue it with --resume, or choose another --out"):
        sweep_walk(folder)
    summary = sweep_walk(folder, grid=dict(reversed(GRID.items())), resume=True)  # the order of the flags does not matter
    assert trained == [0, 1, 1]
    assert "6 configurations x 3 seeds in 2 groups, of which 1 are finished" in capsys.readouterr().err
    assert without_seconds(summary) == without_seconds(read(finished[0]))  # to the bit
    assert sweep_walk(folder, resume=True) == summary
    assert trained == [0, 1, 1]


@pytest.fixture
def copy_of_sweep(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"learning_rate": [1e-3], "num_steps": [16, 32]}}, r"its grid is .*1e\+38.*, not .*\[0\.001\]\}"),
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"num_seeds": 2}, "its num_seeds is 3, not 2"),
        ({"discount": 0.5}, r"its discount is 0\.99, not 0\.5"),
        ({"ranges": {"discount": (0.5, 0.9)}, "random": 2}, r"its ranges is \{\}, not .*discount.*"),
    ],
)
def test_another_sweep_is_refused(finished, monkeypatch, change, message):
    monkeypatch.setattr(SWEEPER, "_sweep", lambda *_: pytest.fail("it ran"))
    with pytest.raises(InputError, match=f"holds another sweep: {message}; give the same, or choose another --out"):
        sweep_walk(finished[0], resume=True, **change)


def test_runs_and_sweeps_do_not_mix(finished, tmp_path, jaxpg):
    of_run = {name: value for name, value in read(finished[0], "config.json").items() if name != "grid"}
    (tmp_path / "config.json").write_text(json.dumps(of_run))
    with pytest.raises(InputError, match="holds a run, not a sweep: choose another folder"):
        sweep_walk(tmp_path, resume=True)
    for command in (f"train ppo --env SmallWalk --resume --out {finished[0]}", f"evaluate {finished[0]}"):
        code, _, stderr = jaxpg(command)
        assert code == 2
        assert "holds a sweep, not a run: choose another folder" in stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"results": [{}]}', '{"results": 1}', "[" * 10**5])
def test_damaged_results_are_named(copy_of_sweep, text):
    (copy_of_sweep / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json .*: (delete it|put it elsewhere), then continue with --resume"):
        sweep_walk(copy_of_sweep, resume=True)


def of_configuration(saved, number):
    return next(result for result in saved["results"] if result["configuration"] == number)


WRONG_RESULTS = {
    "one is missing": (lambda saved: saved["results"].remove(of_configuration(saved, 1)), "group 1 is not there exactly once"),
    "one is doubled": (lambda saved: saved["results"].append(of_configuration(saved, 1)), "group 1 is not there exactly once"),
    "one is of no group": (lambda saved: of_configuration(saved, 1).update(group=7), "1 of 6 results are of no group"),
    "one is of another group": (lambda saved: of_configuration(saved, 1).update(group=1), "group 2 is not there exactly once"),
    "one is no object": (lambda saved: saved["results"].append([1]), "1 of 7 results are of no group of this sweep"),
    "other values": (lambda saved: of_configuration(saved, 1)["hyperparameters"].update(learning_rate=7), "group 1 is not"),
    "a return is missing": (lambda saved: of_configuration(saved, 1)["returns"].pop(), "group 1 is not there exactly once"),
    "a return is another": (lambda saved: of_configuration(saved, 0)["returns"].reverse(), "group 1 is not there exactly once"),
    "a score is a text": (lambda saved: of_configuration(saved, 1).update(iqm="8"), "group 1 is not there exactly once"),
}


@pytest.mark.parametrize("fault", WRONG_RESULTS)
def test_every_configuration_is_there_exactly_once(finished, copy_of_sweep, monkeypatch, capsys, fault):
    expected, trained = read(finished[0]), []

    def train_group(number, *_):
        trained.append(number)
        return [result for result in expected["results"] if result["group"] == number]

    monkeypatch.setattr(SWEEPER, "_train_group", train_group)
    monkeypatch.setattr(SWEEPER, "plot_sweep", lambda *_: None)
    saved = read(copy_of_sweep)
    change, message = WRONG_RESULTS[fault]
    change(saved)
    (copy_of_sweep / "results.json").write_text(json.dumps(saved))
    assert without_seconds(sweep_walk(copy_of_sweep, resume=True)) == without_seconds(expected)
    assert message in capsys.readouterr().err
    touched = {result["group"] for result in expected["results"] if of_configuration(saved, 0) and result["configuration"] == 1}
    assert trained == {"one is of another group": [0, 1], "one is no object": []}.get(fault, sorted(touched))
    assert read(copy_of_sweep, "results.damaged.json") == saved


def test_a_disk_that_is_full(copy_of_sweep, monkeypatch):
    for place, message in (("write_atomically", "files could not be written"), ("plot_sweep", "all results are saved, but")):
        with monkeypatch.context() as patch:
            error = OSError(28, "No space left on device") if place == "write_atomically" else InputError("cannot write")
            patch.setattr(SWEEPER, place, lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(RunError, match=f"{message}.* --resume"):
                sweep_walk(copy_of_sweep, resume=True)


def test_a_group_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(SWEEPER, "compile_step", full)
    with pytest.raises(RunError, match=r"3 configurations x 3 seeds at a time do not fit: give more devices"):
        sweep_walk(tmp_path / "sweep")


# --- Random search --------------------------------------------------------------------------------------------------------


def test_draws_are_uniform_or_log_uniform():
    ranges = {"learning_rate": [1e-5, 1e-1, "log"], "discount": [0.9, 0.98]}
    draws = draw(ranges, 2000, seed=3)
    for name, scale in (("learning_rate", np.log), ("discount", np.asarray)):
        values = np.array([draw[name] for draw in draws])
        low, high = ranges[name][:2]
        assert low <= values.min() < values.max() <= high
        uniform = np.sort((scale(values) - scale(low)) / (scale(high) - scale(low)))
        assert np.abs(uniform - (np.arange(2000) + 0.5) / 2000).max() < 1.63 / math.sqrt(2000)  # Kolmogorov-Smirnov at 1 %
    assert abs(np.corrcoef([list(draw.values()) for draw in draws], rowvar=False)[0, 1]) < 0.1
    assert draws == draw(ranges, 2000, seed=3)
    assert draws != draw(ranges, 2000, seed=4)


def test_every_combination_of_the_grid_gets_the_same_draws():
    draws = draw({"discount": [0.5, 0.9]}, 3, seed=0)
    configurations = combine({"num_envs": [4, 8], "activation": ["tanh"]}, draws)
    assert configurations == [{"num_envs": n, "activation": "tanh", **draw} for n in (4, 8) for draw in draws]


# --- Mistakes -------------------------------------------------------------------------------------------------------------

SWEEP = "sweep ppo --env CartPole-v1 --out out"
RULES = "sweep learned_rule --env CartPole-v1 --out out"
MISTAKES = {
    "sweep": ["jaxpg sweep needs an algorithm first"],
    "sweep pppo --env CartPole-v1 --out out": ["unknown algorithm 'pppo'", "did you mean 'ppo'"],
    SWEEP: ["a sweep needs a grid or ranges", "--grid.FIELD a,b,c"],
    "sweep ppo --env CartPol-v1 --out out --grid.discount 0.9": ['did you mean "CartPole-v1"'],
    f"{SWEEP} --grid.lerning-rate 1,2": ["--grid.lerning-rate", "--grid.learning-rate"],
    f"{SWEEP} --grid.learning-rate fast,1": ["ppo: learning_rate must be a number, got 'fast'"],
    f"{SWEEP} --grid.learning-rate 1,,2": ["ppo: learning_rate must be a number, got ''"],
    f"{SWEEP} --grid.learning-rate 1,-1": ["ppo: learning_rate must lie in [0, inf), got -1"],
    f"{SWEEP} --grid.learning-rate ''": ["the grid of learning_rate is empty"],
    f"{SWEEP} --grid.learning-rate 1e-3,0.001": ["the grid of learning_rate has 0.001 twice"],
    f"{SWEEP} --grid.hidden-sizes 64x64,32,64x64": ["the grid of hidden_sizes has 64x64 twice"],
    f"{SWEEP} --grid.hidden-sizes '64 64'": ["hidden_sizes must be a sequence of integers, got '64 64'"],
    f"{SWEEP} --grid.num-envs 4,2.5": ["ppo: num_envs must be a whole number, got 2.5"],
    f"{SWEEP} --grid.num-envs 4,0": ["ppo: num_envs must be at least 1, got 0"],
    f"{SWEEP} --grid.activation tanh,gelu": ["activation cannot be 'gelu'", "relu, swish, tanh"],
    f"{RULES} --grid.rule grid_worlds,3": ["rule = '3'; There is: grid_worlds"],
    f"{RULES} --grid.rule grid_worlds,": ["learned_rule: rule must be a text of printable letters, got ''"],
    f"{RULES} --grid.rule x,x": ["learned_rule: the grid of rule has x twice"],
    f"{RULES} --random 2 --range.rule a,b": ["--range.rule is not real-valued: give a grid of it, --grid.rule a,b,c"],
    f"{SWEEP} --grid.normalize-rewards yes": ["normalize_rewards must be True or False, got 'yes'"],
    f"{SWEEP} --grid.num-minibatches 8,7": ["does not divide into num_minibatches = 7; the nearest that does is 8"],
    f"{SWEEP} --grid.discount 0.9 --set.discount 0.8": ["discount has both a grid and a fixed value"],
    f"{SWEEP} --grid.discount 0.9 --random 3 --range.discount 0.5,0.9": ["discount has both a grid and a range"],
    f"{SWEEP} --random 3 --range.discount 0.5,0.9 --set.discount 0.8": ["discount has both a range and a fixed value"],
    f"{SWEEP} --random 3 --range.num-envs 4,8": ["--range.num-envs is not real-valued", "--grid.num-envs a,b,c"],
    f"{SWEEP} --random 3": ["--random draws from ranges, and there are none"],
    f"{SWEEP} --range.discount 0.5,0.9": ["ranges need a number of draws: --random N"],
    f"{SWEEP} --random 0 --range.discount 0.5,0.9": ["the number of random draws must be at least 1, got 0"],
    f"{SWEEP} --random 3 --range.discount 0.9": ["the range of discount must be low,high or low,high,log, got 0.9"],
    f"{SWEEP} --random 3 --range.discount 0.5,0.9,lin": ["must be low,high or low,high,log, got 0.5,0.9,lin"],
    f"{SWEEP} --random 3 --range.discount 0.9,0.5": ["must have low < high, got 0.9,0.5"],
    f"{SWEEP} --random 3 --range.discount 0,0.9,log": ["is logarithmic and must lie above 0, got 0.0,0.9,log"],
    f"{SWEEP} --random 3 --range.discount 0.5,2": ["ppo: discount must lie in [0, 1], got 2"],
    f"{SWEEP} --grid.discount 0.9 --num-seeds 0": ["num_seeds", "at least 1", "got 0"],
    f"{SWEEP} --grid.discount 0.9 --num-devices 0": ["devices must be at least 1, got 0"],
    f"{SWEEP} --grid.discount 0.9 --seed -1": ["seed must be at least 0, got -1"],
    f"{SWEEP} --grid.discount 0.9 --total-steps 0": ["--total-steps must be at least 1, got 0"],
    "sweep ppo --env CartPole-v1 --out a-file --grid.discount 0.9": ["cannot write to the output folder a-file"],
    "train ppo --env CartPole-v1 --out out --config nowhere": ["--config: cannot read nowhere: No such file"],
    "train ppo --env CartPole-v1 --out out --config a-file": ["a-file is no configuration: give a sweep's best.json"],
    "train ppo --env CartPole-v1 --out out --config other.json": ["a configuration of 'pmoe_ppo', not of 'ppo'"],
    "train ppo --env CartPole-v1 --out out --config typo.json": ["no hyperparameter 'discont'; did you mean 'discount'"],
    "train ppo --env CartPole-v1 --out out --config bad.json": [
        "--config: bad.json: ppo: num_envs must be a whole number, got 'many'"
    ],
    "train ppo --env CartPole-v1 --out out --config": ["--config"],
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_named_with_what_is_allowed(arguments, jaxpg, tmp_path, monkeypatch):
    monkeypatch.setattr(SWEEPER, "_sweep", lambda *_: pytest.fail("it ran"))
    (tmp_path / "a-file").write_text("")
    for name, algorithm, config in (
        ("other", "pmoe_ppo", {}),
        ("typo", "ppo", {"discont": 0.9}),
        ("bad", "ppo", {"num_envs": "many"}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"algorithm": algorithm, "config": config}))
    before = sorted(tmp_path.rglob("*"))
    code, _, stderr = jaxpg(arguments)
    said = " ".join("".join(" " if letter in "│╭╮╰╯─" else letter for letter in stderr).split())
    assert code == 2
    for words in MISTAKES[arguments]:
        assert words in said
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_mistakes_from_python(tmp_path):
    for arguments, message in (
        ({"grid": {"discout": [0.9]}}, "no hyperparameter 'discout'; did you mean 'discount'"),
        ({"grid": {"discount": jax.numpy.array([0.9, 0.5, 0.9])}}, r"the grid of discount has 0\.9 twice"),
        ({"grid": {"discount": 0.9}}, "the grid of discount must be a sequence of values, got 0.9"),
        ({"grid": {"activation": "tanh"}}, "the grid of activation must be a sequence of values, got 'tanh'"),
        ({"ranges": {"num_envs": (4, 8)}, "random": 2}, r"num_envs is not real-valued, .* --grid\.num-envs a,b,c"),
        ({"ranges": {"discount": "0.5,0.9"}, "random": 2}, "the range of discount must be low,high"),
        ({"ranges": {"discount": 0.5}, "random": 2}, "the range of discount must be low,high or low,high,log, got 0.5"),
        (
            {"grid": {"discount": [0.5]}, "num_devices": 2},
            "num_devices = 2 is more than a program's 1 configuration x 1",
        ),
    ):
        with pytest.raises(InputError, match=message):
            sweep("ppo", "CartPole-v1", tmp_path / "sweep", **arguments)
    assert not (tmp_path / "sweep").exists()


# --- The command line -----------------------------------------------------------------------------------------------------


def test_the_texts_of_a_grid_become_values(jaxpg, monkeypatch, finished):
    called = {}
    monkeypatch.setattr(SWEEPER, "sweep", lambda *args, **kwargs: called.update(kwargs) or read(finished[0]))
    code, stdout, _ = jaxpg(
        f"{SWEEP} --grid.num-envs 4,8 --grid.hidden-sizes 64x64,32 --grid.normalize-rewards True,False "
        "--grid.activation relu,tanh --random 5 --range.learning-rate 1e-5,1e-2,log --set.gae-lambda 0.9 "
        "--total-steps 100 --num-seeds 4"
    )
    assert code == 0
    expected = {"num_envs": [4, 8], "hidden_sizes": [[64, 64], [32]], "activation": ["relu", "tanh"]}
    assert called["grid"] == expected | {"normalize_rewards": [True, False]}
    assert (called["ranges"], called["random"]) == ({"learning_rate": [1e-5, 1e-2, "log"]}, 5)
    assert (called["gae_lambda"], called["total_steps"], called["num_seeds"]) == (0.9, 100, 4)
    assert "discount" not in called
    assert "6 configurations x 3 seeds in 2 programs" in stdout
    assert stdout.count("3 diverged") == 2
    best = read(finished[0])["best"]
    swept = best["hyperparameters"]
    expected = [str(swept["num_steps"]), value_text(swept["learning_rate"]), f"{best['iqm']:,.1f}"]
    assert stdout.splitlines()[2].split()[:3] == expected
    assert "best.json" in stdout


def test_help(jaxpg):
    code, stdout, stderr = jaxpg("sweep ppo --help")
    assert (code, stderr) == (0, "")
    for words in ("--grid.learning-rate", "--grid.hidden-sizes", "--range.learning-rate", "--random", "--set.num-envs"):
        assert words in stdout
    assert "--range.num-envs" not in stdout
    assert jaxpg("sweep --help")[0] == 0


def test_a_run_takes_the_best_configuration(jaxpg, monkeypatch, finished):
    called = {}
    monkeypatch.setattr(RUNNER, "run", lambda *args, **kwargs: called.update(kwargs) or {})
    best = finished[0] / "best.json"
    train = f"train ppo --env SmallWalk --out out --json --config {best}"
    assert jaxpg(train)[0] == 0
    config = read(finished[0], "best.json")["config"]
    assert {name: list(v) if isinstance(v := called[name], tuple) else v for name in config} == config
    assert jaxpg(f"{train} --set.num-steps 8 --total-steps 77 --set.hidden-sizes 5")[0] == 0
    assert (called["num_steps"], called["total_steps"], called["hidden_sizes"]) == (8, 77, (5,))
    assert called["learning_rate"] == config["learning_rate"]


# --- Pictures -------------------------------------------------------------------------------------------------------------


def summary_of(configurations, scores):
    results = [
        {"hyperparameters": configuration, "iqm": score, "iqm_ci": [None, None] if score is None else [score - 1, score + 2]}
        for configuration, score in zip(configurations, scores, strict=True)
    ]
    return {"algorithm": "ppo", "env": "CartPole-v1", "seed": 0, "num_seeds": 4, "results": results}


def test_one_field_is_a_line_with_an_interval(tmp_path):
    configurations = [{"learning_rate": value} for value in (1e-2, 1e-4, 1e-1, 1e-3)]
    figure = plot_sweep(summary_of(configurations, [30.0, 10.0, None, 20.0]), tmp_path / "sweep.png")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    line, missing = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1e-4, 10], [1e-3, 20], [1e-2, 30]])
    np.testing.assert_array_equal(missing.get_xdata(), [1e-1])
    corners = axes.collections[0].get_paths()[0].vertices
    assert {(1e-4, 9.0), (1e-4, 12.0), (1e-2, 29.0), (1e-2, 32.0)} <= {tuple(corner) for corner in corners}
    assert "1 of 4" in figure._supxlabel.get_text()
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = plot_sweep(summary_of([{"discount": 0.9}, {"discount": 0.99}], [1.0, 2.0])).axes
    assert axes.get_xscale() == "linear"


def test_two_fields_are_a_map_or_points():
    grid = [{"activation": a, "learning_rate": lr} for a in ("tanh", "relu") for lr in (1e-2, 1e-3)]
    axes, bar = plot_sweep(summary_of(grid, [1.0, 2.0, None, 4.0])).axes
    np.testing.assert_array_equal(axes.collections[0].get_array().filled(math.nan), [[2, 4], [1, math.nan]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["tanh", "relu"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.001", "0.01"]
    assert bar.get_ylabel() == "return"
    pairs = [(0.9, 1e-2), (0.95, 1e-4), (0.99, 1e-3)]
    draws = [{"discount": discount, "learning_rate": learning_rate} for discount, learning_rate in pairs]
    axes, _ = plot_sweep(summary_of(draws, [3.0, None, 1.0])).axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[0.99, 1e-3], [0.9, 1e-2]])
    np.testing.assert_array_equal(axes.collections[0].get_array(), [1, 3])
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_three_fields_are_parallel_coordinates():
    configurations = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("x", "y") for c in (0.1, 10.0)]
    scores = [float(score) for score in range(7)] + [None]
    (axes,) = plot_sweep(summary_of(configurations, scores)).axes
    paths = [line for line in axes.lines if len(line.get_ydata()) > 2]
    assert [len(line.get_ydata()) for line in paths] == [3] + [4] * 7
    np.testing.assert_allclose([line.get_ydata()[3] for line in paths[1:]], np.arange(7) / 6)
    assert paths[-1].get_linewidth() == 3  # the best, on top
    np.testing.assert_allclose(paths[-1].get_ydata()[:3], [1, 1, 0], atol=0.03)
    named = {text.get_text() for text in axes.texts}
    assert {"a", "b", "c", "return", "1", "2", "x", "y", "0.1", "10"} <= named
    plot_sweep(summary_of(configurations, [None] * 8))  # nothing to show, and no error
    (axes,) = plot_sweep(summary_of([{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 4}], [1.0, 2.0])).axes
    assert axes.get_xlabel() == "c"  # one field that varies


def test_the_places_of_values():
    numbers = coordinate("num_envs", [8, 2, 8, 32])
    assert (numbers.values, numbers.which.tolist(), numbers.is_log) == ([2, 8, 32], [1, 0, 1, 2], True)
    np.testing.assert_allclose(numbers.height([2, 8, 32]), [0, 0.5, 1])
    sizes = coordinate("hidden_sizes", [[64, 64], [8], [64, 64]])
    assert (sizes.texts, sizes.which.tolist(), sizes.is_number) == (["64x64", "8"], [0, 1, 0], False)
    assert not coordinate("flag", [True, False]).is_number
    assert list(coordinate("discount", [0.5, 0.9, 0.901]).ticks().values()) == ["0.56", "0.64", "0.72", "0.8", "0.88"]
    many = coordinate("learning_rate", list(np.geomspace(1e-5, 1e-2, 30)))
    assert {"0.001", "0.0003"} <= set(many.ticks().values())
    assert all(1e-5 <= tick <= 1e-2 for tick in many.ticks())


def test_the_table_of_the_best_is_whole_in_a_narrow_terminal(finished, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    table = COMMAND_LINE._best_table(read(finished[0]))
    names, *rows = table.splitlines()
    assert names.split() == ["num_steps", "learning_rate", "return", "95", "%", "interval"]
    assert [row.split()[:2] for row in rows][-2:] == [["16", "1e+38"], ["32", "1e+38"]]
    assert "…" not in table
