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
    # Signals are handled in the main thread, whichever raises them.
    timer = threading.Timer(_AGAIN_AFTER, signal.raise_signal, [number])
    timer.daemon = True
    timer.start()
