#!/usr/bin/env python3
"""Runs `-m moefy ARGUMENTS…` in a process with PyTorch and transformers already imported.

In place of Python (MOEFY_PYTHON), it hands its command line, environment, folder and output to the
server whose socket MOEFY_WARM_PYTHON names, and ends as the command ends. Importing both takes most of
the time of a test on a tiny model. `warm_python.py --serve SOCKET` is the server: every command runs in
a fork of it, so none sees what another has done. Tests of signals and ranks take the interpreter itself."""

import array
import json
import os
import select
import signal
import socket
import sys

ADDRESS = "MOEFY_WARM_PYTHON"


def send_command(address):
    """The exit status of the command, which writes to this process' own output."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        request = json.dumps({"argv": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()})
        streams = array.array("i", [0, 1, 2])
        connection.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(16)
    return int(answer) if answer else 255


def receive_command(connection):
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    with connection.makefile("rb") as request:
        return json.load(request), list(streams)


def become(request, streams):
    """Runs the command in this process, which does not come back from it."""
    import runpy

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(":"))
    _, module, *arguments = request["argv"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def answer(connection):
    """Runs one command; kills it if who asked for it has gone."""
    import traceback

    request, streams = receive_command(connection)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            connection.close()
            become(request, streams)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for stream in streams:
        os.close(stream)
    poll = select.poll()
    poll.register(os.pidfd_open(child), select.POLLIN)
    poll.register(connection, 0)  # errors and hang-ups alone
    ready = {place for place, _ in poll.poll()}
    if connection.fileno() in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())


def serve(address):
    import h5py  # noqa: F401
    import safetensors.torch  # noqa: F401
    # What commands use; transformers imports these when they are first named.
    from transformers import (AutoConfig, AutoModelForCausalLM, AutoTokenizer,  # noqa: F401
                              PreTrainedModel)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        # The end of the input is that of the process which started this one.
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                answer(connection)
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(send_command(os.environ[ADDRESS]))
