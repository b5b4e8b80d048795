"""Decodes JPEG, PNG, GIF and BMP files in the graph.

Transparent pixels are blended with white. TensorFlow's own operations are used
where their results are correct. The size of an image is checked before it is
decoded, so that the memory for any file is bounded.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from cifar10.data import image_headers as headers

_PIXELS_AT_A_TIME = 1 << 20


def decode(contents):
  """Decodes an image, or the first frame of an animation.

  Args:
    contents: string scalar, the bytes of a file.

  Returns:
    image: uint8 [height, width, 3], not yet rotated as EXIF requires.
    orientation: int32 scalar, the EXIF orientation, 1 to 8.

  Raises:
    tf.errors.InvalidArgumentError: at run time: the file is damaged, has an
      unsupported format, or has more than `headers.MAX_PIXELS` pixels or
      `headers.MAX_SCANS` scans.
  """
  data = headers.data_of(contents)
  image, start, length = tf.switch_case(headers.kind(contents), [
      lambda: _jpeg(contents, data), lambda: _png(contents, data),
      lambda: _gif(contents, data), lambda: _bmp(data),
      lambda: _unknown(contents)])
  image = tf.cond(tf.equal(tf.shape(image)[2], 4), lambda: _on_white(image),
                  lambda: image)
  return tf.ensure_shape(image, [None, None, 3]), tf.cond(
      length > 0, lambda: headers.orientation(data, start, length),
      lambda: tf.constant(1))


def _on_white(image):
  """Blends an RGBA image with white, to uint8 [height, width, 3]."""
  pixels = tf.reshape(image, [-1, 4])
  count = -(-tf.shape(pixels)[0] // _PIXELS_AT_A_TIME)
  eight = tf.constant(8, tf.uint16)

  def step(i, done):
    some = tf.cast(pixels[i * _PIXELS_AT_A_TIME:(i + 1) * _PIXELS_AT_A_TIME],
                   tf.uint16)
    alpha = some[:, 3:]
    total = some[:, :3] * alpha + (255 - alpha) * 255 + 128  # Up to 65,153.
    # Equal to a rounded division by 255, but faster.
    total = tf.bitwise.right_shift(
        total + tf.bitwise.right_shift(total, eight), eight)
    return i + 1, done.write(i, tf.cast(total, tf.uint8))

  # In chunks, because intermediate values take more memory than the image.
  _, done = tf.while_loop(
      lambda i, _: i < count, step, [0, tf.TensorArray(
          tf.uint8, count, infer_shape=False, element_shape=[None, 3])],
      parallel_iterations=1)
  return tf.reshape(done.concat(), tf.concat([tf.shape(image)[:2], [3]], 0))


# Each function for a format returns
#   image: uint8 [height, width, 3 or 4], the fourth channel is alpha;
#   start, length: int64 scalars, position and length of the EXIF data.


def _unknown(contents):
  with tf.control_dependencies([headers.refuse_unless(False, tf.where(
      tf.equal(contents, ''), 'Input is empty',
      'Unknown image file format. One of JPEG, PNG, GIF, BMP required'))]):
    return tf.zeros([1, 1, 3], tf.uint8), *headers.NOWHERE


def _jpeg(contents, data):
  height, width, _ = tf.unstack(
      tf.io.extract_jpeg_shape(contents, output_type=tf.int64))
  middle, start, length = headers.jpeg_segments(data)
  end, scans = headers.jpeg_end(data, middle)
  with tf.control_dependencies([
      headers.check_size(height, width), headers.refuse_unless(
          scans <= headers.MAX_SCANS, 'has', scans,
          f'scans, expected up to {headers.MAX_SCANS}')]):
    # The decoder must not see more scans than were counted.
    image = tf.io.decode_jpeg(tf.strings.substr(contents, np.int64(0), end), 3)
  return image, start, length


def _png(contents, data):
  name, width, height = headers.numbers(data, [12, 16, 20], 4, big_endian=True)
  start, length, is_opaque = headers.png_chunks(data)
  with tf.control_dependencies([headers.refuse_unless(
      tf.equal(name, int.from_bytes(b'IHDR', 'big')),
      'does not begin with the header of a PNG file')]):
    check = headers.check_size(height, width)
  with tf.control_dependencies([check]):
    image = tf.cond(is_opaque, lambda: tf.io.decode_png(contents, 3),
                    lambda: tf.io.decode_png(contents, 4))
  return image, start, length


def _gif(contents, data):
  """Decodes the first frame of a GIF file. The screen around it is white."""
  colors, picture, control, end, is_complete = _gif_blocks(data)
  with tf.control_dependencies([headers.refuse_unless(
      is_complete, 'holds no complete picture')]):
    *screen, left, top, width, height = headers.numbers(
        data, [6, 8, *(picture + i for i in (1, 3, 5, 7))], 2)
  full_width = tf.maximum(screen[0], left + width)
  full_height = tf.maximum(screen[1], top + height)
  with tf.control_dependencies([
      headers.check_size(height, width),
      headers.check_size(full_height, full_width)]):
    image = tf.io.decode_gif(_gif_of_one(
        contents, data, colors, picture, control, tf.identity(end)))[0]
  return tf.cond(
      (width < full_width) | (height < full_height),
      lambda: tf.pad(image, [[top, full_height - top - height],
                             [left, full_width - left - width], [0, 0]],
                     constant_values=255), lambda: image), *headers.NOWHERE


def _gif_of_one(contents, data, colors, picture, control, end):
  """Returns the bytes of a GIF file that contains only the first frame.

  The screen has the size of the frame. The transparent color becomes white. For
  the arguments, see `_gif_blocks()`.
  """
  own_colors = _gif_colors(data, picture + 9)
  flags, transparent = headers.numbers(data, [control + 3, control + 6], 1)
  is_transparent = (control > 0) & tf.equal(flags % 2, 1) & (
      transparent < tf.where(own_colors > 0, own_colors, colors))
  color = tf.where(own_colors > 0, picture + 10, 13) + tf.where(
      is_transparent, 3 * transparent, 0)

  def cut(text, start, end):
    return tf.strings.substr(text, tf.cast(start, tf.int64), end - start)

  text = tf.strings.join([
      cut(contents, 0, color),
      tf.where(is_transparent, b'\xff' * 3, cut(contents, color, color + 3)),
      cut(contents, color + 3, end)])
  # Signature, screen size, palette; frame position, size, palette and data.
  return tf.strings.join([
      b'GIF89a', cut(text, picture + 5, picture + 9),
      cut(text, 10, 13 + 3 * colors), b',\0\0\0\0',
      cut(text, picture + 5, end), b';'])


def _gif_colors(data, position):
  """Returns the number of colors of a palette, given its flags' position."""
  flags, = headers.numbers(data, [position], 1)
  return tf.where(flags >= 128, tf.bitwise.left_shift(
      tf.constant(2, tf.int64), flags % 8), 0)


