"""Several processes started by torchrun."""

import contextlib
import datetime
import os

from .errors import MoefyError, PeerError

# What launchers call the number of a process: torchrun, Open MPI, others that speak PMI.
RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def launched_rank():
    """The number of this process; 0 if nothing has launched it."""
    for name in RANK_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def under_torchrun():
    return "MASTER_ADDR" in os.environ and "RANK" in os.environ


def ranks_on_this_host():
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


class Ranks:
    """The processes of one torchrun job; a process alone is rank 0 of 1 and exchanges nothing. A peer
    that is gone, or silent for `timeout` seconds, is a PeerError."""

    def __init__(self, timeout=600.0):
        self.timeout = timeout
        self.size = int(os.environ.get("WORLD_SIZE") or 1) if under_torchrun() else 1
        self.rank = int(os.environ["RANK"]) if self.size > 1 else 0
        self.local_rank = int(os.environ.get("LOCAL_RANK") or 0)

    def __enter__(self):
        if self.size > 1:
            import torch.distributed

            with self._exchange():
                torch.distributed.init_process_group(
                    "gloo", timeout=datetime.timedelta(seconds=self.timeout))
        return self

    def __exit__(self, *_):
        if self.size > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()

    def together(self, work):
        """Calls work() on every rank. An error of one is raised on all; collective."""
        value, problem = None, None
        try:
            value = work()
        except MoefyError as error:
            problem = error
        for error in self._gather(problem):
            if error is not None:
                raise error
        return value

    def first(self, work):
        """work() on rank 0; its value, or its error, on every rank; collective."""
        value = self.together(work if self.rank == 0 else lambda: None)
        return self._gather(value)[0]

    def sum(self, tensor):
        """Adds up a tensor of equal shape over all ranks, in place; collective."""
        if self.size > 1:
            import torch.distributed

            with self._exchange():
                torch.distributed.all_reduce(tensor)

    def _gather(self, value):
        if self.size == 1:
            return [value]
        import torch.distributed

        values = [None] * self.size
        with self._exchange():
            torch.distributed.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def _exchange(self):
        try:
            yield
        except RuntimeError as error:  # Gloo has no class of its own
            raise PeerError(f"rank {self.rank} lost another rank, or heard nothing of it for"
                            f" {self.timeout:.0f} s (--timeout): {error}") from None
