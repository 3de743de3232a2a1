"""What is raised for a mistake of the user's."""


class UnknownEnvironmentError(ValueError):
    """No environment has this name."""


class EnvironmentInputError(ValueError):
    """An environment cannot be made, or registered, with these arguments."""