def _gif_blocks(data):
  """Scans the blocks of a GIF file up to the end of the first frame.

  Returns:
    colors: int64 scalar, number of colors in the global palette.
    picture: int64 scalar, position of the frame's image descriptor, or 0.
    control: int64 scalar, position of its graphic control extension, or 0.
    end: int64 scalar, position after its compressed data.
    is_complete: bool scalar, whether the file contains a complete frame.
  """
  def step(position, is_inside, picture, control):
    """Skips a run of data blocks of equal size, the terminator of data blocks,
    or the header of an image or extension."""
    count, label = headers.numbers(data, [position, position + 1], 1)
    is_picture = ~is_inside & tf.equal(count, ord(','))
    is_extension = ~is_inside & tf.equal(count, ord('!'))
    run = (count + 1) * headers.run_length(data, position, count + 1, 1)
    length = tf.where(
        is_inside, run, tf.where(
            is_picture, 11 + 3 * _gif_colors(data, position + 9), tf.where(
                ~is_extension, data.size, 2)))
    return (position + tf.where(~is_inside | (count > 0), length, 1),
            ~is_inside | (count > 0),
            tf.where(is_picture, position, picture),
            tf.where(is_extension & tf.equal(label, 0xf9), position, control))

  colors = _gif_colors(data, 10)
  end, is_inside, picture, control = headers.blocks(
      lambda position, is_inside, picture, _: (
          (position < data.size) & (is_inside | tf.equal(picture, 0))),
      step, [13 + 3 * colors, False, *headers.NOWHERE])
  return colors, picture, control, end, ~is_inside & (picture > 0)


