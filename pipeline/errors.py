"""What the user can mend. Each message: what is wrong, in which file, column or key, and what to do."""


class PipelineError(Exception):
    """Shown as one line `error: ...` with exit code 1; anything else is a bug and keeps its traceback."""


class DataError(PipelineError):
    """The data brought in cannot be used as it is."""


class ConfigError(PipelineError):
    """params.yaml, dvc.yaml or the environment says something impossible."""


class ArtifactError(PipelineError):
    """A model folder or a version in the registry is missing, incomplete or not what it claims to be."""
