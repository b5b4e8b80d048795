"""Finds the checkpoints of a directory, and tells which are sound.

`DIRECTORY/checkpoint`, the state file, names the newest, once that is complete.
Where it fails, because files are damaged or gone, the directory itself tells
what else there is.
"""

import functools
import glob
import os
import re
import shutil
import sys

import tensorflow.compat.v1 as tf

from cifar10.util.errors import UserError
from cifar10.util import filesystem


def newest(directory):
  """Finds the newest checkpoint whose every byte is as it was written.

  What is wrong with those that should have been it goes to stderr, once.

  Returns:
    Its path, as savers take it; None if there is no checkpoint.

  Raises:
    UserError: there are checkpoints, or were, and none of them is sound.
  """
  while True:
    paths, problems = find(directory), []
    for path in paths:
      problem = _problem(path, identity(path))
      if problem is None:
        for line in problems:
          _tell_once(f'{line}. Going on to an earlier checkpoint')
        return path
      problems.append(problem)
      if find(directory) != paths:
        break  # A trainer went on meanwhile, and deleted it.
    else:
      if not problems and os.path.exists(os.path.join(directory, 'checkpoint')):
        problems = ['there is none, but a file that names one, `checkpoint`']
      if problems:
        raise UserError(f'{directory}: no checkpoint can be read\n  '
                        + '\n  '.join(problems))
      return None


def check_path(path):
  """Raises UserError if TensorFlow would take the path of a checkpoint, or of
  its directory, for a pattern: it would find no checkpoint, or delete those of
  another directory that the pattern matches."""
  if re.search(r'[*?[\\]', os.fspath(path)):
    raise UserError(f'{path}: expected a path without *, ?, [ and \\, which '
                    'TensorFlow takes for patterns in names of checkpoints')


def sound(path):
  """Returns the path of a checkpoint, as savers take it; UserError unless its
  every byte is as it was written."""
  check_path(path)
  problem = _problem(path, identity(path))
  if problem:
    raise UserError(problem)
  return path


@functools.lru_cache(maxsize=None)
def _tell_once(line):
  print(line, file=sys.stderr, flush=True)


def find(directory):
  """Returns the paths of the checkpoints in a directory in the order to try
  them: the one that the state file names, then by their steps, latest first."""
  try:
    names = os.listdir(directory)
  except (FileNotFoundError, NotADirectoryError):
    return []
  paths = [os.path.join(directory, name[:-len('.index')]) for name in names
           if re.search(r'-\d+\.index$', name)]
  paths.sort(key=step_of, reverse=True)
  named = _named(directory)
  if named in paths:
    paths.remove(named)
  return [named, *paths] if named else paths


def _named(directory):
  """Returns the path of the checkpoint that the state file names, or None."""
  try:
    state = tf.train.get_checkpoint_state(directory)
  except ValueError:  # It is no text, or names nothing.
    return None
  if state is None:
    return None
  # The 2016 code noted absolute paths, wherever the directory went since.
  return os.path.join(directory,
                      os.path.basename(state.model_checkpoint_path))


def identity(path):
  """Returns what tells the checkpoint at `path` from an earlier one of the same
  name."""
  status = []
  for name in [path, *sorted(glob.glob(f'{glob.escape(path)}.*'))]:
    try:
      status.append((name, os.path.getsize(name), os.stat(name).st_mtime_ns))
    except FileNotFoundError:
      pass  # Or it is being deleted.
  return path, tuple(status)


@functools.lru_cache(maxsize=16)
def _problem(path, unused_identity):
  """Returns what is wrong with a checkpoint, None if nothing is."""
  index = f'{path}.index'
  if os.path.exists(path):
    index = path  # The format before TensorFlow 1.0, one file.
  if not os.path.exists(index):
    return f'{index}: is missing'
  # The index and each tensor carry a checksum, which reading verifies.
  damaged = index
  try:
    reader = tf.train.load_checkpoint(path)
    damaged = ' or '.join(data_files(path)) or index
    for tensor in reader.get_variable_to_shape_map():
      reader.get_tensor(tensor)
  except Exception as e:  # Damaged files raise almost anything.
    problem = filesystem.reason(e)
    # The index tells how many data files there should be.
    if named := re.match(r'(.*\.data-\d{5}-of-\d{5}); No such', problem):
      return f'{named[1]}: is missing'
    if shard := re.search(r' shard (\d+) ', problem):
      damaged = ' or '.join(file for file in data_files(path)
                            if f'.data-{int(shard[1]):05}-' in file)
    return f'{damaged}: is damaged: {problem}'
  return None


