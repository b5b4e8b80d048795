"""Parses the format, size, orientation and structure of image files, in the
graph and without decoding them.

Files are not trusted. Therefore reading past the end returns zeros, positions
are int64, and the number of iterations of a loop is limited.
"""

import typing

import numpy as np
import tensorflow.compat.v1 as tf

# Limit for one image, which is checked before it is decoded.
MAX_PIXELS = 100_000_000
MAX_SCANS = 32  # Limit for a JPEG file. Each scan can cover all pixels.
# The first bytes of JPEG, PNG, GIF and BMP.
_MAGIC = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF8', b'BM'
NOWHERE = np.int64(0), np.int64(0)  # Start and length of missing data.
_MAX_BLOCKS = 10_000  # Iterations of a loop, which take less than a second.
_RUN = 64  # Maximum number of blocks of equal size to skip at once.
_PADDING = 16  # Zeros after the file: no read from one position is longer.
_ORIENTATION, _SHORT, _LONG = 0x112, 3, 4

# Roles of JPEG markers, the bytes that follow a byte 255. Fill bytes and
# restart markers are skipped as in libjpeg, which could otherwise find scans
# that are not counted here. A segment's length follows its marker. The last
# marker begins the compressed data or ends the file.
_FILLS, _IS_SEGMENT, _IS_LAST = range(3)
_JPEG_ROLES = np.full(256, _IS_SEGMENT)
_JPEG_ROLES[[0, 1, *range(0xd0, 0xd9), 255]] = _FILLS
_JPEG_ROLES[[0xd9, 0xda]] = _IS_LAST
# Weights of a segment's first ten bytes, for four sums: the first byte, the
# marker, the length, and the marker combined with the segment's identifier.
_JPEG_NUMBERS = np.zeros([4, 10], np.int64)
_JPEG_NUMBERS[0, 0] = _JPEG_NUMBERS[1, 1] = 1
_JPEG_NUMBERS[2, 2:4] = 256, 1
_JPEG_NUMBERS[3, 1], _JPEG_NUMBERS[3, 4:] = 256**6, 256 ** np.arange(6)[::-1]
_JPEG_EXIF = int.from_bytes(b'\xe1Exif\0\0', 'big')


def kind(contents):
  """Returns the index of a file's format: 0 JPEG, 1 PNG, 2 GIF, 3 BMP; 4 if
  it is unknown.

  Args:
    contents: string scalar, the bytes of a file.

  Returns:
    int32 scalar.
  """
  is_kind = [tf.equal(tf.strings.substr(contents, 0, len(magic)), magic)
             for magic in _MAGIC]
  return tf.argmax(tf.cast(is_kind + [True], tf.int32), output_type=tf.int32)


class Data(typing.NamedTuple):
  """The bytes of a file.

  Attributes:
    bytes: uint8 [size + padding]; the padding is zero.
    size: int64 scalar, size of the file.
  """
  bytes: tf.Tensor
  size: tf.Tensor


def data_of(contents):
  """Returns the `Data` of a file, given its contents as a string scalar."""
  size = tf.cast(tf.strings.length(contents), tf.int64)
  return Data(tf.raw_ops.DecodePaddedRaw(
      input_bytes=contents, out_type=tf.uint8,
      fixed_length=tf.cast(size, tf.int32) + _PADDING), size)


def numbers(data, starts, count, big_endian=False):
  """Returns unsigned integers in a file. Bytes past its end are zero.

  Args:
    data: `Data`.
    starts: list of n int64 scalars, positions of the integers.
    count: number of bytes in each integer, 1 to 4.
    big_endian: whether the most significant byte comes first.

  Returns:
    List of n int64 scalars.
  """
  places = 256 ** np.arange(count)
  found = tf.cast(_rows(data, starts, count), tf.int64) * (
      places[::-1] if big_endian else places)
  return tf.unstack(tf.reduce_sum(found, 1), len(starts))


def _rows(data, starts, count):
  """Returns `count` bytes from each of n positions: uint8 [n, count]."""
  starts = tf.minimum(tf.cast(starts, tf.int64), data.size)
  return tf.gather(data.bytes, starts[:, tf.newaxis] + np.arange(count))


def _equal(some, expected):
  return tf.reduce_all(tf.equal(some, list(expected)))


def refuse_unless(accepted, *reason):
  """Returns an operation that fails unless a file is accepted.

  Args:
    accepted: bool scalar.
    *reason: parts of the message, which `filesystem.reason()` extracts.
  """
  return tf.raw_ops.Assert(condition=accepted, data=reason)


