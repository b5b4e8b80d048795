"""The directory of a run: for one run, and one trainer at a time."""

import contextlib
import dataclasses
import datetime
import os

import tensorflow.compat.v1 as tf

from cifar10 import checkpoints
from cifar10 import filesystem
from cifar10 import run as run_lib
from cifar10 import UserError


@contextlib.contextmanager
def open_train_dir(run, fresh=False):
  """Makes sure that run.train_dir holds this run or nothing, and keeps other
  trainers out of it until the end of the `with`.

  Args:
    run: a prepared `Run`.
    fresh: whether to move an existing run.train_dir aside and start over.

  Raises:
    UserError: it holds something else, another trainer has it, or, in all of
      the `with`, the file system refuses to read or write a file.
  """
  with filesystem.explained(run.train_dir):
    if fresh and os.path.exists(run.train_dir):
      with filesystem.locked(run.train_dir):
        _move_aside(run.train_dir)
    with filesystem.locked(run.train_dir):
      _check_same_run(run)
      checkpoints.remove_unfinished(run.train_dir)
      print(f'Training {run.network} on {run.dataset}, {run.num_examples:,} '
            f'records, in steps of {run.global_batch}, with seed {run.seed}\n'
            f'Recipe: {run.recipe.changed()}', flush=True)
      yield


def _move_aside(train_dir):
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S')
  aside = f'{train_dir.rstrip("/")}.{now}'
  os.rename(train_dir, aside)
  print(f'Moved {train_dir} to {aside}')


def _check_same_run(run):
  """Raises UserError if run.train_dir holds anything but this run."""
  old = run_lib.load(run.train_dir)
  ways_out = '--fresh starts over (and moves this directory aside), or choose '\
      'another --train_dir'
  if old is None:
    if checkpoints.find(run.train_dir):
      raise UserError(f'{run.train_dir} holds checkpoints but no run.json, so '
                      f'there is no telling what they are: {ways_out}')
    return
  for name in 'checksum', 'record_format':
    if getattr(old, name) is None:  # Of the time before it was noted.
      old = dataclasses.replace(old, **{name: getattr(run, name)})
  was, wanted = old.identity(), run.identity()
  different = [f'{name} {was.get(name)}, not {wanted.get(name)}'
               for name in {**was, **wanted}
               if was.get(name) != wanted.get(name)]
  if different:
    raise UserError(f'{run.train_dir} holds a run with '
                    + ', '.join(different) + f': {ways_out}')


def is_done(run):
  """Returns whether the newest checkpoint is of the last step."""
  checkpoint = checkpoints.newest(run.train_dir)
  return bool(checkpoint) and checkpoints.step_of(checkpoint) >= run.max_steps


def describe(run):
  """Writes run.json, when the graph, built by now, shows that the run can be.
  """
  old = run_lib.load(run.train_dir)
  if old and old.num_towers != run.num_towers and tf.get_collection(
      tf.GraphKeys.UPDATE_OPS):
    raise UserError(
        f'{run.train_dir} holds a run of {old.num_towers} towers, not '
        f'{run.num_towers}: {run.network} normalizes batches, tower by tower')
  run_lib.save(run)
