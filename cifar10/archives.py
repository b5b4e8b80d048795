"""Makes record files of CIFAR-10's archives, and of what was extracted from
them: binary record files, which are copied, or Python pickles."""

import gzip
import pathlib
import shutil
import tarfile
import zlib

from cifar10 import pickles
from cifar10 import records
from cifar10 import UserError

_BATCHES = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
# Either archive holds 186 MB; a few bytes of gzip can hold any number.
_LARGEST = 1 << 28


def extract(directory, archive):
  """Fills a directory from an archive, with the files that are wanted, wherever
  else in it they say they want to go.

  Args:
    directory: pathlib.Path of the directory.
    archive: path of the .tar.gz file.

  Raises:
    UserError: it is damaged, or lacks a batch.
  """
  try:
    with gzip.open(archive) as file, tarfile.open(
        fileobj=_Bounded(file)) as tar:
      convert(directory, archive, (
          (pathlib.PurePath(member.name).name, tar.extractfile(member))
          for member in tar if member.isfile()))
  except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError,
          zlib.error) as e:
    raise UserError(f'{archive}: cannot be extracted: {e}') from e


def convert(directory, source, files):
  """Fills a directory with record files.

  Args:
    directory: pathlib.Path of the directory.
    source: what the files are from, for messages.
    files: iterable of (name, binary file object), others among them.

  Raises:
    UserError: one is missing, or holds what it should not.
  """
  for name, file in files:
    with file:
      if name == 'batches.meta.txt' or name in [b + '.bin' for b in _BATCHES]:
        with (directory / name).open('wb') as copy:
          shutil.copyfileobj(file, copy)
      elif name in _BATCHES:
        records.write(directory / (name + '.bin'),
                      *pickles.read_batch(f'{source}: {name}', file))
      elif name == 'batches.meta':
        if names := pickles.read_label_names(f'{source}: {name}', file):
          (directory / 'batches.meta.txt').write_bytes(b'\n'.join(names))
  for name in _BATCHES:
    if not (directory / (name + '.bin')).exists():
      raise UserError(f'{source}: has no {name}. Complete it, or move it away')


class _Bounded:
  """Passes on what tarfile asks of a file, up to a size."""

  def __init__(self, file):
    self._file = file
    self.tell = file.tell

  def read(self, size):
    self._check(self._file.tell() + size)
    return self._file.read(size)

  def seek(self, position):
    self._check(position)
    return self._file.seek(position)

  def _check(self, end):
    if end > _LARGEST:
      raise ValueError(f'holds more than {_LARGEST:,} bytes')
