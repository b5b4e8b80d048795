"""Measures how often a second something happens."""

import statistics
import time
from typing import NamedTuple

WINDOW_SECONDS = 2.0


class Rate(NamedTuple):
  """So many a second: the median over windows of time, and the quartiles."""
  median: float
  low: float
  high: float
  cpu_seconds: float  # Of this process, for each.


def rate_of(windows):
  """Returns the `Rate` of windows of (count, seconds, CPU seconds)."""
  rates = [count / seconds for count, seconds, _ in windows]
  low, median, high = (statistics.quantiles(rates, n=4, method='inclusive')
                       if len(rates) > 1 else rates * 3)
  counts, _, cpu_seconds = map(sum, zip(*windows))
  return Rate(median, low, high, cpu_seconds / counts)


def repeat(function, count, num_windows):
  """Calls a function that makes `count` of something, again and again, and
  returns the `Rate`. The first calls, which warm up, are left out."""
  start = time.perf_counter()
  for calls in range(1, 1000):
    function()
    if calls >= 5 and time.perf_counter() - start > WINDOW_SECONDS:
      break

  def many():
    for _ in range(calls):
      function()
    return count * calls

  return rate_of([window(many) for _ in range(num_windows)])


def window(function):
  """Returns what a function does, and how many seconds of time and of CPU time
  it takes."""
  start, cpu_start = time.perf_counter(), time.process_time()
  count = function()
  return count, time.perf_counter() - start, time.process_time() - cpu_start
