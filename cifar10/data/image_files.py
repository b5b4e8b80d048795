"""Reads image files (JPEG, PNG, BMP, GIF) as images of the size of records.

Import, prediction and exported models share `decode()`, a function in the
graph. Therefore a file has the same pixels in all of them.
"""

import collections
import concurrent.futures
import functools
import glob
import itertools
import os
import stat

import tensorflow.compat.v1 as tf

from cifar10.data import image_decoders
from cifar10.util import filesystem

EXTENSIONS = '.jpg', '.jpeg', '.png', '.bmp', '.gif'
# The largest BMP file of `image_headers.MAX_PIXELS` has 400 MB.
MAX_BYTES = 1 << 29
# For each EXIF orientation: whether to transpose the image, and before that,
# whether to reverse its rows and its columns.
_ORIENTATIONS = [[bool(x) for x in row] for row in (
    (0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0),
    (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))]


def expand(places):
  """Expands folders and patterns to the paths of image files.

  Args:
    places: paths of files, paths of folders to search, and patterns with `*`,
      `?` or `**`. Names in folders that begin with a dot are skipped.

  Returns:
    List of paths. A folder or pattern without images is returned unchanged.
  """
  return [path for place in places for path in _find_in(place) or [place]]


def is_named_image(path):
  """Returns whether a path has the extension of an image file."""
  return path.lower().endswith(EXTENSIONS)


def _find_in(place):
  if os.path.isdir(place):
    return list(filter(is_named_image, files_in(place)))
  if os.path.lexists(place):  # A link to nowhere, too.
    return [place]
  found = sorted(glob.glob(place, recursive=True))
  # `**` also matches the folders of the files that it matches.
  return [path for path in found if not os.path.isdir(path)] or [
      path for folder in found for path in _find_in(folder)]


def files_in(folder):
  """Returns the sorted paths of all files in a folder and its subfolders.

  Follows links to folders, but visits each folder only once, so that circular
  links do no harm. Names that begin with a dot are skipped.
  """
  found, seen = [], {os.path.realpath(folder)}
  for directory, folders, names in os.walk(folder, onerror=_refuse,
                                           followlinks=True):
    found += [os.path.join(directory, name) for name in names
              if not name.startswith('.')]
    visible = sorted(name for name in folders if not name.startswith('.'))
    folders.clear()
    for name in visible:
      path = os.path.realpath(os.path.join(directory, name))
      if path not in seen:
        seen.add(path)
        folders.append(name)
  return sorted(found)


def _refuse(error):
  raise error


def refusal(path):
  """Returns why the bytes of a path are not read: they may have no end, or not
  fit into memory. None if they are."""
  try:
    status = os.stat(path)
  except FileNotFoundError:
    return 'there is no such file'
  except OSError as e:  # TensorFlow must not try: it takes paths for URLs.
    return e.strerror
  if stat.S_ISDIR(status.st_mode):
    return 'holds no image files (' + ', '.join(EXTENSIONS) + ')'
  if not stat.S_ISREG(status.st_mode):
    return 'is not a regular file'
  if status.st_size > MAX_BYTES:
    return f'has {status.st_size:,} bytes, expected up to {MAX_BYTES:,}'
  return None


def decode(contents, record_format):
  """Decodes an image, rotates it as EXIF requires, and resizes it.

  Args:
    contents: string scalar, an encoded image of any size. Only the first frame
      of an animation is used.
    record_format: the `records.Format`, of depth 1 or 3.

  Returns:
    uint8 [height, width, depth].
  """
  image, orientation = image_decoders.decode(contents)
  f = record_format
  # Rotating the resized image is faster than rotating the original.
  turned, *flipped = tf.unstack(tf.gather(_ORIENTATIONS, orientation), num=3)
  size = tf.where(turned, [f.width, f.height], [f.height, f.width])
  image = _resize(image[tf.newaxis], size, tf.stack(flipped))[0]
  image = tf.reverse(image, tf.boolean_mask([0, 1], flipped))
  image = tf.transpose(image, tf.where(turned, [1, 0, 2], [0, 1, 2]))
  if f.depth == 1:
    image = tf.image.rgb_to_grayscale(image)
  return tf.ensure_shape(image, [f.height, f.width, f.depth])


def fit(images, record_format):
  """Crops and resizes images to the size of records.

  Crops the largest central window with the aspect ratio of a record. Resizes it
  bilinearly with antialiasing. Images of a record's size are not changed.

  Args:
    images: uint8 [n, any height, any width, depth].
    record_format: the `records.Format`.

  Returns:
    uint8 [n, height, width, depth].
  """
  f = record_format
  return tf.ensure_shape(
      _resize(images, tf.constant([f.height, f.width]), [False, False]),
      [None, f.height, f.width, f.depth])


def _resize(images, size, flipped):
  """Crops and resizes images as described in `fit()`.

  Args:
    images: uint8 [n, any height, any width, any depth].
    size: int32 [2], height and width to resize to.
    flipped: bool [2], whether each axis will be reversed later. If so, the
      center is rounded toward the other end.
  """
  there = tf.shape(images)[1:3]
  sides = tf.cast(size, tf.float32)
  scale = tf.reduce_min(tf.cast(there, tf.float32) / sides)
  window = tf.maximum(1, tf.minimum(there, tf.cast(tf.round(sides * scale),
                                                   tf.int32)))
  rest = there - window
  start = tf.where(flipped, rest - rest // 2, rest // 2)
  end = start + window
  images = images[:, start[0]:end[0], start[1]:end[1]]
  resized = tf.raw_ops.ScaleAndTranslate(
      images=images, size=size, scale=sides / tf.cast(window, tf.float32),
      translation=[0.0, 0.0], kernel_type='triangle', antialias=True)
  return tf.saturate_cast(tf.round(resized), tf.uint8)


def decode_files(paths, record_format):
  """Reads image files in several threads.

  Args:
    paths: paths of the files.
    record_format: the `records.Format`, of depth 1 or 3.

  Yields:
    (index, image, reason) for each path, in order. The image is a uint8
    [height, width, depth] array. If the file cannot be read, the image is None
    and `reason` is the error message.
  """
  threads = os.cpu_count() or 1
  image_of = _decoder(record_format)

  def load(path):
    if reason := refusal(path):
      return None, reason
    try:
      return image_of(os.fsencode(path)), None
    except tf.errors.OpError as e:
      return None, filesystem.reason(e)

  pool = concurrent.futures.ThreadPoolExecutor(threads)
  try:
    started, remaining = collections.deque(), iter(paths)
    for index in range(len(paths)):
      for path in itertools.islice(remaining, 1 + 2 * threads - len(started)):
        started.append(pool.submit(load, path))
      yield index, *started.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


@functools.cache  # Building it takes as long as decoding hundreds of files.
def _decoder(record_format):
  """Returns a function that takes a path and returns the image."""
  graph = tf.Graph()
  with graph.as_default(), tf.device('/cpu:0'):
    path = tf.placeholder(tf.string, [])
    image = decode(tf.read_file(path), record_format)
  config = tf.ConfigProto(device_count={'GPU': 0})
  # Optimizing the graph would take longer than it saves.
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  return tf.Session(graph=graph, config=config).make_callable(image, [path])
