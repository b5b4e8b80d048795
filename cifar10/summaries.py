"""Summaries for TensorBoard, and the event files it reads them from.

Summaries are collected under exactly the tag they are given: tf.summary.* would
put the name scope into it, `tower_0/`, and replace all but letters and digits.
They are made on the CPU, where their kernels are.
"""

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
  scaled to its own range, under `tag/image/0` and so on."""
  with tf.device('/cpu:0'):
    images = tf.cast(images[:max_images], tf.float32)
  _collect(tf.raw_ops.ImageSummary, tag=tag, tensor=images,
           max_images=max_images)


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
    # Readers take a directory's event files in the order of their names.
    name = f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}'
    self._records = tf.io.TFRecordWriter(os.path.join(directory, name))
    self._add(file_version='brain.Event:2')

  def __enter__(self):
    return self

  def __exit__(self, *unused_args):
    self._records.close()

  def graph(self, graph):
    """Adds a tf.Graph."""
    self._add(graph_def=graph.as_graph_def(
        add_shapes=True).SerializeToString())

  def start(self, step):
    """Notes that a training starts, at this step: readers drop what one that
    was killed wrote from there on."""
    self._add(session_log=tf.SessionLog(status=tf.SessionLog.START), step=step)

  def summary(self, summary, step):
    """Adds a tf.Summary."""
    self._add(summary=summary, step=step)

  def _add(self, **fields):
    event = tf.Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())
    self._records.flush()
