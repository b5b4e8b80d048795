r"""Exports the newest checkpoint of a run, to be used without this package.

    python -m cifar10.export --checkpoint_dir=/tmp/cifar10_train \
        --export_dir=/tmp/cifar10_export

writes a SavedModel to EXPORT_DIR/1 (or the next free number, as TensorFlow
Serving expects) with two signatures: `serving_default` takes encoded images of
any size, `images` takes uint8 images of the size of the records. Either returns
the most probable class, its name, and the probabilities of all. --format=tflite
writes EXPORT_DIR/tflite/1/model.tflite for LiteRT, which takes uint8 images.

`serving_default` turns images the right way up, puts them on white and resizes
them as the import does. It refuses an image of more than 100 megapixels
(`image_headers.MAX_PIXELS`) before it decodes it, and decodes the images of a
request one after the other. That takes up to 1 GB for each request, whatever it
holds; how many are handled at a time is up to the server.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile

from absl import flags
import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.data import image_files
from cifar10.runs import checkpoints
from cifar10.runs import trained
from cifar10.util.errors import UserError
from cifar10.util import filesystem

FLAGS = flags.FLAGS
FORMATS = 'saved_model', 'tflite'


def export(checkpoint_dir, export_dir, format='saved_model', dtype=None):
  """Exports the newest checkpoint, its averages if it has them.

  Args:
    checkpoint_dir: train_dir of the run.
    export_dir: directory to write a numbered directory into, which gets its
      name when it is complete.
    format: one of FORMATS.
    dtype: what to compute in; None: what the run was trained in, or float32
      for tflite, which has nothing else.

  Returns:
    Path of the numbered directory, and of the checkpoint.

  Raises:
    UserError: there is no checkpoint, or it cannot be restored or exported.
  """
  if format == 'tflite':
    if dtype not in (None, 'float32'):
      raise UserError(f'--dtype={dtype}: --format=tflite computes in float32')
    dtype = 'float32'
    # In EXPORT_DIR itself, TensorFlow Serving would take it for a version.
    export_dir = os.path.join(export_dir, format)
  checkpoints.check_path(export_dir)  # The variables are a checkpoint.
  export_dir = pathlib.Path(export_dir)
  with filesystem.explained(export_dir), \
      _next_version(export_dir) as (part, directory):
    if format == 'saved_model':
      checkpoint = _write_saved_model(part, checkpoint_dir, dtype)
    else:
      with tempfile.TemporaryDirectory() as saved_model:
        checkpoint = _write_saved_model(saved_model, checkpoint_dir, dtype)
        converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(
            saved_model, signature_keys=['images'])
        try:
          (part / 'model.tflite').write_bytes(converter.convert())
        except Exception as e:  # Its own, without a common base.
          raise UserError(f'--format=tflite: {checkpoint}: cannot be '
                          f'converted: {filesystem.reason(e)}') from e
  return directory, checkpoint


def _write_saved_model(directory, checkpoint_dir, dtype):
  """Writes a SavedModel of the newest checkpoint, and returns its path."""
  run = trained.run_of(checkpoint_dir)
  with tf.Graph().as_default():
    signatures = _signatures(run, dtype)
    with trained.session() as session:
      checkpoint = trained.restore_newest(session, checkpoint_dir, run)
      builder = tf.saved_model.Builder(str(directory))
      builder.add_meta_graph_and_variables(
          session, [tf.saved_model.tag_constants.SERVING], {
              name: tf.saved_model.build_signature_def(
                  *({key: tf.saved_model.build_tensor_info(tensor)
                     for key, tensor in tensors.items()}
                    for tensors in signature),
                  tf.saved_model.signature_constants.PREDICT_METHOD_NAME)
              for name, signature in signatures.items()},
          strip_default_attrs=True)
      builder.save()
  return checkpoint


def _signatures(run, dtype):
  """Builds the graph.

  Returns:
    Dict of (inputs, outputs) by name of the signature, both dicts of tensors.
  """
  f = run.record_format
  # Names that end in _bytes are sent to TensorFlow Serving as base64.
  encoded = tf.placeholder(tf.string, [None], 'image_bytes')
  images = tf.placeholder(tf.uint8, [None, f.height, f.width, f.depth],
                          'images')
  with tf.device('/cpu:0'):
    # One at a time, as each can take much memory.
    decoded = tf.map_fn(lambda one: image_files.decode(one, f), encoded,
                        tf.uint8, parallel_iterations=1)
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    return {'serving_default': ({'image_bytes': encoded},
                                _outputs(decoded, run, dtype)),
            'images': ({'images': images},
                       _outputs(_of_size(images), run, dtype))}


def _of_size(images):
  """Returns images that are refused when the graph runs unless they have their
  static shape, which by itself is not looked at then."""
  images = tf.ensure_shape(images, images.shape)
  # LiteRT has no such operation, but compares sizes where it joins tensors.
  more = tf.zeros([1, *images.shape[1:]], images.dtype)
  return tf.concat([images, more], 0)[:-1]


def _outputs(images, run, dtype):
  probabilities = trained.probabilities(images, run, dtype)
  classes = tf.argmax(probabilities, 1)
  names = tf.gather(tf.constant(run.record_format.class_names), classes)
  return {'classes': classes, 'names': names, 'probabilities': probabilities}


@contextlib.contextmanager
def _next_version(export_dir):
  """Yields a directory to fill and the numbered one it will be."""
  export_dir.mkdir(parents=True, exist_ok=True)
  numbers = [int(path.name) for path in export_dir.iterdir()
             if path.name.isdecimal()]
  directory = export_dir / str(max(numbers, default=0) + 1)
  # Serving looks at directories with numbers for names only.
  part = pathlib.Path(tempfile.mkdtemp('.part', dir=export_dir))
  try:
    yield part, directory
    part.chmod(0o755)
    part.rename(directory)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise


def main():
  directory, checkpoint = export(FLAGS.checkpoint_dir, FLAGS.export_dir,
                                 FLAGS.format, FLAGS.dtype)
  print(f'{checkpoint} was exported to {directory}')


if __name__ == '__main__':
  cli.define_checkpoint_flags('export')
  flags.DEFINE_string('export_dir', '/tmp/cifar10_export', 'Directory to write '
                      'the next numbered directory into.')
  cli.define_choice('format', 'saved_model', FORMATS, 'What to write.')
  cli.run(main)
