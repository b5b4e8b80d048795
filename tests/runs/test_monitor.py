"""What a run reports: lines of text and speeds, by a clock of the test's own.

All figures here are worked out by hand.
"""

import dataclasses
import re
import types

import pytest
import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10.runs import description
from cifar10.runs import monitor
from tests.conftest import summaries_of


@pytest.fixture
def clock(monkeypatch):
  """The reporter's clock: a list, whose item is the time in seconds."""
  now = [1000.0]
  monkeypatch.setattr(monitor, 'time', types.SimpleNamespace(
      monotonic=lambda: now[0]))
  return now


@pytest.fixture
def reporter(clock):
  """A reporter of two towers of 12 images each, so 24 a step, 300 an epoch, and
  of 600 steps, every fourth of which it tells of."""
  return monitor.Monitor(description.Run(
      recipe=dataclasses.replace(model.RECIPE, batch_size=12), num_towers=2,
      num_examples=300, max_steps=600, log_frequency=4))


@pytest.fixture
def report(reporter, clock, capsys):
  """Goes through steps of so many seconds; returns the lines printed, without
  the time of day, by step."""
  def go(numbers, seconds):
    for number in numbers:
      clock[0] += seconds
      reporter.step(model.Step(None, number, 0.1, {
          'total_loss': 2 + number, 'Precision @ 1': 0.125}, {}))
    lines = [line.split(': step ')[1].split(', ', 1)
             for line in capsys.readouterr().out.splitlines()]
    return {int(number): rest for number, rest in lines}
  return go


def test_lines(report):
  # The first is told by itself, then every fourth: 599 and 595 steps are left.
  assert report([0], 10) == {
      0: 'loss = 2.00 (2.4 examples/sec; 10.000 sec/batch), precision = '
         '0.125, epoch 0.1, 0%, 1h 39m left'}
  assert report(range(1, 8), 0.5) == {
      4: 'loss = 6.00 (48.0 examples/sec; 0.500 sec/batch), precision = '
         '0.125, epoch 0.4, 1%, 4m 58s left'}
  # Three steps of half a second, and one of four: 5.5 seconds for four.
  assert report([8], 4) == {
      8: 'loss = 10.00 (17.5 examples/sec; 1.375 sec/batch), precision = '
         '0.125, epoch 0.7, 2%, 13m 33s left'}
  # 25 steps of 24 images are two epochs, and step 24 is the 25th.
  assert report(range(9, 25), 0.25)[24] == (
      'loss = 26.00 (96.0 examples/sec; 0.250 sec/batch), precision = 0.125, '
      'epoch 2.0, 4%, 2m 24s left')
  assert report(range(25, 600), 0.5)[596].endswith(
      'epoch 47.8, 100%, 2s left')


def test_lines_after_resuming_between_two_reports(report):
  assert report([5], 3) == {
      5: 'loss = 7.00 (8.0 examples/sec; 3.000 sec/batch), precision = '
         '0.125, epoch 0.5, 1%, 29m 42s left'}
  # Steps 6, 7 and 8: three, not four.
  assert report([6, 7, 8], 0.5) == {
      8: 'loss = 10.00 (48.0 examples/sec; 0.500 sec/batch), precision = '
         '0.125, epoch 0.7, 2%, 4m 56s left'}
  assert list(report(range(9, 21), 0.5)) == [12, 16, 20]


def test_speed_between_summaries(reporter, report, clock):
  def speed(number):
    summary = reporter.with_speed(b'', number)
    return summary.value[0].simple_value if summary.value else None

  clock[0] += 100
  assert speed(7) is None
  clock[0] += 2
  assert speed(10) == 36
  # Lines in between are measured by themselves.
  report([12], 0)
  clock[0] += 4
  assert speed(20) == 60


def test_the_training_loop_tells_what_the_reporter_does(make_run, clock,
                                                        capsys):
  """Steps of a quarter of a second, but for step 7, which takes 2 more."""
  class Clock(tf.train.SessionRunHook):

    step = -1

    def after_run(self, run_context, run_values):
      self.step += 1
      clock[0] += 2.25 if self.step == 7 else 0.25

  hook, lines = Clock(), []
  for max_steps in 6, 12:  # Resumes at step 6.
    run = multi_gpu_train.train(
        make_run(network='softmax', batch_size=10, log_frequency=4,
                 summary_steps=3, max_steps=max_steps), ['/cpu:0'] * 2,
        hooks=[hook])
    lines += re.findall(r': step (\d+), .* \((.*)\)', capsys.readouterr().out)
  assert lines == [('0', '80.0 examples/sec; 0.250 sec/batch'),
                   ('4', '80.0 examples/sec; 0.250 sec/batch'),
                   ('6', '80.0 examples/sec; 0.250 sec/batch'),
                   ('8', '16.0 examples/sec; 1.250 sec/batch')]
  # Of the first summary after a start there is no speed to tell.
  assert {step: value.simple_value
          for (tag, step), value in summaries_of(run.train_dir).items()
          if tag == 'training/examples_per_sec'} == {
              3: 80, 9: pytest.approx(60 / 2.75)}
