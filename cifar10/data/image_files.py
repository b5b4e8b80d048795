"""Image files (JPEG, PNG, BMP, GIF) to images of the size of records.

What makes them fit is one function, in the graph: whether a picture becomes a
record to train on, is classified, or is sent to an exported model, it becomes
the same pixels.
"""

import collections
import concurrent.futures
import functools
import glob
import itertools
import os

import tensorflow.compat.v1 as tf

from cifar10.data import image_decoders
from cifar10.util import filesystem

EXTENSIONS = '.jpg', '.jpeg', '.png', '.bmp', '.gif'
# By EXIF's number: is the picture lying, and are its rows and its columns to be
# reversed before it is turned about its diagonal?
_ORIENTATIONS = [[bool(x) for x in row] for row in (
    (0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0),
    (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))]


def find(places):
  """Returns the paths of image files.

  Args:
    places: paths of files, of folders to search through, and patterns with
      `*`, `?` or `**`. What holds no image is returned as it is. What begins
      with a dot is not looked at in folders.
  """
  return [path for place in places for path in _find_in(place) or [place]]


def is_named_image(path):
  """Returns whether a file is an image by its name."""
  return path.lower().endswith(EXTENSIONS)


def _find_in(place):
  if os.path.isdir(place):
    return list(filter(is_named_image, files_in(place)))
  if not os.path.exists(place):
    found = sorted(glob.glob(place, recursive=True))
    # `**` also gives the folders of the files it gives.
    return [path for path in found if os.path.isfile(path)] or [
        path for folder in found for path in _find_in(folder)]
  return [place]


def files_in(folder):
  """Returns the sorted paths of the files in a folder and the folders in it,
  links to folders too; each folder once, so that links may go round in circles.
  What begins with a dot is left out."""
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


def decode(contents, record_format):
  """Decodes an image.

  Args:
    contents: string scalar, an encoded image of any size; of an animation, the
      first picture counts.
    record_format: the `records.Format`, of depth 1 or 3.

  Returns:
    uint8 [height, width, depth].
  """
  image, orientation = image_decoders.decode(contents)
  f = record_format
  # A picture is turned when it is small, which is faster.
  turned, *flipped = tf.unstack(tf.gather(_ORIENTATIONS, orientation), num=3)
  size = tf.where(turned, [f.width, f.height], [f.height, f.width])
  image = _resize(image[tf.newaxis], size, tf.stack(flipped))[0]
  image = tf.reverse(image, tf.boolean_mask([0, 1], flipped))
  image = tf.transpose(image, tf.where(turned, [1, 0, 2], [0, 1, 2]))
  if f.depth == 1:
    image = tf.image.rgb_to_grayscale(image)
  return tf.ensure_shape(image, [f.height, f.width, f.depth])


def fit(images, record_format):
  """Brings images to the size of records.

  Cuts the largest window of a record's proportions from the middle, and resizes
  it, bilinearly, with antialiasing. Images of a record's size stay as they are.

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
  """Does what `fit()` does.

  Args:
    images: uint8 [n, any height, any width, any depth].
    size: int32 [2], height and width to resize to.
    flipped: bool [2], whether the middle is to be found from the other end.
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


def read(paths, record_format):
  """Reads image files, several at a time.

  Args:
    paths: of the files.
    record_format: the `records.Format`, of depth 1 or 3.

  Yields:
    For each path, in their order: index, image, reason. The image is a uint8
    [height, width, depth] array, or None if there is none to be had, for the
    `reason`.
  """
  threads = os.cpu_count() or 1
  image_of = _decoder(record_format)

  def load(path):
    try:
      return image_of(os.fsencode(path)), None
    except tf.errors.OpError as e:
      return None, _reason(path, e)

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
  """Returns a function of a path that returns the image."""
  graph = tf.Graph()
  with graph.as_default(), tf.device('/cpu:0'):
    path = tf.placeholder(tf.string, [])
    image = decode(tf.read_file(path), record_format)
  config = tf.ConfigProto(device_count={'GPU': 0})
  # Optimizing the graph would take longer than it saves.
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  return tf.Session(graph=graph, config=config).make_callable(image, [path])


def _reason(path, error):
  if os.path.isdir(path):
    return 'holds no image files (' + ', '.join(EXTENSIONS) + ')'
  if not os.path.exists(path):
    return 'there is no such file'
  return filesystem.reason(error)
