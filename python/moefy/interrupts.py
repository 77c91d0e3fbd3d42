"""Ctrl-C, SIGTERM and SIGUSR1 end a command in order, wherever they arrive.

The exception that Python raises for a signal may be lost or changed on its way: in a destructor, in a
callback of a C library. So it is also remembered, and long work asks at every step."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt(KeyboardInterrupt):
    """What the signals raise. (A plain KeyboardInterrupt that passed through exec() makes Python end
    itself by SIGINT, however orderly the command was left.)"""


_arrived = False
_closing = False


def listen():
    """From now on the signals interrupt this process."""
    for name in SIGNALS:
        signal.signal(name, _receive)


def _receive(*_):
    global _arrived
    if not _closing:
        _arrived = True
        raise Interrupt


def arrived():
    """Whether a signal has interrupted the work."""
    return _arrived


def check():
    """Raises Interrupt if a signal has arrived before."""
    if _arrived:
        raise Interrupt


def ignore():
    """From now on signals come too late."""
    global _closing
    _closing = True


def close():
    """The rest is done in a moment and shall not be torn. Interrupt if a signal came before."""
    check()
    ignore()
