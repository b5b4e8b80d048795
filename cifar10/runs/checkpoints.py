"""The checkpoints in a directory, and which of them are sound.

`DIRECTORY/checkpoint`, the state file, names the newest complete checkpoint. If
that is damaged or missing, the others are found by the names of their files.
"""

import contextlib
import functools
import glob
import hashlib
import os
import re
import sys

import tensorflow.compat.v1 as tf

from cifar10.util import filesystem
from cifar10.util.errors import UserError


def newest(directory):
  """Finds the newest checkpoint that is sound: every byte is as written.

  Prints to stderr, once, what is wrong with newer ones.

  Returns:
    Its path, as savers take it; None if there is no checkpoint.

  Raises:
    UserError: there are checkpoints, or were, and none of them is sound.
  """
  paths, problems = paths_in(directory), []
  for path in paths:
    problem = _problem(path, identity(path))
    if problem is None:
      for line in problems:
        _tell_once(f'{line}. Going on to an earlier checkpoint')
      return path
    problems.append(problem)
    if paths_in(directory) != paths:
      return newest(directory)  # A trainer went on meanwhile, and deleted it.
  if not problems and os.path.exists(os.path.join(directory, 'checkpoint')):
    problems = ['there is none, but a file that names one, `checkpoint`']
  if problems:
    raise UserError(f'{directory}: no checkpoint can be read\n  '
                    + '\n  '.join(problems))
  return None


def check_path(path):
  """Raises UserError if TensorFlow would take the path of a checkpoint, or of
  its directory, for a pattern. It would find no checkpoint, or delete the
  checkpoints of another directory that matches the pattern."""
  if re.search(r'[*?[\\]', os.fspath(path)):
    raise UserError(f'{path}: expected a path without *, ?, [ and \\, which '
                    'TensorFlow takes for patterns in names of checkpoints')


def path_of(name):
  """Returns the absolute path of a checkpoint, or of a directory of some. The
  name can be that of one of its files, to which shells complete it."""
  return os.path.abspath(re.sub(r'\.(index|data-\d{5}-of-\d{5})$', '', name))


def sound(path):
  """Returns the path of a checkpoint; UserError unless it is sound."""
  check_path(path)
  problem = _problem(path, identity(path))
  if problem:
    raise UserError(problem)
  return path


@functools.cache
def _tell_once(line):
  print(line, file=sys.stderr, flush=True)


def paths_in(directory):
  """Returns the paths of the checkpoints in a directory, in the order to try
  them: first the one that the state file names, then the latest first."""
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
  """Returns a value that differs from that of an earlier checkpoint of the same
  name: sizes and times of its files."""
  status = []
  for name in [path, *sorted(glob.glob(f'{glob.escape(path)}.*'))]:
    try:
      status.append((name, os.path.getsize(name), os.stat(name).st_mtime_ns))
    except FileNotFoundError:
      pass  # Or it is being deleted.
  return path, tuple(status)


def _index(path):
  """Returns the path of the index of a checkpoint. In the format before
  TensorFlow 1.0, that is its one file."""
  return path if os.path.exists(path) else f'{path}.index'


def fingerprint(path):
  """Returns a text that is the same for checkpoints of the same contents, also
  copies: a hash of the index, which has the checksums of all values. None if
  there is no checkpoint, or a trainer has just deleted it."""
  try:
    with open(_index(path), 'rb') as file:
      return hashlib.sha256(file.read()).hexdigest()
  except FileNotFoundError:
    return None


@functools.lru_cache(maxsize=16)
def _problem(path, unused_identity):
  """Returns what is wrong with a checkpoint, None if nothing is.

  Raises:
    UserError: it cannot be told, for example without the permission to read.
  """
  index = _index(path)
  if not os.path.exists(index):
    return f'{index}: is missing'
  for name in index, *data_files(path):
    with filesystem.explained(name), contextlib.suppress(FileNotFoundError):
      with open(name, 'rb') as file:
        file.read(1)
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


def adopt_newest(directory):
  """Makes savers and sessions go on from the newest sound checkpoint.

  Rewrites the state file to name it and those before it, and removes what
  killed processes left of others.

  Args:
    directory: the train_dir.

  Returns:
    Path of the checkpoint; None if there is none.

  Raises:
    UserError: none is sound, or the newest is not of the default graph.
  """
  path = newest(directory)
  if path is None:
    return None
  check_variables(path, {v.op.name: v for v in tf.global_variables()})
  directory = os.path.abspath(directory)
  step, kept = step_of(path), paths_in(directory)
  for name in os.listdir(directory):
    checkpoint = os.path.join(directory, name.partition('.data-')[0])
    if re.fullmatch(r'model\.ckpt-\d+\.data-\d{5}-of-\d{5}', name) and (
        checkpoint not in kept and step_of(checkpoint) < step):
      os.remove(os.path.join(directory, name))
  names = [os.path.basename(checkpoint) for checkpoint in sorted(
      kept, key=step_of) if step_of(checkpoint) < step]
  tf.train.update_checkpoint_state(
      directory, os.path.basename(path), [*names, os.path.basename(path)])
  return path


def remove_unfinished(directory):
  """Removes files that a killed process did not finish."""
  for pattern in ('*.tempstate*', 'checkpoint.tmp*', '*.json.*.part',
                  'graph.pbtxt.*.part'):
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
  for name, variable in sorted(variables.items()):
    shape = variable.shape.as_list()
    if found.get(name) != shape:
      raise UserError(f'{path}: is not of this network: {name} '
                      f'{found.get(name, "is missing")}, expected {shape}')


def find_source(run):
  """Returns the path of the checkpoint that a run is to start from.

  Raises:
    UserError: there is none that is sound, or it is the run's own.
  """
  path = run.init_from
  check_path(path)
  if run.train_dir in (path, os.path.dirname(path)):
    raise UserError(f'--init_from={path}: is in --train_dir, which is for the '
                    'new run: expected another --train_dir')
  checkpoint = newest(path) if os.path.isdir(path) else sound(path)
  if checkpoint is None:
    raise UserError(f'--init_from={path}: there is no checkpoint')
  return checkpoint


def init_from(run):
  """Makes the variables of a network start from those of run.init_from, unless
  the run has a checkpoint already.

  To be called when the network is built, and before `model.train()`. Restores
  variables whose names and shapes match; prints the others. Statistics of the
  training data are not restored, as the data differs.

  Args:
    run: the `Run`. Its init_from is a checkpoint, or a directory with one.

  Raises:
    UserError: `find_source()` raises it, or none of the variables is there.
  """
  if not run.init_from or paths_in(run.train_dir):
    return
  checkpoint = find_source(run)
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
    raise UserError(f'--init_from={run.init_from}: has none of the variables: '
                    + ', '.join(others))
  tf.train.init_from_checkpoint(checkpoint, matching)
  print(f'Starting from {len(matching)} variables of {checkpoint}'
        + (', but not ' if others else '') + ', '.join(others), flush=True)
