"""What is raised for a mistake of the user's."""


class InputError(ValueError):
    """A mistake of the user's: the message names the bad value, what is allowed and the nearest match."""