def _bmp(data):
  """Decodes an uncompressed BMP file."""
  start, header, width, height, bits, compression, *colors, alpha = (
      headers.numbers(data, [10, 14, 18, 22, 26, 30, 54, 58, 62, 66], 4))
  bits //= 2**16
  is_top_down = height >= 2**31
  height = tf.where(is_top_down, 2**32 - height, height)
  has_masks = tf.equal(compression, 3) & tf.equal(bits, 32)
  has_alpha = has_masks & (header >= 56) & (alpha > 0)
  is_known = (
      tf.reduce_any(tf.equal(header, [40, 52, 56, 108, 124]))
      & tf.reduce_any(tf.equal(bits, [1, 4, 8, 24, 32]))
      & (tf.equal(compression, 0) | has_masks & tf.reduce_all(
          tf.equal(colors, [0xff0000, 0xff00, 0xff])))
      & (~has_alpha | tf.equal(alpha, 0xff000000)))
  with tf.control_dependencies([headers.refuse_unless(
      is_known, 'is a BMP file of a kind that cannot be read: a header of',
      header, 'bytes,', bits, 'bits a pixel, compression', compression)]):
    bits, width = tf.identity(bits), tf.identity(width)
  with tf.control_dependencies([headers.check_size(height, width)]):
    row = (width * bits + 31) // 32 * 4
  with tf.control_dependencies([headers.refuse_unless(
      (start >= 14 + header) & (start + height * row <= data.size),
      'ends before its last pixel')]):
    rows = tf.reshape(data.bytes[start:start + height * row], [height, row])
  rows = tf.cond(is_top_down, lambda: rows, lambda: tf.reverse(rows, [0]))
  return tf.cond(
      bits > 8, lambda: _bmp_colors(rows, width, bits // 8, has_alpha),
      lambda: _bmp_palette(data, 14 + header, rows, width, bits)
  ), *headers.NOWHERE


def _bmp_colors(rows, width, channels, has_alpha):
  """Converts rows of blue, green, red and alpha bytes to uint8 [height, width,
  3 or 4]."""
  height = tf.shape(rows, out_type=tf.int64)[0]
  image = tf.reshape(rows[:, :width * channels], [height, width, channels])
  order = tf.constant([2, 1, 0, 3])[:tf.where(has_alpha, 4, 3)]
  return tf.gather(image, order, axis=2)


def _bmp_palette(data, start, rows, width, bits):
  """Converts rows of palette indices of `bits` bits to uint8 [height, width,
  3]."""
  count, = headers.numbers(data, [46], 4)
  count = tf.where((count > 0) & (count < 256), count, 256)
  colors = data.bytes[start:start + 4 * count]
  colors = tf.pad(colors, [[0, 1024 - tf.size(colors)]])
  colors = tf.reshape(colors, [256, 4])[:, 2::-1]
  shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
  numbers = tf.bitwise.bitwise_and(
      tf.bitwise.right_shift(rows[:, :, tf.newaxis], shifts),
      tf.cast(2**bits - 1, tf.uint8))
  numbers = tf.reshape(numbers, [tf.shape(rows)[0], -1])[:, :width]
  return tf.gather(colors, tf.cast(numbers, tf.int32))
