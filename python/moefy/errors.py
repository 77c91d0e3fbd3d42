"""Errors with the exit codes that every moefy command shares."""


class MoefyError(Exception):
    """A failure whose message is meant for the user; `code` is the exit code."""

    code = 70

    def __init__(self, message, code=None):
        super().__init__(message)
        if code is not None:
            self.code = code


class UsageError(MoefyError):
    """Options that cannot work, or something else in the way of the output."""

    code = 2


class InputError(MoefyError):
    """Data that is not what it should be."""

    code = 3


class IoError(MoefyError):
    """The file system said no."""

    code = 4


class PeerError(MoefyError):
    """Another process of the job is gone or silent."""

    code = 5


class DeviceError(MoefyError):
    """A GPU is missing or failed."""

    code = 6
