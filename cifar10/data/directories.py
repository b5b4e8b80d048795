"""Directories of record files, and the files that describe the records.

    data_batch_1.bin, ...  training records
    test_batch.bin         test records
    batches.meta.txt       class names, one per line
    format.json            sizes of the records; default: those of CIFAR-10
    checksums.txt          CRC-32 of each file; optional
"""

import contextlib
import dataclasses
import functools
import json
import re
import shutil
import zlib

import numpy as np

from cifar10.data import records
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
    format: the `records.Format` of all files.
    train: tuple of paths of the training files, in numerical order.
    test: tuple of paths of the test files.
    checksum: CRC-32 of the training files' own CRC-32s, in hexadecimal.
  """
  name: str
  format: records.Format
  train: tuple
  test: tuple
  checksum: str

  def count(self, files):
    """Returns the number of records in some of the dataset's files."""
    return sum(records.count(path, self.format) for path in files)

  def read_images(self, files):
    """Returns all images in some of the dataset's files, as a uint8 [n, height,
    width, depth] array."""
    return np.concatenate([
        records.images(records.read(path, self.format), self.format)
        for path in files])

  def pick(self, files, indices):
    """Returns the images at `indices` in some of the dataset's files, as a
    uint8 [n, height, width, depth] array."""
    images = [records.images(records.read(path, self.format), self.format)
              for path in files]
    ends = np.cumsum([len(part) for part in images])
    where = np.searchsorted(ends, indices, side='right')
    return np.array([images[k][i - ends[k]]  # A negative index.
                     for k, i in zip(where, indices)])


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
  for path in train or [directory / training_file(1)], test:
    if not path[0].exists():
      raise UserError(f'{path[0]}: is missing. Put it there, or move '
                      f'{directory} away to have it created again')
  checksums = _verify(directory, [path.name for path in train + test])
  record_format = _read_format(directory)
  for path in train + test:
    records.read(path, record_format)
  together = ''.join(checksums[path.name] for path in train)
  return Dataset(name, record_format, tuple(map(str, train)),
                 tuple(map(str, test)), f'{zlib.crc32(together.encode()):08x}')


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
  return _checksum_of_state(path, filesystem.state(path))


@functools.lru_cache(maxsize=1024)
def _checksum_of_state(path, unused_state):
  checksum = 0
  with path.open('rb') as f:
    while chunk := f.read(1 << 20):
      checksum = zlib.crc32(chunk, checksum)
  return f'{checksum:08x}'


def _verify(directory, names):
  """Returns the CRC-32s of files by their names.

  If the directory has a list of checksums, raises UserError unless the list
  contains these files and every file in it matches.
  """
  noted = directory / CHECKSUMS
  expected = {}
  if noted.exists():
    lines = filesystem.read_text(noted).splitlines()
    expected = {line[10:]: line[:8] for line in lines}
    if not expected.keys() >= set(names) or not all(
        re.fullmatch(r'[0-9a-f]{8}  [\w.]+', line) for line in lines):
      raise UserError(f'{noted}: is damaged: expected a line for each file '
                      'beside it: CRC-32, two spaces, name')
  found = {}
  for name in dict.fromkeys([*names, *expected]):
    path = directory / name
    found[name] = _checksum(path)
    if found[name] != expected.get(name, found[name]):
      raise UserError(
          f'{path}: has the CRC-32 {found[name]}, expected {expected[name]}, '
          f'as when it was made. Restore it, or move {directory} away to have '
          'it created again')
  return found
