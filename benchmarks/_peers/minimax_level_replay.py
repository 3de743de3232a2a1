"""PLR of minimax (minimax-lib): its own command line, with a clock that waits for the device around every update."""

import os
import runpy
import sys
import tempfile

from measure import clock_of


def measure(row):
    """Seconds to compile, and speeds over `num_updates` updates at a time."""
    os.environ["WANDB_MODE"] = "disabled"
    import jax
    from minimax.runners import ExperimentRunner

    clock, seconds = clock_of(row), []
    step = ExperimentRunner.step

    def timed(self, *args):
        started = clock()
        result = jax.block_until_ready(step(self, *args))
        seconds.append(clock() - started)
        return result

    ExperimentRunner.step = timed
    updates = row["num_updates"]
    walls, size = row["num_walls"], row["size"]
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["train", "--seed=1", "--train_runner=plr", "--env_name=Maze", "--student_model_name=default_student_cnn"]
        sys.argv += [f"--n_total_updates={updates * row['repeats'] + 2}", f"--n_parallel={row['num_envs']}", "--n_eval=1"]
        sys.argv += [f"--n_rollout_steps={row['num_steps']}", "--student_gae_lambda=0.95", "--student_ppo_n_epochs=5"]
        sys.argv += ["--student_recurrent_arch=lstm", f"--student_recurrent_hidden_dim={row['memory_size']}"]
        sys.argv += [f"--maze_height={size}", f"--maze_width={size}", f"--maze_n_walls={walls}", "--plr_use_robust_plr=False"]
        sys.argv += [f"--plr_buffer_size={row['buffer_size']}", "--plr_replay_prob=0.5", "--plr_temp=0.1"]
        sys.argv += ["--ued_score=max_mc", "--verbose=False", f"--log_dir={folder}", "--xpid=run", "--log_interval=1000000"]
        sys.argv += ["--checkpoint_interval=0", "--test_interval=0"]
        runpy.run_module("minimax.train", run_name="__main__")
    first, second, *rest = seconds  # both of the first compile something
    chunks = [sum(rest[i : i + updates]) for i in range(0, updates * row["repeats"], updates)]
    steps = updates * row["num_envs"] * row["num_steps"]
    return {"compile_seconds": first + second - 2 * min(rest), "speeds": [steps / chunk for chunk in chunks]}
