"""Directories of record files, and the files that describe the records.

    data_batch_1.bin, ...  training records
    test_batch.bin         test records
    batches.meta.txt       class names, one per line
    format.json            sizes of the records; default: those of CIFAR-10
    checksums.txt          CRC-32 of each file; optional
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import zlib

import tensorflow.compat.v1 as tf

from cifar10.data import record_files
from cifar10.data import records
from cifar10.data import verification
from cifar10.data.record_files import RecordFiles
from cifar10.util import filesystem
from cifar10.util.errors import UserError

# Names of the datasets, and of their directories in data_dir.
DATASETS = {'cifar10': 'cifar-10-batches-bin', 'cifar100': 'cifar100',
            'synthetic': 'synthetic', 'own': 'own'}
NAMES, FORMAT, CHECKSUMS = 'batches.meta.txt', 'format.json', 'checksums.txt'
TEST = 'test_batch.bin'


def training_file(number):
  """Returns the name of a file of training records. Numbers start at 1."""
  return f'data_batch_{number}.bin'


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The record files of a dataset, after they have been checked.

  Attributes:
    name: one of DATASETS.
    train, test: the `RecordFiles` to train and to evaluate on.
    checksums: tuple of the CRC-32s of the files of both, in hexadecimal.
  """
  name: str
  train: RecordFiles
  test: RecordFiles
  checksums: tuple = ()

  @property
  def format(self):
    """The `records.Format` of all files."""
    return self.train.format

  @property
  def directory(self):
    """Path of the directory with the files."""
    return os.path.dirname(self.train.paths[0])

  @property
  def checksum(self):
    """CRC-32 of the training files' own CRC-32s, in hexadecimal."""
    together = ''.join(self.checksums[:len(self.train.paths)])
    return f'{zlib.crc32(together.encode()):08x}'

  def check(self):
    """Raises UserError if a file is not what it was when it was loaded. Files
    of the same size, inode and time are not read."""
    if load(self.name, pathlib.Path(self.directory)) != self:
      raise UserError(f'{self.directory}: the record files have changed while '
                      'they were in use')

  @contextlib.contextmanager
  def unchanged(self):
    """Raises UserError if a file has changed by the end of the `with` block, in
    place of errors of TensorFlow."""
    try:
      yield
    except tf.errors.OpError:
      self.check()
      raise
    self.check()


def load(name, directory):
  """Checks the record files in a directory and returns the `Dataset`.

  Args:
    name: name of the dataset.
    directory: pathlib.Path of the directory.

  Raises:
    UserError: a file is missing or damaged.
  """
  train = [p for p in directory.glob('data_batch_*.bin')
           if re.fullmatch(r'data_batch_\d+\.bin', p.name)]
  train.sort(key=lambda path: int(path.stem.rpartition('_')[2]))
  test = [directory / TEST]
  for path in train[0] if train else directory / training_file(1), test[0]:
    if not path.exists():
      raise UserError(f'{path}: is missing. Put it there, or move {directory} '
                      'away to have it created again')
  expected = _expected_checksums(directory, train + test)
  record_format = _read_format(directory)
  checksums = verification.checksums(train + test, record_format)
  for path, found in zip(train + test, checksums):
    _compare(path, found, expected)
  return Dataset(name, record_files.find(train, record_format),
                 record_files.find(test, record_format), checksums)


@contextlib.contextmanager
def create(directory):
  """Yields a temporary directory to fill, and renames it when it is complete.

  Args:
    directory: pathlib.Path of the final directory, which must not exist.
  """
  part = directory.with_name(directory.name + '.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir()
  try:
    yield part
    (part / CHECKSUMS).write_text(''.join(
        f'{_checksum(path)}  {path.name}\n'
        for path in sorted(part.iterdir())))
    part.rename(directory)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise


def write_format(directory, record_format):
  """Writes the files that describe the records in a directory."""
  sizes = dataclasses.asdict(record_format)
  names = sizes.pop('class_names')
  (directory / FORMAT).write_text(json.dumps(sizes, indent=2) + '\n')
  (directory / NAMES).write_text(''.join(f'{name}\n' for name in names),
                                 encoding='utf-8')


def _read_format(directory):
  values = {}
  if (directory / FORMAT).exists():
    try:
      values = json.loads(filesystem.read_text(directory / FORMAT))
      if not isinstance(values, dict):
        raise ValueError('expected an object')
    except (ValueError, RecursionError) as e:
      raise UserError(f'{directory / FORMAT}: is no JSON object: {e}') from e
  if (directory / NAMES).exists():
    values['class_names'] = [
        line.strip() for line in filesystem.read_text(
            directory / NAMES).strip().split('\n')]
  try:
    return records.Format(**values)
  except (TypeError, UserError) as e:
    raise UserError(f'{directory}: {FORMAT} and {NAMES} do not describe '
                    f'records: {e}') from e


def _checksum(path):
  """Returns the CRC-32 of a file, in hexadecimal."""
  checksum = 0
  with path.open('rb') as f:
    while chunk := f.read(1 << 20):
      checksum = zlib.crc32(chunk, checksum)
  return f'{checksum:08x}'


def _expected_checksums(directory, paths):
  """Returns the list of checksums in a directory, by name; {} if it has none.

  Raises UserError if the list lacks a path, or if a file that is in the list
  but not in `paths` does not match it.
  """
  noted = directory / CHECKSUMS
  if not noted.exists():
    return {}
  lines = filesystem.read_text(noted).splitlines()
  expected = {line[10:]: line[:8] for line in lines}
  names = {path.name for path in paths}
  if not expected.keys() >= names or not all(
      re.fullmatch(r'[0-9a-f]{8}  [\w.]+', line) for line in lines):
    raise UserError(f'{noted}: is damaged: expected a line for each file '
                    'beside it: CRC-32, two spaces, name')
  for name in expected.keys() - names:
    _compare(directory / name, _checksum(directory / name), expected)
  return expected


def _compare(path, found, expected):
  if found != expected.get(path.name, found):
    raise UserError(
        f'{path}: has the CRC-32 {found}, expected {expected[path.name]}, as '
        f'when it was made. Restore it, or move {path.parent} away to have it '
        'created again')
