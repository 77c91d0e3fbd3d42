"""Ctrl-C, SIGTERM and SIGUSR1 end a command in order, wherever they arrive.

The exception that Python raises for a signal may be lost or changed on its way: in a destructor, in a
callback of a C library. So it is also remembered, and long work asks at every step."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
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
        raise KeyboardInterrupt


def arrived():
    """Whether a signal has interrupted the work."""
    return _arrived


def check():
    """Raises KeyboardInterrupt if a signal has arrived before."""
    if _arrived:
        raise KeyboardInterrupt


def ignore():
    """From now on signals come too late."""
    global _closing
    _closing = True


def close():
    """The rest is done in a moment and shall not be torn. KeyboardInterrupt if a signal came before."""
    check()
    ignore()
