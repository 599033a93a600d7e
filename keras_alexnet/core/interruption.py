"""Ctrl-C and SIGTERM that are not lost in a callback."""

import signal
import sys
import threading
from typing import Any, NoReturn

# JAX has callbacks of the garbage collector, and an exception in such a callback goes nowhere but
# to `sys.unraisablehook`. Time for the callback to end, in seconds.
_AGAIN_AFTER = 0.05


def end_by_signals() -> None:
    """Let SIGTERM end this process by an exception, as SIGINT does, wherever either arrives.

    So temporary files are removed and children end. The exit code of SIGTERM is 143.
    """
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _deliver_again


def _stop(_signal: int, _frame: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _deliver_again(lost: "sys.UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        number = signal.SIGINT
    elif issubclass(lost.exc_type, SystemExit):
        number = signal.SIGTERM
    else:
        sys.__unraisablehook__(lost)
        return
    timer = threading.Timer(_AGAIN_AFTER, _interrupt_main, [number])
    timer.daemon = True
    timer.start()


def _interrupt_main(number: signal.Signals) -> None:
    # Python handles signals in the main thread, which only one of its own wakes from a wait.
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
