"""What touches the host: runs, their folders, the command line, pictures."""

from typing import TYPE_CHECKING

from jaxpg._lazy import import_when_used

if TYPE_CHECKING:
    from jaxpg.experiment.devices import cache_compiled_programs, use_cpu_devices
    from jaxpg.experiment.errors import RunError
    from jaxpg.experiment.evaluation import evaluate_run
    from jaxpg.experiment.plots import plot_learning_curves
    from jaxpg.experiment.repertoire_picture import plot_repertoires
    from jaxpg.experiment.run import run
    from jaxpg.experiment.saved import Run, load
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

import_when_used(
    __name__,
    dict.fromkeys(("cache_compiled_programs", "use_cpu_devices"), "jaxpg.experiment.devices")
    | dict.fromkeys(("Run", "load"), "jaxpg.experiment.saved")
    | {
        "RunError": "jaxpg.experiment.errors",
        "evaluate_run": "jaxpg.experiment.evaluation",
        "plot_learning_curves": "jaxpg.experiment.plots",
        "plot_repertoires": "jaxpg.experiment.repertoire_picture",
        "plot_sweep": "jaxpg.experiment.sweep_picture",
        "run": "jaxpg.experiment.run",
        "sweep": "jaxpg.experiment.sweep",
    },
)
