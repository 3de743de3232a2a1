"""What touches the host: runs, their folders, the command line, pictures."""

from jaxpg.experiment.devices import cache_compiled_programs, use_cpu_devices
from jaxpg.experiment.errors import RunError
from jaxpg.experiment.plots import plot_learning_curves
from jaxpg.experiment.run import Run, evaluate_run, load, run

__all__ = [
    "Run",
    "RunError",
    "cache_compiled_programs",
    "evaluate_run",
    "load",
    "plot_learning_curves",
    "run",
    "use_cpu_devices",
]
