"""Kills the training programs at random moments, and resumes them.

The ordinary suite kills a few times; all of it:

    python -m pytest -n 0 -m long tests/runs/test_kill.py -s
"""

import collections
import dataclasses
import glob
import random
import time

import pytest

from cifar10 import multi_gpu_train
from cifar10 import train
from cifar10.runs import checkpoints
from tests.conftest import assert_same_checkpoints
from tests.conftest import events_of
from tests.conftest import flags_of
from tests.conftest import within

MAX_STEPS = 40


def unfinished(train_dir):
  """Returns whether a checkpoint is being written, or was."""
  found = checkpoints.paths_in(train_dir)
  return bool(glob.glob(f'{train_dir}/*.tempstate*')
              or glob.glob(f'{train_dir}/checkpoint.tmp*')
              or found and found[0] != max(found, key=checkpoints.step_of))


def kill_and_resume(start, program, run, num_kills, rng):
  """Starts a program until it was killed so often, and then to its end.

  Returns:
    What it was doing when it was killed, each time.
  """
  moments = []
  while True:
    process = start(program, *flags_of(run))
    last = len(moments) >= num_kills
    if not last:
      moment = rng.choice(['starting up', 'in a step', 'saving'])
      if moment == 'starting up':
        time.sleep(rng.uniform(0, 3))
      else:
        process.expect(' step ')
        time.sleep(rng.uniform(0, 1))
      with within(120, 'a checkpoint'):
        while moment == 'saving' and process.is_alive and not (
            unfinished(run.train_dir)):
          pass
      if process.is_alive:
        process.kill()
        if unfinished(run.train_dir):
          moment = 'saving'
        elif moment == 'saving':
          moment = 'in a step'
        moments.append(moment)
    code = process.end()
    if code == 0:
      return moments
    assert not last and code == -9, process.err


def check(start, tmp_path, make_run, program, dtype, num_kills):
  """Compares runs that are killed with one that is not."""
  towers = 2 if program == 'multi_gpu_train' else 1
  run = make_run(
      train_dir=str(tmp_path / 'whole'), dtype=dtype, max_steps=MAX_STEPS,
      checkpoint_steps=2, summary_steps=1, log_frequency=1, keep_checkpoints=2,
      batch_size=4, num_towers=towers)
  if towers == 1:
    train.train(run)
  else:
    multi_gpu_train.train(run, ['/cpu:0'] * towers)
  rng, moments = random.Random(f'{program} {dtype}'), []
  expected = events_of(run.train_dir)
  assert len(expected) > MAX_STEPS
  while len(moments) < num_kills:
    directory = str(tmp_path / f'killed after {len(moments)}')
    moments += kill_and_resume(
        start, program, dataclasses.replace(run, train_dir=directory),
        num_kills - len(moments), rng)
    assert_same_checkpoints(f'{run.train_dir}/model.ckpt-{MAX_STEPS}',
                            f'{directory}/model.ckpt-{MAX_STEPS}')
    found = events_of(directory)
    assert found.keys() == expected.keys()
    assert not [key for key in expected if found[key] != expected[key]]
    assert sorted(glob.glob('model.ckpt-*', root_dir=directory)) == [
        f'model.ckpt-{step}.{part}' for step in (MAX_STEPS - 2, MAX_STEPS)
        for part in ('data-00000-of-00001', 'index')]
    assert not glob.glob(f'{directory}/*.tempstate*')
  print(f'\n{program} {dtype}: killed {len(moments)} times:',
        dict(collections.Counter(moments)))


@pytest.mark.parametrize('program, dtype', [
    ('train', 'float32'), ('multi_gpu_train', 'bfloat16')])
def test_killed_twice(start, tmp_path, make_run, program, dtype):
  check(start, tmp_path, make_run, program, dtype, 2)


@pytest.mark.long
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('program', ['train', 'multi_gpu_train'])
def test_killed_again_and_again(start, tmp_path, make_run, program, dtype):
  check(start, tmp_path, make_run, program, dtype, 13)
