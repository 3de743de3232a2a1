"""What touches the host: runs, their folders, the command line, pictures."""

from jaxpg.experiment.devices import cache_compiled_programs, use_cpu_devices
from jaxpg.experiment.errors import RunError
from jaxpg.experiment.plots import plot_learning_curves
from jaxpg.experiment.repertoire_picture import plot_repertoires
from jaxpg.experiment.run import Run, evaluate_run, load, run
from jaxpg.experiment.sweep import sweep
from jaxpg.experiment.sweep_picture import plot_sweep

__all__ = [
    "Run",
    "RunError",
    "cache_compiled_programs",
    "evaluate_run",
    "load",
    "plot_learning_curves",
    "plot_repertoires",
    "plot_sweep",
    "run",
    "sweep",
    "use_cpu_devices",
]
