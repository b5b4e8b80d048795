"""Summaries for TensorBoard, and the event files it reads them from.

Summaries are collected under exactly the tag they are given: tf.summary.* would
put the name scope into it, `tower_0/`, and replace all but letters and digits.
They are made on the CPU, where their kernels are.
"""

import glob
import math
import os
import socket
import time

import tensorflow.compat.v1 as tf

_HISTOGRAM_VALUES = 2**17


def scalar(tag, value):
  """Collects a scalar summary under exactly this tag."""
  _collect(tf.raw_ops.ScalarSummary, tags=tag, values=value)


def histogram(tag, values):
  """Collects a histogram summary under exactly this tag.

  Args:
    tag: the tag.
    values: float tensor, [n, ...]. Of very many values, the n parts are thinned
      out evenly: counting a million takes longer than a training step. What is
      not finite counts as 0: it would end the training, without saying why.
  """
  size = values.shape.num_elements() or tf.size(values)
  values = values[::1 + size // _HISTOGRAM_VALUES]
  values = tf.where(tf.is_finite(values), values, tf.zeros_like(values))
  _collect(tf.raw_ops.HistogramSummary, tag=tag, values=values)


def image(tag, images, max_images=3):
  """Collects the first pictures of an [n, height, width, depth] batch, each
  scaled to its own range, under `tag/image/0` and so on. Of more than three
  channels, the first three are shown."""
  with tf.device('/cpu:0'):
    images = tf.cast(images[:max_images, ..., :3], tf.float32)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=images,
           max_images=max_images)


def filters(tag, weights):
  """Collects a picture of what the units of a first layer respond to.

  Args:
    tag: the tag.
    weights: [height, width, depth, n] of a convolution, or [height**2 * depth,
      n] of a dense layer, of depth 1 or 3. Of others there is no picture.
  """
  if weights.shape.rank == 2:
    for depth in 3, 1:
      side = math.isqrt(weights.shape[0] // depth)
      if side**2 * depth == weights.shape[0]:
        weights = tf.reshape(weights, [side, side, depth, -1])
        break
  if weights.shape.rank != 4 or weights.shape[2] not in (1, 3):
    return
  with tf.device('/cpu:0'):
    # Of very many weights a part, as the picture goes with each summary.
    weights = weights[..., :max(
        1, 2**14 // (weights.shape[0] * weights.shape[1]))]
    height, width, depth, count = weights.shape.as_list()
    low, high = tf.reduce_min(weights), tf.reduce_max(weights)
    tiles = (weights - low) * 255 / tf.maximum(high - low, 1e-12)
    # Each weight is a square of pixels, large enough to see.
    scale = 1 + 24 // max(height, width)
    tiles = tf.repeat(tf.repeat(tiles, scale, 0), scale, 1)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = tf.pad(tiles, [[1, 1], [1, 1], [0, 0], [0, rows * columns - count]],
                   constant_values=255)
    height, width = height * scale + 2, width * scale + 2
    tiles = tf.reshape(tiles, [height, width, depth, rows, columns])
    grid = tf.reshape(tf.transpose(tiles, [3, 0, 4, 1, 2]),
                      [1, rows * height, columns * width, depth])
    grid = tf.saturate_cast(grid, tf.uint8)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=grid, max_images=1)


def add_picture(summary, tag, encoded, width, height):
  """Adds a picture that is encoded already to a tf.Summary."""
  summary.value.add(tag=tag, image=tf.Summary.Image(
      height=height, width=width, colorspace=3, encoded_image_string=encoded))


def _collect(summary, **arguments):
  with tf.device('/cpu:0'):
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, summary(**arguments))


class Writer:
  """Writes an event file.

  Unlike tf.summary.FileWriter, which hands events to a thread of its own, each
  is in the file when the call that adds it returns, or that raises what went
  wrong: no checkpoint is ever ahead of its event files. Use it in a `with`.
  """

  def __init__(self, directory):
    os.makedirs(directory, exist_ok=True)
    self._is_first = not glob.glob(
        os.path.join(glob.escape(directory), 'events.out.tfevents.*'))
    # Readers take a directory's event files in the order of their names.
    name = f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}'
    self._records = tf.io.TFRecordWriter(os.path.join(directory, name))
    self._add(file_version='brain.Event:2')

  def __enter__(self):
    return self

  def __exit__(self, *unused_args):
    self._records.close()

  def graph(self, train_op):
    """Adds the graph of a training step, as a picture for people: without what
    starts, saves and summarizes, and with all variables in one place.

    Nothing is added if an earlier event file of the directory should have it:
    of several, readers take one, and warn.
    """
    if not self._is_first:
      return
    graph_def = tf.graph_util.extract_sub_graph(
        train_op.graph.as_graph_def(add_shapes=True), [train_op.name])
    graph_def.library.Clear()
    variables = {node.name for node in graph_def.node
                 if node.op == 'VarHandleOp'}
    for node in graph_def.node:
      if node.name in variables:
        node.name = f'variables/{node.name}'
      for i, name in enumerate(node.input):
        if name in variables:
          node.input[i] = f'variables/{name}'
    self._add(graph_def=graph_def.SerializeToString())

  def start(self, step):
    """Notes that a training starts, at this step: readers drop what one that
    was killed wrote from there on."""
    self._add(session_log=tf.SessionLog(status=tf.SessionLog.START), step=step)

  def summary(self, summary, step):
    """Adds a tf.Summary."""
    self._add(summary=summary, step=step)

  def text(self, tag, text, step):
    """Adds a text, in Markdown."""
    summary = tf.Summary()
    value = summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = 'text'
    value.tensor.CopyFrom(tf.make_tensor_proto([text]))
    self.summary(summary, step)

  def _add(self, **fields):
    event = tf.Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())
    self._records.flush()
