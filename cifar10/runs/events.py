"""Event files, which TensorBoard reads."""

import glob
import os
import socket
import time

import tensorflow.compat.v1 as tf


def add_picture(summary, tag, encoded, width, height):
  """Adds an encoded picture to a tf.Summary."""
  summary.value.add(tag=tag, image=tf.Summary.Image(
      height=height, width=width, colorspace=3, encoded_image_string=encoded))


class Writer:
  """Writes an event file; to be used in a `with`.

  An event is in the file when the call that adds it returns, or the call raises
  the error. So no checkpoint is ahead of its event files, as it can be with
  tf.summary.FileWriter, which hands events to a thread of its own.
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
    """Adds the graph of a training step for TensorBoard's graph page: without
    initialization, saving and summaries, and with all variables in one scope.

    Nothing is added if the directory has an earlier event file, which then has
    the graph: readers warn of several.
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
    """Adds that a training starts at a step: readers drop events of later steps
    in earlier files, which a killed process wrote."""
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
