"""Makes record files of the user's pictures: from a list of files with labels,
from a folder for each class, or from the house numbers of SVHN."""

import collections
import csv
import io
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.data import directories
from cifar10.data import image_files
from cifar10.data import records
from cifar10.data import repeats
from cifar10.util import console
from cifar10.util import filesystem
from cifar10.util.console import Progress
from cifar10.util.errors import UserError

# Few files: each batch of a training looks for its records in all of them.
_FILE_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 24  # Bytes of images in memory at a time.


def import_csv(directory, path, size, test_fraction, strict=False):
  """Imports the pictures in a list.

  Args:
    directory: pathlib.Path of the directory of record files to create.
    path: path of a CSV file with lines PATH,LABEL. Paths are relative to the
      file's directory; labels are numbers or names. The first line is a header
      if its PATH is missing or a folder, and has no extension of an image.
    size: height and width of the records, in pixels.
    test_fraction: fraction of each class to use as test records.
    strict: whether to refuse pictures that are unreadable or have two labels,
      instead of skipping them. Duplicates are always skipped.

  Raises:
    UserError: the list is invalid, a picture is refused, or no picture can be
      read.
  """
  text = filesystem.read_text(path, 1 << 30).lstrip('\ufeff')
  if '\0' in text:
    raise UserError(f'{path}: is no list of PATH,LABEL: it has null bytes')
  try:
    reader = csv.reader(io.StringIO(text, newline=''))
    lines = [(reader.line_num, line) for line in reader if line]
  except csv.Error as e:
    raise UserError(f'{path}: is no list of PATH,LABEL: {e}') from e
  for number, line in lines:
    if len(line) != 2 or not line[1].strip():
      raise UserError(f'{path}: line {number}: {",".join(line)!r}, expected '
                      'PATH,LABEL')
  base = os.path.dirname(path)
  pictures = [(os.path.join(base, file), label.strip())
              for _, (file, label) in lines]
  first = pictures[0][0] if pictures else ''
  if pictures and not image_files.is_named_image(first) and (
      os.path.isdir(first) or not os.path.exists(first)):
    print(f'{path}: header line: {",".join(lines[0][1])}', file=sys.stderr)
    del pictures[0]
  pictures, _ = repeats.leave_out(pictures, [], strict)
  _import_pictures(directory, path, _split(pictures, test_fraction), size,
                   strict)


def import_folders(directory, path, size, test_fraction, strict=False):
  """Imports the pictures in a directory that has a folder for each class.

  Args:
    path: path of the directory. Instead of the classes, it can have two folders
      `train` and `test`, each with a folder for each class.
    directory, size, test_fraction, strict: see `import_csv()`. The folders
      `train` and `test` take precedence over test_fraction.

  Raises:
    UserError: a picture is refused, or no picture can be read.
  """
  folders = sorted(_folders(path))
  if 'train' in folders and _folders(os.path.join(path, 'train')) and (
      folders != ['test', 'train']):
    raise UserError(f'{path}: has the folders {", ".join(folders)}. Expected '
                    'train and test, or one for each class')
  if folders == ['test', 'train']:
    split = repeats.leave_out(*(_labelled(os.path.join(path, part))
                                for part in ('train', 'test')), strict)
  else:
    pictures, _ = repeats.leave_out(_labelled(path), [], strict)
    split = _split(pictures, test_fraction)
  _import_pictures(directory, path, split, size, strict)


def import_svhn(directory, path, size, *unused_args):
  """Imports the cropped digits of SVHN, http://ufldl.stanford.edu/housenumbers.

  SVHN has test records and no unreadable pictures, so the other arguments of
  `import_csv()` are ignored.

  Args:
    path: path of the directory with train_32x32.mat and test_32x32.mat.
    directory, size: see `import_csv()`.

  Raises:
    UserError: a file is missing or damaged, or SciPy is not installed.
  """
  try:
    import scipy.io  # An optional dependency, used only here.
  except ImportError as e:
    raise UserError("--import_svhn needs SciPy: pip install '.[svhn]'") from e
  record_format = records.Format(size, size, class_names=tuple('0123456789'))

  def digits(name):
    """Yields the resized images and the labels of a file in chunks."""
    file = os.path.join(path, name)
    try:
      content = scipy.io.loadmat(file)
      images = content['X'].transpose(3, 0, 1, 2)
      labels = content['y'].reshape(len(images)) % 10  # 10 means 0.
      if images.dtype != np.uint8 or images.shape[3] != 3:
        raise ValueError(f'{images.dtype} {images.shape}')
    except OSError as e:
      raise UserError(f'{file}: {e.strerror or e}') from e
    except Exception as e:  # Damaged files raise almost anything.
      raise UserError(f'{file}: is not a file of cropped digits: {e!r}') from e
    with tf.Graph().as_default(), tf.Session() as session:
      whole = tf.placeholder(tf.uint8, [None, None, None, 3])
      resized = image_files.fit(whole, record_format)
      progress = Progress(len(images), 'images')
      size = _chunk(record_format)
      for start in range(0, len(images), size):
        chunk = slice(start, start + size)
        yield session.run(resized, {whole: images[chunk]}), labels[chunk]
        progress.report(min(chunk.stop, len(images)))

  _write(directory, record_format, digits('train_32x32.mat'),
         digits('test_32x32.mat'))


