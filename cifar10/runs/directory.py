"""The directory of a run, train_dir: for one run, and one trainer at a time."""

import contextlib
import dataclasses
import datetime
import glob
import os

import tensorflow.compat.v1 as tf

from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.util import filesystem
from cifar10.util.errors import UserError


# Files that a training writes, apart from the lock. The description is moved
# last, so that what a killed process has not moved yet still counts as a run.
_FILES = ('checkpoint', 'checkpoint.tmp*', 'model.ckpt-*', 'graph.pbtxt*',
          'events.out.tfevents.*', 'report.json*', 'run.json*')


@contextlib.contextmanager
def open_train_dir(run, fresh=False):
  """Opens run.train_dir for this run, and keeps other trainers out of it until
  the end of the `with`.

  Args:
    run: the `Run`.
    fresh: whether to start over: moves the files of a run in the directory into
      a new directory inside it.

  Raises:
    UserError: it holds another run, another trainer has it, or, anywhere in the
      `with`, a file cannot be read or written.
  """
  with filesystem.explained(run.train_dir), filesystem.locked(run.train_dir):
    if fresh:
      if run.init_from:
        checkpoints.find_source(run)  # Before anything is moved.
      _move_aside(run.train_dir)
    _check_same_run(run)
    checkpoints.remove_unfinished(run.train_dir)
    print(f'Training {run.network} on {run.dataset}, {run.num_examples:,} '
          f'records, in steps of {run.global_batch}, with seed {run.seed}\n'
          f'Recipe: {run.recipe.changed()}', flush=True)
    yield


def _move_aside(train_dir):
  """Moves the files of a run, and nothing else, into a new directory inside
  train_dir (which can be a mount point, and those cannot be renamed)."""
  others = checkpoints.paths_in(train_dir)  # Whatever their names are.
  if not os.path.exists(description.path(train_dir)) and not others:
    return
  now = datetime.datetime.now().strftime('%Y%m%d-%H%M%S.%f')
  aside = os.path.join(train_dir, f'before-{now}')
  os.mkdir(aside)
  for pattern in (*(f'{glob.escape(os.path.basename(path))}.*'
                    for path in others), *_FILES):
    for name in glob.glob(pattern, root_dir=train_dir):
      os.rename(os.path.join(train_dir, name), os.path.join(aside, name))
  print(f'Moved the run in {train_dir} to {aside}')


def _check_same_run(run):
  """Raises UserError if run.train_dir holds anything but this run."""
  old = description.load(run.train_dir)
  ways_out = ('--fresh starts over (and moves what is there into a directory '
              'inside), or choose another --train_dir')
  if old is None:
    if checkpoints.paths_in(run.train_dir):
      raise UserError(f'{run.train_dir} holds checkpoints but no run.json, so '
                      f'there is no telling what they are: {ways_out}')
    return
  for name in 'checksum', 'record_format':
    if getattr(old, name) is None:  # Earlier versions did not note it.
      old = dataclasses.replace(old, **{name: getattr(run, name)})
  # The order of the images depends on the input, too.
  was, wanted = ({**r.identity(), 'input': r.input} for r in (old, run))
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


def check_towers(run):
  """Raises UserError if the run in run.train_dir has another number of towers,
  and its network, the default graph, normalizes batches or selects images,
  which is done tower by tower."""
  old = description.load(run.train_dir)
  does = {'selects images': run.recipe.selector,
          'normalizes batches': tf.get_collection(tf.GraphKeys.UPDATE_OPS)}
  if old and old.num_towers != run.num_towers and any(does.values()):
    raise UserError(
        f'{run.train_dir} holds a run of {old.num_towers} towers, not '
        f'{run.num_towers}: {run.network} '
        f'{" and ".join(filter(does.get, does))}, tower by tower')
