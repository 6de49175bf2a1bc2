"""Ctrl-C and SIGTERM: a training stops between two steps, once its state is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = b"\nstopping: this step is done and saved first; once more, and it stops at once\n"


class Stop:
    """Whether a signal has asked for the end. A second one does not wait: it raises KeyboardInterrupt.

    Processes that read patches inherit this; there a signal changes nothing, since they end with the training.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._owner = os.getpid()

    def listen(self) -> None:
        """From now on signals are noted; in the main thread only, since others have none."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Afterwards signals do what they did before."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        os.write(2, SAID)  # no logging: the signal may have come in the middle of it
