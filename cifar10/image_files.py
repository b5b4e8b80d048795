"""Image files (JPEG, PNG, BMP, GIF) to images of the size of records.

What makes them fit is one function, in the graph: whether a picture becomes a
record to train on, is classified, or is sent to an exported model, it becomes
the same pixels.
"""

import contextlib
import functools
import glob
import os

import tensorflow.compat.v1 as tf

from cifar10 import filesystem
from cifar10 import image_decoders

EXTENSIONS = '.jpg', '.jpeg', '.png', '.bmp', '.gif'
_BATCH_SIZE, _BATCH_BYTES = 64, 1 << 24  # Whichever is less.
# By EXIF's number: is the picture lying, and are its rows and its columns to be
# reversed before it is turned about its diagonal?
_ORIENTATIONS = [[bool(x) for x in row] for row in (
    (0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0),
    (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))]


def find(places):
  """Returns the paths of image files.

  Args:
    places: paths of files, of folders to search through, and patterns with
      `*`, `?` or `**`. What holds no image is returned as it is.
  """
  return [path for place in places for path in _find_in(place) or [place]]


def _find_in(place):
  if os.path.isdir(place):
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(place, onerror=_refuse)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith('.'))
  if not os.path.exists(place):
    found = sorted(glob.glob(place, recursive=True))
    # `**` also gives the folders of the files it gives.
    return [path for path in found if os.path.isfile(path)] or [
        path for folder in found for path in _find_in(folder)]
  return [place]


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
  graph = tf.Graph()
  with graph.as_default(), tf.device('/cpu:0'):
    def load(index, path):
      return index, decode(tf.read_file(path), record_format)

    threads = os.cpu_count() or 1
    names = [os.fsencode(path) for path in paths]
    dataset = tf.data.Dataset.from_tensor_slices(
        (tf.range(len(names)), tf.constant(names, tf.string)))
    # Without autograph, which would read and rewrite the source of `load`.
    dataset = dataset.map(tf.autograph.experimental.do_not_convert(load),
                          threads)
    batch_size = min(_BATCH_SIZE, 1 + _BATCH_BYTES
                     // record_format.record_bytes)
    dataset = dataset.ignore_errors().batch(batch_size).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False  # It delays the end, see inputs.py.
    batch = tf.data.make_one_shot_iterator(
        dataset.with_options(options)).get_next()

  @functools.cache  # It takes half a second to build.
  def one():
    with graph.as_default(), tf.device('/cpu:0'):
      path = tf.placeholder(tf.string, [])
      return path, decode(tf.read_file(path), record_format)

  # Not made the default one, which would not be left in the order of entering.
  config = tf.ConfigProto(device_count={'GPU': 0})
  # Which takes longer than what it would save.
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with contextlib.closing(tf.Session(graph=graph, config=config)) as session:
    expected = 0
    for index, image in _all(session, batch):
      yield from _failed(session, one, paths, expected, index)
      yield index, image, None
      expected = index + 1
    yield from _failed(session, one, paths, expected, len(paths))


def _all(session, batch):
  while True:
    try:
      indices, images = session.run(batch)
    except tf.errors.OutOfRangeError:
      return
    yield from zip(indices.tolist(), images)


def _failed(session, one, paths, start, end):
  """Tells why the files from one to another could not be read; if they can be
  by now, all the better."""
  for index in range(start, end):
    path, image = one()
    try:
      yield index, session.run(image, {path: os.fsencode(paths[index])}), None
    except tf.errors.OpError as e:
      if os.path.isdir(paths[index]):
        reason = 'holds no image files (' + ', '.join(EXTENSIONS) + ')'
      elif not os.path.exists(paths[index]):
        reason = 'there is no such file'
      else:
        reason = filesystem.reason(e)
      yield index, None, reason
