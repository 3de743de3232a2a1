"""What stops a run, beside the user's mistakes (`jaxpg.InputError`)."""


class RunError(RuntimeError):
    """A run had to stop (a full disk, a damaged folder, NaNs); what was saved before is kept."""
