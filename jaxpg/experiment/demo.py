"""`make demo`: PPO and a mixture of experts learn to swing up a pendulum, and leave pictures of what they have learned."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from jaxpg.algorithm import InputError
from jaxpg.experiment import RunError, cache_compiled_programs, plot_learning_curves, run, use_cpu_devices
from jaxpg.experiment.files import write_atomically
from jaxpg.experiment.progress import stage, standard_error

ENV, TOTAL_STEPS, NUM_SEEDS = "Pendulum-v1", 150_000, 2
HYPERPARAMETERS: dict[str, Any] = {"num_envs": 16, "num_steps": 64, "num_epochs": 5, "hidden_sizes": (32, 32)}
HYPERPARAMETERS |= {"learning_rate": 1e-3, "discount": 0.95}
# With the usual weight of the routing loss, all experts become good everywhere, and the weights stay nearly equal.
MIXTURE: dict[str, Any] = {"num_experts": 3, "routing_coefficient": 0.1}
ALGORITHMS: dict[str, dict[str, Any]] = {"ppo": HYPERPARAMETERS, "pmoe_ppo": HYPERPARAMETERS | MIXTURE}


def main(folder: Path = Path("demo")) -> None:
    """Trains both algorithms into `folder` and prints where the results are.

    An interrupted demonstration continues; a complete one is shown again.
    """
    console = standard_error()
    started = time.perf_counter()
    use_cpu_devices(min(os.cpu_count() or 1, NUM_SEEDS))
    cache_compiled_programs()
    summaries = {}
    for algorithm, hyperparameters in ALGORITHMS.items():
        summaries[algorithm] = run(
            algorithm,
            ENV,
            folder / algorithm,
            num_seeds=NUM_SEEDS,
            num_devices=min(os.cpu_count() or 1, NUM_SEEDS),
            resume=True,
            console=console,
            total_steps=TOTAL_STEPS,
            **hyperparameters,
        )
    with stage(console, "drawing the learning curves of both"):
        plot_learning_curves([folder / algorithm for algorithm in ALGORITHMS], folder / "learning_curves.png")
    write_atomically(folder / "summary.json", json.dumps(summaries, indent=2) + "\n")
    print(f"\n{ENV}, {TOTAL_STEPS:,} steps, {NUM_SEEDS} seeds, in {time.perf_counter() - started:.0f} s")
    for algorithm, summary in summaries.items():
        print(f"  {algorithm:9} return {summary['initial_iqm']:9,.1f} untrained, {summary['iqm']:9,.1f} after training")
    print(
        f"\nlearning curves       {folder / 'learning_curves.png'}\n"
        f"behaviour             {folder}/*/behaviour.png\n"
        f"which expert acts     {folder / 'pmoe_ppo' / 'experts.png'}\n"
        f"numbers, checkpoints  {folder / 'summary.json'}, {folder}/*/"
    )


if __name__ == "__main__":
    try:
        main()
    except (InputError, RunError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("demo: interrupted; `make demo` continues it", file=sys.stderr)
        sys.exit(130)
