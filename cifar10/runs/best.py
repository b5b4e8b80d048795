"""Keeps a copy of the best checkpoint of a run (`eval --keep_best`)."""

import dataclasses
import glob
import json
import os
import shutil
import sys

import tensorflow.compat.v1 as tf

from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.util import filesystem
from cifar10.util.errors import UserError


def check(directory, checkpoint_dir):
  """Raises UserError if a directory cannot keep the best checkpoint of
  checkpoint_dir."""
  checkpoints.check_path(directory)
  if os.path.realpath(directory) == os.path.realpath(checkpoint_dir):
    raise UserError(f'--keep_best={directory}: is the directory of the run, '
                    'which keeps its own checkpoints: expected another one')


def keep(directory, checkpoint, run, precision):
  """Copies a checkpoint into a directory if it is better than the one there.

  Args:
    directory: the directory.
    checkpoint: path of the checkpoint.
    run: the `Run` that wrote it.
    precision: its precision on held-out records.

  Raises:
    UserError: the directory holds something else, or another process uses it.
  """
  step = checkpoints.step_of(checkpoint)
  path = os.path.join(directory, 'best.json')
  with filesystem.locked(directory):
    kept, best = checkpoints.paths_in(directory), description.load(directory)
    if (kept or best) and not os.path.exists(path):
      raise UserError(f'--keep_best={directory}: holds other checkpoints')
    if best and best.identity() != run.identity():
      raise UserError(f'--keep_best={directory}: holds the best of another run')
    # All that were the best, as this may end before the next is complete.
    precisions = {}
    if os.path.exists(path):
      try:
        precisions = dict(json.loads(filesystem.read_text(path)))
        kept_precision = precisions[str(checkpoints.step_of(kept[0]))]
        if best and kept_precision >= precision:
          return
      except (IndexError, KeyError):
        pass  # It ended before there was one.
      except (TypeError, ValueError) as e:
        raise UserError(f'{path}: is no table of precisions: {e}') from e
    precisions[str(step)] = precision
    # It ends at this step, so that evaluation does not wait for more.
    run = dataclasses.replace(run, train_dir=directory, max_steps=step)
    filesystem.write_text(path, json.dumps(precisions))
    if best is None:
      description.save(run)
    try:
      _copy(checkpoint, directory)
    except FileNotFoundError:
      print(f'{checkpoint}: the best so far, but the trainer deleted it before '
            'it was copied: a larger --keep_checkpoints of the training leaves '
            'more time', file=sys.stderr, flush=True)
      return
    description.save(run)
  print(f'The best so far: copied to {directory}', flush=True)


def _copy(path, directory):
  """Makes a checkpoint the only one of another directory. Others there, and
  what is left of them, are deleted when the copy is complete and sound.

  Raises:
    FileNotFoundError: the checkpoint was deleted meanwhile.
  """
  name = os.path.basename(path)
  target = os.path.join(directory, name)
  data = checkpoints.data_files(path)
  if not data:
    raise FileNotFoundError(path)
  # The index last: of a checkpoint that is being deleted, it goes first.
  for file in [*data, f'{path}.index']:
    copied = os.path.join(directory, os.path.basename(file))
    shutil.copyfile(file, f'{copied}.part')
    os.replace(f'{copied}.part', copied)
  checkpoints.sound(target)
  tf.train.update_checkpoint_state(directory, name, [name])
  for file in glob.glob('model.ckpt-*', root_dir=directory):
    if not file.startswith(f'{name}.'):
      os.remove(os.path.join(directory, file))
