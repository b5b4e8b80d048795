"""What a program and the person at the terminal tell each other: lines of text,
times, and signals."""

import contextlib
import datetime
import errno
import io
import os
import signal
import sys
import threading

# They ask a program to end: Ctrl-C, a scheduler, and a terminal that is gone.
_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def timestamp():
  """Returns the time of day as the tutorial's programs print it."""
  return datetime.datetime.now().isoformat(' ', 'microseconds')


def duration(seconds):
  """Returns '42s', '8m 05s' or '3h 07m'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h {minutes:02}m'
  return f'{minutes}m {seconds:02}s' if minutes else f'{seconds}s'


@contextlib.contextmanager
def received_signals():
  """Yields a list that the first SIGINT, SIGTERM or SIGHUP is appended to, in
  place of what it does otherwise.

  A SIGHUP that the process was started to ignore, by nohup, stays ignored. A
  second signal of the same kind acts as before.

  Raises:
    SystemExit: at the end of the `with`, if a signal came; the exit code is
      128 + its number, as of a process that the signal ends.
  """
  received, before = [], {}

  def receive(number, _):
    received.append(number)
    signal.signal(number, before[number])

  if threading.current_thread() is threading.main_thread():
    for number in _SIGNALS:
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
        before[number] = signal.signal(number, receive)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if received:
    sys.exit(128 + received[0])


def raise_signals():
  """Makes signals that end the process end it by an exception, so that what it
  has begun is cleaned up: KeyboardInterrupt or SystemExit."""
  def end(number, _):
    sys.exit(128 + number)

  for number in _SIGNALS:
    if signal.getsignal(number) == signal.SIG_DFL:
      signal.signal(number, signal.default_int_handler
                    if number == signal.SIGINT else end)


class _Output(io.TextIOWrapper):
  """A standard stream that never raises: printing must not come between a
  training step and its checkpoint.

  What standard output cannot take, as the disk is full, goes to standard error,
  and what that cannot take goes nowhere; so does what nobody reads any more.
  Characters that the encoding lacks are written as escapes.
  """

  def __init__(self, stream, number):
    # With a buffer, even in `python -u`: it keeps what could not be written.
    super().__init__(
        open(number, 'wb', closefd=False),
        stream.encoding if stream else 'utf-8', 'backslashreplace',
        line_buffering=not stream or (
            stream.line_buffering or stream.write_through))
    self.error = None  # The first OSError.
    self._number = number

  def write(self, text):
    self._try(super().write, text)
    return len(text)

  def flush(self):
    self._try(super().flush)

  def _try(self, function, *arguments):
    try:
      function(*arguments)
      return
    except OSError as e:
      is_first = self.error is None and self._number == 1
      self.error = self.error or e
    if is_first and self.error.errno != errno.EPIPE:
      print(f'standard output: {self.error.strerror}: going on in standard '
            'error', file=sys.stderr, flush=True)
    else:
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, self._number)
      os.close(nowhere)
      self._try(super().flush)
    if is_first:
      os.dup2(2, 1)
      self._try(super().flush)


def prepare_streams():
  """Makes the standard streams of this process take whatever is printed."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # Closed. The next file to be opened would get the number, and the text.
      os.open(os.devnull, os.O_RDWR)
  if sys.stdout:
    sys.stdout.flush()
  sys.stdout, sys.stderr = _Output(sys.stdout, 1), _Output(sys.stderr, 2)


def has_reader():
  """Returns whether standard output is still read, as far as printing told."""
  error = getattr(sys.stdout, 'error', None)
  return error is None or error.errno != errno.EPIPE


def is_complete():
  """Returns whether standard output has all that its reader waits for."""
  sys.stdout.flush()
  return getattr(sys.stdout, 'error', None) is None or not has_reader()
