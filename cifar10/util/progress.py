"""Tells people how far something long is."""

import sys
import time

from cifar10.util import console


class Progress:
  """Tells percent, speed and time left on stderr: on one line of a terminal,
  which it keeps overwriting, or else on a line every ten seconds."""

  def __init__(self, total, unit, start=0):
    """Starts the clock.

    Args:
      total: where it ends...
      unit: ...of this, such as 'images'; 'MB' are told of bytes.
      start: where it starts.
    """
    self._terminal = sys.stderr.isatty()
    self._total, self._unit, self._start = total, unit, start
    self._started = self._reported = time.monotonic()

  def report(self, position):
    """To be called now and then; the last time at the end."""
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
          f'{console.duration(left)} left   ',
          end='\r' if self._terminal and not last else '\n',
          file=sys.stderr, flush=True)
