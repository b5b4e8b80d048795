"""Output to the terminal, and signals from it."""

import contextlib
import datetime
import errno
import io
import os
import signal
import sys
import threading
import time

# Requests to end a program: by Ctrl-C, a scheduler, and a closed terminal.
_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def timestamp():
  """Returns the current time in the format of the tutorial's programs."""
  return datetime.datetime.now().isoformat(' ', 'microseconds')


def duration(seconds):
  """Returns '42s', '8m 05s' or '3h 07m'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h {minutes:02}m'
  return f'{minutes}m {seconds:02}s' if minutes else f'{seconds}s'


_received = []  # The lists of all active calls of `received_signals()`.


@contextlib.contextmanager
def received_signals():
  """Yields a list to which SIGINT, SIGTERM and SIGHUP are appended, instead of
  ending the process. Nested calls yield the same list.

  A SIGHUP that is ignored because of nohup stays ignored. A second signal of
  the same kind has its previous effect.

  Raises:
    SystemExit: at the end of the `with` block, if a signal was received. The
      exit code is 128 + its number, as if the signal had ended the process.
  """
  received, before = _received[0] if _received else [], {}

  def receive(number, _):
    received.append(number)
    signal.signal(number, before[number])

  if not _received and (
      threading.current_thread() is threading.main_thread()):
    for number in _SIGNALS:
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
        before[number] = signal.signal(number, receive)
  _received.append(received)
  try:
    yield received
  finally:
    _received.pop()
    for number, handler in before.items():
      signal.signal(number, handler)
  if received:
    sys.exit(128 + received[0])


def raise_signals():
  """Makes signals raise KeyboardInterrupt or SystemExit instead of killing the
  process, so that cleanup code runs."""
  def end(number, _):
    sys.exit(128 + number)

  for number in _SIGNALS:
    if signal.getsignal(number) == signal.SIG_DFL:
      signal.signal(number, signal.default_int_handler
                    if number == signal.SIGINT else end)


_ESCAPED = {code: f'\\x{code:02x}' for code in (*range(32), *range(127, 160))
            if chr(code) not in '\t\n'}


def one_line(name):
  """Returns the name of a file without line ends, which are escaped."""
  return name.replace('\n', '\\n')


class _Output(io.TextIOWrapper):
  """A standard stream that never raises, so that a printing error cannot keep a
  training step from being saved.

  If standard output fails, for example because the disk is full, its text is
  written to standard error, but for what a pipe had not taken when its reader
  ended. If standard error fails, its text is discarded. Characters that are not
  in the encoding are escaped, and so are those that control a terminal: names
  of files may hold them.
  """

  def __init__(self, stream, number):
    # Buffered, even in `python -u`: the buffer keeps text that failed to write.
    super().__init__(
        open(number, 'wb', closefd=False),
        stream.encoding if stream else 'utf-8', 'backslashreplace',
        line_buffering=not stream or (
            stream.line_buffering or stream.write_through))
    self.error = None  # The first OSError.
    self._number = number

  def write(self, text):
    if text != '\r':  # `Progress` ends its lines with it.
      text = text.translate(_ESCAPED)
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
  """Replaces the standard streams by streams that never raise."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      # Closed. The next file to be opened would get its number and its text.
      os.open(os.devnull, os.O_RDWR)
  if sys.stdout:
    sys.stdout.flush()
  sys.stdout, sys.stderr = _Output(sys.stdout, 1), _Output(sys.stderr, 2)


def has_reader():
  """Returns False if printing failed because standard output has no reader."""
  error = getattr(sys.stdout, 'error', None)
  return error is None or error.errno != errno.EPIPE


def is_complete():
  """Returns False if text was lost that a reader of standard output expects."""
  sys.stdout.flush()
  return getattr(sys.stdout, 'error', None) is None or not has_reader()


class Progress:
  """Prints percentage, speed and remaining time to stderr.

  On a terminal, it overwrites one line. Otherwise, it prints a line every ten
  seconds.
  """

  def __init__(self, total, unit, start=0):
    """Starts the clock.

    Args:
      total: total amount of work.
      unit: unit of the amounts, for example 'images'. With 'MB', amounts are in
        bytes.
      start: amount of work that is already done.
    """
    self._terminal = sys.stderr.isatty()
    self._total, self._unit, self._start = total, unit, start
    self._started = self._reported = time.monotonic()

  def report(self, position):
    """Prints a line if it is due. Must also be called at the end.

    Args:
      position: amount of work that is done.
    """
    now, last = time.monotonic(), position >= self._total
    if now - self._reported < (0.5 if self._terminal else 10) and not (
        last and now - self._started > 1):
      return
    self._reported = now
    speed = max(position - self._start, 1) / max(now - self._started, 1e-3)
    left = (self._total - position) / speed
    amount = (f'{speed / 1e6:.2f} MB' if self._unit == 'MB'
              else f'{speed:,.0f} {self._unit}')
    print(f'  {100 * position / self._total:5.1f}%  {amount}/s  '
          f'{duration(left)} left   ',
          end='\r' if self._terminal and not last else '\n',
          file=sys.stderr, flush=True)
