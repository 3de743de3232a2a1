"""What stops a run, beside the user's mistakes (`jaxpg.InputError`)."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_TEXTS = ("no space left", "quota exceeded", "file too large")  # as libraries word it that drop the number


class RunError(RuntimeError):
    """A run had to stop (a full disk, a damaged folder, NaNs); what was saved before is kept."""


def advice(error: BaseException) -> str:
    """What to do about an error of the file system before continuing: free space if, and only if, there is none left."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in FULL or any(text in str(cause).lower() for text in FULL_TEXTS):
            return "Free some space, then continue with --resume"
        cause = cause.__cause__ or cause.__context__
    return "Mend the cause, then continue with --resume"