def data_files(path):
  """Returns the paths of the files with the values of a checkpoint: one, or
  several if its saver was sharded, as that of a MonitoredTrainingSession is."""
  return sorted(glob.glob(f'{glob.escape(path)}.data-?????-of-?????'))


def adopt(path):
  """Makes the state file name this checkpoint, and those before it, for savers
  to go on from; removes what killed processes left of others."""
  directory = os.path.abspath(os.path.dirname(path))
  step, kept = step_of(path), find(directory)
  for name in glob.glob('model.ckpt-*.data-*', root_dir=directory):
    checkpoint = os.path.join(directory, name.partition('.data-')[0])
    if checkpoint not in kept and step_of(checkpoint) < step:
      os.remove(os.path.join(directory, name))
  names = [os.path.basename(checkpoint) for checkpoint in sorted(
      kept, key=step_of) if step_of(checkpoint) < step]
  tf.train.update_checkpoint_state(
      directory, os.path.basename(path), [*names, os.path.basename(path)])


def remove_unfinished(directory):
  """Removes what a killed process left of files it was writing."""
  for pattern in '*.tempstate*', 'checkpoint.tmp*', 'graph.pbtxt.tmp*':
    for name in glob.glob(pattern, root_dir=directory):
      os.remove(os.path.join(directory, name))


def step_of(path):
  """Returns the step in the name of a checkpoint, `...-1000`."""
  match = re.search(r'-(\d+)$', path)
  if not match:
    raise UserError(f'{path}: expected a name that ends in -STEP')
  return int(match.group(1))


def check_variables(path, variables):
  """Raises UserError unless a checkpoint has the variables of a graph.

  Args:
    path: of the checkpoint.
    variables: dict of variables by the names they have in the checkpoint.
  """
  found = tf.train.load_checkpoint(path).get_variable_to_shape_map()
  for name, variable in variables.items():
    shape = variable.shape.as_list()
    if found.get(name) != shape:
      raise UserError(f'{path}: is not of this network: {name} '
                      f'{found.get(name, "is missing")}, expected {shape}')


def copy(path, directory):
  """Makes a checkpoint the only one of another directory. What is there goes
  when the copy is complete, and sound.

  Raises:
    FileNotFoundError: it was deleted meanwhile.
  """
  os.makedirs(directory, exist_ok=True)
  name = os.path.basename(path)
  target = os.path.join(directory, name)
  data = data_files(path)
  if not data:
    raise FileNotFoundError(path)
  # The index last: of a checkpoint that is being deleted, it goes first.
  for file in [*data, f'{path}.index']:
    copied = os.path.join(directory, os.path.basename(file))
    shutil.copyfile(file, f'{copied}.part')
    os.replace(f'{copied}.part', copied)
  sound(target)
  tf.train.update_checkpoint_state(directory, name, [name])
  for other in find(directory):
    if other != target:
      for old in glob.glob(f'{glob.escape(other)}.*'):
        os.remove(old)


def initialize_from(path):
  """Makes the variables of a network start from a checkpoint.

  Those do which have the same name and shape there; which have not, is told.
  Statistics of the data are of other data, and do not.

  Args:
    path: of the checkpoint, or of a directory, whose newest it is.

  Raises:
    UserError: it is no sound checkpoint, or has none of the variables.
  """
  checkpoint = newest(path) if os.path.isdir(path) else sound(path)
  if checkpoint is None:
    raise UserError(f'--init_from={path}: there is no checkpoint')
  there = tf.train.load_checkpoint(checkpoint).get_variable_to_shape_map()
  matching, others = {}, []
  for variable in tf.get_collection(tf.GraphKeys.MODEL_VARIABLES):
    name, shape = variable.op.name, variable.shape.as_list()
    if name.startswith('statistics/'):
      continue
    if there.get(name) == shape:
      matching[name] = variable
    else:
      others.append(f'{name} {shape} (there: {there.get(name, "missing")})')
  if not matching:
    raise UserError(f'--init_from={path}: has none of the variables: '
                    + ', '.join(others))
  tf.train.init_from_checkpoint(checkpoint, matching)
  print(f'Starting from {len(matching)} variables of {checkpoint}'
        + (', but not ' if others else '') + ', '.join(others), flush=True)
