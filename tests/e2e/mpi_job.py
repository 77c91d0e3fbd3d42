"""Runs a program under launch/mpirun, watches its ranks from outside and says how the job ended.

MOEFY_BUILD names the build folder (default build/release)."""

import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MOEFY_BUILD", ROOT / "build" / "release"))
DRIVER = BUILD / "tests" / "schedule" / "queue_driver"
FAIL_LIBRARY = BUILD / "tests" / "comm" / "libpmpi_fail.so"
GONE_WITHIN_SECONDS = 10


def processes_of_job(marker):
    """Process ids by rank of the living processes that were started with MOEFY_TEST_JOB=marker."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        variables = dict(entry.partition(b"=")[::2] for entry in environment)
        if variables.get(b"MOEFY_TEST_JOB") != marker.encode() or state == "Z":
            continue
        if b"OMPI_COMM_WORLD_RANK" in variables:
            found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(folder.name)
    return found


def listen_to_interrupts():
    """Background jobs of a script ignore SIGINT, and a shell cannot trap what it inherits ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Job:
    """One run of `command` on `ranks` ranks."""

    def __init__(self, command, ranks, environment=None, preload=None):
        self.marker = f"{os.getpid()}-{time.monotonic_ns()}"
        forwarded = ["-x", "MOEFY_TEST_JOB"]
        if preload:
            forwarded += ["-x", f"LD_PRELOAD={preload}"]
        variables = {**os.environ, **(environment or {}), "MOEFY_TEST_JOB": self.marker}
        launcher = [ROOT / "launch" / "mpirun", *forwarded, "-np", str(ranks)]
        self.process = subprocess.Popen(
            [str(part) for part in [*launcher, *command]], env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=listen_to_interrupts)
        self.stderr = ""
        self.size = ranks
        self.pids = {}

    def ranks(self):
        """Process ids of the living ranks. Slow: it looks at every process."""
        return processes_of_job(self.marker)

    def learn_ranks(self):
        """Waits for all ranks, so that a later signal comes at once."""

        def all_there():
            self.pids = self.ranks()
            return len(self.pids) == self.size

        assert self.wait_until(all_there), "the job ended before all its ranks were seen"

    def wait_until(self, condition, limit=60):
        """Polls until condition() holds; False if the job ended before."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if condition():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        self.end()
        raise AssertionError(f"the job did not get there:\n{self.stderr}")

    def end(self):
        """Kills launcher and ranks."""
        for pid in self.ranks().values():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        _, self.stderr = self.process.communicate()

    def signal_rank(self, rank, number):
        if not self.pids:
            self.learn_ranks()
        os.kill(self.pids[rank], number)

    def kill_rank(self, rank):
        """Kills a rank; the job must end soon, as a failure, and leave no other rank behind."""
        self.signal_rank(rank, signal.SIGKILL)
        code, seconds = self.finish()
        assert code != 0
        assert seconds < GONE_WITHIN_SECONDS
        assert self.all_gone()

    def finish(self, limit=60):
        """Waits for the end, kills what hangs; returns (launcher's code, seconds waited)."""
        begin = time.monotonic()
        try:
            _, self.stderr = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the job hung:\n{self.stderr}") from None
        return self.process.returncode, time.monotonic() - begin

    def all_gone(self):
        """True once no rank is left; mpirun may end a moment before the last one it killed."""
        end = time.monotonic() + GONE_WITHIN_SECONDS
        while self.ranks():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def messages(self):
        """moefy's own messages, without the last line with the exit code."""
        return [line for line in self.stderr.splitlines()
                if line.startswith("moefy: ") and not line.startswith("moefy: exit ")]

    def last_words(self):
        """moefy's last line."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("moefy: exit ")]
        return lines[-1] if lines else ""
