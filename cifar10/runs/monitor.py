"""Watches a training: prints its progress in the tutorial's format, and ends it
when values are not finite."""

import time

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.util import console
from cifar10.util.errors import UserError

# Number of steps in a row that may overflow float16, and not apply gradients.
_MAX_OVERFLOWS = 100


class Monitor:
  """Prints the progress of the steps, and stops at values that are not finite.
  """

  def __init__(self, run):
    self._run = run
    self._next = None  # The first step that no line covers yet.
    self._time = time.monotonic()
    self._values = self._finite_loss = None
    self._overflows = 0  # Steps in a row.
    self._mark = None  # Step and time of the last summary.

  def step(self, values):
    """Takes in a step; to be called after each.

    Args:
      values: the values of its `model.Step`.

    Raises:
      UserError: a value is not finite.
    """
    number, loss = int(values.step), values.losses['total_loss']
    self._values = values
    if np.isfinite([loss, *values.gradient_norms.values()]).all():
      self._finite_loss, self._overflows = loss, 0
    else:
      self._overflows += 1
      if self._run.dtype != 'float16' or self._overflows > _MAX_OVERFLOWS:
        self.not_finite('not all of this is finite')

    # The first step has a line of its own, as it includes the start.
    if self._next is None:
      self._next = number
    elif number % self._run.log_frequency:
      return
    now = time.monotonic()
    seconds = (now - self._time) / (number + 1 - self._next)
    self._next, self._time = number + 1, now

    run, images = self._run, (number + 1) * self._run.global_batch
    left = (run.max_steps - number - 1) * seconds
    print(f'{console.timestamp()}: step {number}, loss = {loss:.2f} '
          f'({run.global_batch / seconds:.1f} examples/sec; {seconds:.3f} '
          f"sec/batch), precision = {values.losses['Precision @ 1']:.3f}, "
          f'epoch {images / run.num_examples:.1f}, '
          f'{100 * (number + 1) / run.max_steps:.0f}%, '
          f'{console.duration(left)} left', flush=True)

  def with_speed(self, summary, number):
    """Returns a serialized summary of a step as tf.Summary, with the images a
    second since the last one; not the first time, which includes the start."""
    summary = tf.Summary.FromString(summary)
    mark, self._mark = self._mark, (number, time.monotonic())
    if mark:
      images = (number - mark[0]) * self._run.global_batch
      summary.value.add(tag='training/examples_per_sec',
                        simple_value=images / (self._mark[1] - mark[1]))
    return summary

  def not_finite(self, problem):
    """Raises a UserError with the values of the last step."""
    values, norms = self._values, self._values.gradient_norms
    largest = sorted(
        norms, key=lambda name: np.nan_to_num(-norms[name], nan=-np.inf))[:3]
    raise UserError(
        f"step {int(values.step)}: loss {values.losses['total_loss']:g}, "
        f'learning rate {values.learning_rate:g}, largest gradient norms '
        + ', '.join(f'{norms[name]:g} ({name})' for name in largest)
        + f'; last finite loss {self._finite_loss}: {problem}, so training '
        'ends. Its checkpoints are of earlier steps')
