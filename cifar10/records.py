"""The on-disk record format: parse it in a graph, read, check and write it.

A record is the label (1 byte), then the image as planes of bytes (red, green,
blue), each row by row: the binary version of
https://www.cs.toronto.edu/~kriz/cifar.html. A file is records end to end, with
no header, so its size tells how many it holds.
"""

import dataclasses
import os

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10 import UserError

CIFAR10_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer',
                   'dog', 'frog', 'horse', 'ship', 'truck')


@dataclasses.dataclass(frozen=True)
class Format:
  """What one record holds; sizes in bytes are sizes in pixels."""
  height: int = 32
  width: int = 32
  depth: int = 3
  class_names: tuple = CIFAR10_CLASSES

  @property
  def num_classes(self):
    return len(self.class_names)

  @property
  def record_bytes(self):
    return 1 + self.depth * self.height * self.width


CIFAR10 = Format()


def parse(data, record_format=CIFAR10):
  """Splits raw records into images and labels, in the graph.

  Args:
    data: uint8 [n, record_bytes] tensor.
    record_format: their `Format`.

  Returns:
    images: uint8 [n, height, width, depth] tensor.
    labels: int32 [n] tensor.
  """
  f = record_format
  labels = tf.cast(data[:, 0], tf.int32)
  planes = tf.reshape(data[:, 1:], [-1, f.depth, f.height, f.width])
  return tf.transpose(planes, [0, 2, 3, 1]), labels


def images(data, record_format=CIFAR10):
  """Returns uint8 [n, height, width, depth], a view, of records as `read()`
  returns them."""
  f = record_format
  planes = data[:, 1:].reshape(-1, f.depth, f.height, f.width)
  return planes.transpose(0, 2, 3, 1)


def count(path, record_format=CIFAR10):
  """Returns how many records the file at `path` holds, by its size.

  Raises:
    UserError: it cannot be read, is empty, or ends in the middle of a record.
  """
  try:
    size = os.path.getsize(path)
  except OSError as e:
    raise UserError(f'{path}: cannot be read: {e.strerror}') from e
  num_records, rest = divmod(size, record_format.record_bytes)
  if rest or not num_records:
    raise UserError(
        f'{path}: size is {size} bytes, expected a positive multiple of the '
        f'record size, {record_format.record_bytes}')
  return num_records


def read(path, record_format=CIFAR10):
  """Maps a record file into memory, checked.

  Args:
    path: the file.
    record_format: the `Format` of its records.

  Returns:
    Read-only uint8 [n, record_bytes] array.

  Raises:
    UserError: naming the file and the byte: see `count`, or a label is not
      one of the classes.
  """
  num_records = count(path, record_format)
  try:
    data = np.memmap(path, np.uint8, 'r',
                     shape=(num_records, record_format.record_bytes))
  except (OSError, ValueError) as e:
    raise UserError(f'{path}: cannot be read: {e}') from e
  bad = np.flatnonzero(data[:, 0] >= record_format.num_classes)
  if bad.size:
    record = int(bad[0])
    raise UserError(
        f'{path}: record {record} (byte {record * record_format.record_bytes}) '
        f'has label {data[record, 0]}, expected 0 to '
        f'{record_format.num_classes - 1}; {bad.size} such records in all')
  return data


def write(path, images, labels):
  """Writes a record file.

  Args:
    path: the file, replaced if it exists.
    images: uint8 [n, height, width, depth] array.
    labels: integer [n] array, each 0 to 255.
  """
  labels = np.asarray(labels)
  if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
    raise ValueError('labels must be 0 to 255, to fit a byte')
  planes = np.asarray(images, np.uint8).transpose(0, 3, 1, 2)
  data = np.concatenate([labels.astype(np.uint8)[:, np.newaxis],
                         planes.reshape(len(labels), -1)], axis=1)
  with open(path, 'wb') as f:
    f.write(data)