def check_size(height, width):
  """Returns an operation that fails if an image is empty or too large.

  Args:
    height, width: int64 scalars, less than 2**32.
  """
  # A division, because height * width can overflow.
  return refuse_unless(
      (height > 0) & (width > 0)
      & (width <= MAX_PIXELS // tf.maximum(height, 1)),
      'is', width, 'x', height, f'pixels, expected 1 to {MAX_PIXELS:,} in all')


def jpeg_segments(data):
  """Scans the segments of a JPEG file up to its compressed data.

  Returns:
    end: int64 scalar, position of the compressed data.
    start, length: int64 scalars, position and length of the EXIF data; 0 and 0
      if there are none.
  """
  def step(position, start, length, unused_is_more):
    # Few operations, because they run for each segment.
    head = tf.slice(data.bytes, tf.reshape(position, [1]), [10])
    mark, marker, count, name = tf.unstack(tf.reduce_sum(
        tf.cast(head, tf.int64) * _JPEG_NUMBERS, 1))
    role = tf.where(tf.equal(mark, 255), tf.gather(_JPEG_ROLES, marker), _FILLS)
    is_segment = tf.equal(role, _IS_SEGMENT)
    found = is_segment & tf.equal(name, _JPEG_EXIF) & tf.equal(start, 0)
    return (position + tf.where(is_segment, count + 2, 1),
            tf.where(found, position + 10, start),
            tf.where(found, count - 8, length), tf.equal(role, _IS_LAST))

  position, start, length, is_last = blocks(
      lambda position, unused_start, unused_length, is_last: (
          ~is_last & (position < data.size)),
      step, [np.int64(2), *NOWHERE, False])
  return position - tf.cast(is_last, tf.int64), start, length


def jpeg_end(data, start):
  """Finds the end of a JPEG file, as decoders do, and counts its scans.

  Args:
    data: `Data`.
    start: int64 scalar, position of the compressed data. There, each marker
      begins with a byte 255.

  Returns:
    end: int64 scalar, position after the end marker, or the size of the file.
    scans: int64 scalar, number of scans before `end`.
  """
  compressed = data.bytes[start:]
  marks = tf.where(tf.equal(compressed[:-1], 255))[:, 0]
  markers = tf.gather(compressed[1:], marks)
  ends = tf.boolean_mask(marks, tf.equal(markers, 0xd9)) + 2
  end = tf.concat([ends, [data.size - start]], 0)[0]
  return start + end, tf.math.count_nonzero(
      tf.equal(markers, 0xda) & (marks < end))


def png_chunks(data):
  """Scans the chunks of a PNG file.

  Returns:
    start, length: int64 scalars, position and length of the EXIF data; 0 and 0
      if there are none.
    is_opaque: bool scalar, true if no pixel can be transparent.
  """
  def step(position, start, length, is_opaque):
    name = _rows(data, [position + 4], 4)[0]
    count, = numbers(data, [position], 4, big_endian=True)
    found = _equal(name, b'eXIf')
    follows = position + (count + 12) * run_length(data, position, count + 12,
                                                   8)
    return (tf.where(_equal(name, b'IEND'), data.size, follows),
            tf.where(found, position + 8, start),
            tf.where(found, count, length), is_opaque & ~_equal(name, b'tRNS'))

  color_type, = numbers(data, [25], 1)  # 4: grayscale, 6: RGB, with alpha.
  return blocks(lambda position, *_: position < data.size, step,
                [np.int64(8), *NOWHERE, color_type < 4])[1:]


def blocks(is_more, step, variables):
  """Repeats `variables = step(*variables)` while is_more(*variables)."""
  return tf.while_loop(is_more, step, variables, parallel_iterations=1,
                       maximum_iterations=_MAX_BLOCKS)


def run_length(data, position, distance, count):
  """Returns the number of consecutive blocks that begin with the same bytes.

  Args:
    data: `Data`.
    position: int64 scalar, position of the first block.
    distance: int64 scalar, number of bytes from one block to the next.
    count: number of bytes that must be equal.

  Returns:
    int64 scalar, 1 to _RUN.
  """
  starts = position + distance * np.arange(_RUN)
  heads = _rows(data, starts, count)
  ended = tf.reduce_any(tf.not_equal(heads, heads[0]), 1) | (
      starts >= data.size)
  return tf.argmax(tf.cast(tf.concat([ended[1:], [True]], 0), tf.int32)) + 1


def orientation(data, start, length):
  """Returns the orientation in EXIF data, which have the format of TIFF files.

  If there are several orientations, the last one is used, as in Pillow.

  Args:
    data: `Data`.
    start, length: int64 scalars, position and length of the EXIF data.

  Returns:
    int32 scalar, 1 to 8; 1 if the orientation is missing or damaged.
  """
  exif = data.bytes[start:start + length]
  exif = Data(tf.pad(exif, [[0, _PADDING]]), tf.size(exif, out_type=tf.int64))
  head = exif.bytes[:4]
  is_big = _equal(head[:2], b'MM')
  is_tiff = (is_big | _equal(head[:2], b'II')) & (
      _equal(head[2:], b'\0*') | _equal(head[2:], b'*\0'))

  def number(start, count):
    return tf.where(is_big, *(numbers(exif, [start], count, big_endian)[0]
                              for big_endian in (True, False)))

  first = tf.minimum(number(4, 4) + 2, exif.size)
  count = tf.minimum(number(first - 2, 2), (exif.size - first) // 12)
  # An entry consists of tag, type, count and value: 2, 2, 4 and 4 bytes.
  words = tf.cast(tf.reshape(exif.bytes[first:first + 12 * count], [-1, 6, 2]),
                  tf.int32)
  words = tf.reduce_sum(words * tf.where(is_big, [256, 1], [1, 256]), 2)
  low, high = (tf.where(is_big, words[:, i::2], words[:, j::2])
               for i, j in ((3, 2), (2, 3)))
  tag, type_ = words[:, 0], words[:, 1]
  is_short = tf.equal(type_, _SHORT)
  value = tf.where(is_short, words[:, 4], low[:, 1] + 65536 * high[:, 1])
  found = is_tiff & tf.equal(tag, _ORIENTATION) & (
      is_short | tf.equal(type_, _LONG)) & (
          tf.equal(low[:, 0], 1) & tf.equal(high[:, 0], 0))
  value = tf.concat([[1], tf.boolean_mask(value, found)], 0)[-1]
  return tf.where((value > 0) & (value < 9), value, 1)
