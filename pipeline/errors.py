"""User errors. Each message: what is wrong, in which file, column or key, and what to do."""


class PipelineError(Exception):
    """Shown as one line `error: ...` with exit code 1; anything else is a bug and keeps its traceback."""

    permanent = False
    """Whether another try would end the same, so that a scheduler makes none."""


class DataError(PipelineError):
    """The data brought in cannot be used as it is."""

    permanent = True


class ConfigError(PipelineError):
    """params.yaml, dvc.yaml or the environment says something impossible."""

    permanent = True


class ArtifactError(PipelineError):
    """A model folder or a version in the registry is missing, incomplete or not what it claims to be."""

    permanent = True


class Unavailable(DataError, ArtifactError):
    """What is needed cannot be had now: a server, a database, a remote, git's lock, enough memory."""

    permanent = False
