"""Records: parses them in the graph; checks and writes files of them.

A record is a label, followed by an image as planes of bytes (red, green, blue),
each in row-major order: the binary version of
https://www.cs.toronto.edu/~kriz/cifar.html. A file consists of records without
a header, so its size determines the number of records.
"""

import dataclasses
import os
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.util import fields
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field

CIFAR10_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer',
                   'dog', 'frog', 'horse', 'ship', 'truck')
PART_BYTES = 1 << 24  # Of a file, to have in memory at a time.


@dataclasses.dataclass(frozen=True)
class Format:
  """The format of a record.

  Attributes:
    height, width: size of the image, in pixels.
    depth: number of channels: 1 for grayscale, 3 for RGB.
    skipped_bytes: number of ignored bytes before the label. In CIFAR-100, this
      is the superclass.
    label_bytes: number of bytes in the label, the most significant first.
    class_names: tuple of the names of the classes, indexed by label.
  """
  height: int = field(32, minimum=1, maximum=2**12)
  width: int = field(32, minimum=1, maximum=2**12)
  depth: int = field(3, choices=(1, 3))
  skipped_bytes: int = field(0, minimum=0, maximum=255)
  label_bytes: int = field(1, minimum=1, maximum=2)
  class_names: tuple = CIFAR10_CLASSES

  def __post_init__(self):
    names = self.class_names
    if isinstance(names, list):  # From JSON.
      object.__setattr__(self, 'class_names', tuple(names))
    fields.check(self, 'record format: {}={}')
    for name in names:
      # Names are lines of a file and columns of tables.
      if not isinstance(name, str) or not name.isprintable() or (
          not name or name != name.strip()):
        raise UserError(f'record format: {name!r}: expected the name of a '
                        'class, of printable characters')
    if not 0 < len(names) <= 256**self.label_bytes:
      raise UserError('record format: expected 1 to '
                      f'{256**self.label_bytes:,} class names, as '
                      f'{self.label_bytes} bytes tell apart')

  @property
  def num_classes(self):
    return len(self.class_names)

  @property
  def image_start(self):
    """Number of bytes before the image."""
    return self.skipped_bytes + self.label_bytes

  @property
  def record_bytes(self):
    return self.image_start + self.depth * self.height * self.width


CIFAR10 = Format()


def parse(data, record_format=CIFAR10):
  """Splits raw records into images and labels, in the graph.

  Args:
    data: uint8 [n, record_bytes] tensor.
    record_format: the `Format` of the records.

  Returns:
    images: uint8 [n, height, width, depth] tensor.
    labels: int32 [n] tensor.
  """
  f = record_format
  planes = tf.reshape(data[:, f.image_start:], [-1, f.depth, f.height, f.width])
  digits = tf.cast(data[:, f.skipped_bytes:f.image_start], tf.int32)
  return (tf.transpose(planes, [0, 2, 3, 1]),
          tf.reduce_sum(digits * _place_values(f), 1))


def _place_values(record_format):
  """Returns the place value of each byte of a label."""
  return 256 ** np.arange(record_format.label_bytes, dtype=np.int32)[::-1]


def images(data, record_format=CIFAR10):
  """Returns a view of the images in raw records, a uint8 [n, record_bytes]
  array: uint8 [n, height, width, depth]."""
  f = record_format
  planes = data[:, f.image_start:].reshape(-1, f.depth, f.height, f.width)
  return planes.transpose(0, 2, 3, 1)


def labels(data, record_format=CIFAR10):
  """Returns the labels of raw records: int32 [n]."""
  f = record_format
  return data[:, f.skipped_bytes:f.image_start] @ _place_values(f)


def count(path, record_format=CIFAR10):
  """Returns the number of records in a file, computed from its size.

  Raises:
    UserError: the file cannot be read, is empty, or ends within a record.
  """
  with filesystem.explained(path):
    size = os.path.getsize(path)
  num_records, rest = divmod(size, record_format.record_bytes)
  if rest or not num_records:
    raise UserError(
        f'{path}: size is {size} bytes, expected a positive multiple of the '
        f'record size, {record_format.record_bytes}')
  return num_records


def check(path, record_format=CIFAR10, report=lambda position: None):
  """Reads a record file once, and checks its labels.

  Args:
    path: path of the file.
    record_format: the `Format` of its records.
    report: function that is called with the number of bytes read so far.

  Returns:
    CRC-32 of the file, in hexadecimal.

  Raises:
    UserError: see `count()`; or a label is not one of the classes. The message
      names the byte of the label.
  """
  f, start, checksum, num_bad = record_format, 0, 0, 0
  count(path, f)
  with filesystem.explained(path), open(path, 'rb') as file:
    while part := file.read(max(PART_BYTES // f.record_bytes, 1)
                            * f.record_bytes):
      checksum = zlib.crc32(part, checksum)
      found = labels(np.frombuffer(part, np.uint8).reshape(-1, f.record_bytes),
                     f)
      bad = np.flatnonzero(found >= f.num_classes)
      if bad.size and not num_bad:
        record, label = start + bad[0], found[bad[0]]
      num_bad += bad.size
      start += len(found)
      report(start * f.record_bytes)
  if num_bad:
    raise UserError(
        f'{path}: record {record} (byte '
        f'{record * f.record_bytes + f.skipped_bytes}) has label {label}, '
        f'expected 0 to {f.num_classes - 1}; {num_bad} such records in all')
  return f'{checksum:08x}'


def encode(images, labels, record_format=CIFAR10):
  """Encodes images and labels as records.

  Args:
    images: uint8 [n, height, width, depth] array.
    labels: integer [n] array of labels that fit in label_bytes.
    record_format: the `Format`. Sizes and number of classes are not checked.

  Returns:
    uint8 [n, record_bytes] array.
  """
  f, labels = record_format, np.asarray(labels, np.int64)
  if labels.size and not 0 <= labels.min() <= labels.max() < (
      256**f.label_bytes):
    raise ValueError(f'labels must fit {f.label_bytes} bytes')
  planes = np.asarray(images, np.uint8).transpose(0, 3, 1, 2)
  return np.concatenate(
      [np.zeros([len(labels), f.skipped_bytes], np.uint8),
       (labels[:, np.newaxis] // _place_values(f) % 256).astype(np.uint8),
       planes.reshape(len(labels), -1)], axis=1)


def write(path, images, labels, record_format=CIFAR10):
  """Writes or replaces a record file. For arguments, see `encode()`."""
  with open(path, 'wb') as file:
    file.write(encode(images, labels, record_format))