def _folders(path):
  with filesystem.explained(path):
    return [entry.name for entry in os.scandir(path)
            if entry.is_dir() and not entry.name.startswith('.')]


def _labelled(path):
  """Returns a list of (path, label) for the pictures in a folder per class."""
  pictures, others = [], sum(
      entry.is_file() and not entry.name.startswith('.')
      for entry in os.scandir(path))
  for name in sorted(_folders(path)):
    files = image_files.files_in(os.path.join(path, name))
    found = [file for file in files
             if image_files.is_named_image(file) and os.path.isfile(file)]
    pictures += [(file, name) for file in found]
    others += len(files) - len(found)
  if others:
    print(f'{path}: {others:,} files are not pictures in folders, by their '
          f'names ({", ".join(image_files.EXTENSIONS)})', file=sys.stderr)
  return pictures


def _split(pictures, test_fraction):
  """Splits each class into training and test pictures.

  Calls with the same pictures return the same split.
  """
  by_label = {}
  for picture in sorted(pictures):
    by_label.setdefault(picture[1], []).append(picture)
  rng, train, test = np.random.default_rng(1), [], []
  for label in sorted(by_label):
    own = [by_label[label][i] for i in rng.permutation(len(by_label[label]))]
    count = min(max(round(test_fraction * len(own)), 1), len(own) - 1)
    test += own[:count]
    train += own[count:]
  return train, test


def _import_pictures(directory, source, split, size, strict):
  """Writes the pictures of a split, training and test lists of (path, label).
  """
  found = {label for part in split for _, label in part}
  for part, what in zip(split, ('train', 'test')):
    if not part:
      raise UserError(f'{source}: has no pictures to {what} on')
  try:
    names = sorted(found, key=lambda name: (int(name), name))
  except ValueError:
    names = sorted(found)
  record_format = records.Format(
      size, size, label_bytes=1 if len(names) <= 256 else 2,
      class_names=tuple(names))
  labels = {name: label for label, name in enumerate(names)}
  count = sum(map(len, split))
  progress = Progress(count, 'images')
  written = [collections.Counter(), collections.Counter()]  # Images by label.

  def read(part):
    """Yields the images and labels of a part of the split, in chunks."""
    done = part * len(split[0])
    # Shuffled, because --holdout holds out the last training records.
    pictures = [split[part][i] for i in
                np.random.default_rng(2).permutation(len(split[part]))]
    chunk = []
    for index, image, reason in image_files.decode_files(
        [path for path, _ in pictures], record_format):
      path, label = pictures[index]
      if image is not None:
        chunk.append((image, labels[label]))
        written[part][label] += 1
      elif strict:
        raise UserError(f'{console.one_line(path)}: {reason}')
      else:
        print(f'left out: {console.one_line(path)}: {reason}', file=sys.stderr,
              flush=True)
      progress.report(done + index + 1)
      if len(chunk) == _chunk(record_format) or (
          chunk and index + 1 == len(pictures)):
        yield tuple(map(np.array, zip(*chunk)))
        chunk = []

  _write(directory, record_format, read(0), read(1))
  if left_out := count - sum(counts.total() for counts in written):
    print(f'{left_out:,} of {count:,} pictures were left out', file=sys.stderr,
          flush=True)
  for counts, what in zip(written, ('train', 'test')):
    if missing := [name for name in names if not counts[name]]:
      print(f'no picture to {what} on: {", ".join(missing)}', file=sys.stderr,
            flush=True)


def _chunk(record_format):
  """Returns the number of images to have in memory at a time."""
  return 1 + _CHUNK_BYTES // record_format.record_bytes


def _write(directory, record_format, train, test):
  """Creates the directory from iterables of (images, labels) chunks."""
  number, path = 0, None
  with directories.create(directory) as part:
    for images, labels in train:
      if path is None or path.stat().st_size >= _FILE_BYTES:
        number += 1
        path = part / directories.training_file(number)
      with path.open('ab') as file:
        file.write(records.encode(images, labels, record_format))
    with (part / directories.TEST).open('ab') as file:
      for images, labels in test:
        file.write(records.encode(images, labels, record_format))
    if not number or not (part / directories.TEST).stat().st_size:
      raise UserError(f'{directory}: no picture could be read to '
                      + ('test on' if number else 'train on'))
    directories.write_format(part, record_format)
