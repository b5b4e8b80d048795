"""Measures rates, as counts per second."""

import statistics
import time
from typing import NamedTuple

WINDOW_SECONDS = 2.0


class Rate(NamedTuple):
  """A count per second: the median over windows of time, and the quartiles."""
  median: float
  low: float
  high: float
  cpu_seconds: float  # CPU time of this process for a count of 1.


def rate_of(windows):
  """Returns the `Rate` of windows: a list of (count, seconds, CPU seconds)."""
  rates = [count / seconds for count, seconds, _ in windows]
  low, median, high = (statistics.quantiles(rates, n=4, method='inclusive')
                       if len(rates) > 1 else rates * 3)
  counts, _, cpu_seconds = map(sum, zip(*windows))
  return Rate(median, low, high, cpu_seconds / counts)


def repeat(function, count, num_windows):
  """Calls a function repeatedly and returns its `Rate`.

  Each call adds `count`. The first calls, which warm up, are not measured.
  """
  def many():
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < WINDOW_SECONDS:
      function()
      calls += 1
    return count * calls

  function()
  many()
  return rate_of([window(many) for _ in range(num_windows)])


def window(function):
  """Calls a function and returns its result, the seconds and the CPU seconds.
  """
  start, cpu_start = time.perf_counter(), time.process_time()
  count = function()
  return count, time.perf_counter() - start, time.process_time() - cpu_start
