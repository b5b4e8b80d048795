r"""Exports the newest checkpoint of a run, for use without this package.

    python -m cifar10.export --checkpoint_dir=/tmp/cifar10_train \
        --export_dir=/tmp/cifar10_export

writes a SavedModel to EXPORT_DIR/1 (or the next free number, as TensorFlow
Serving expects) with two signatures: `serving_default` takes encoded images of
any size, `images` takes uint8 images of the size of the records. Both return
the most probable class, its name, and the probabilities of all classes.
--format=tflite writes EXPORT_DIR/tflite/1/model.tflite for LiteRT, which takes
uint8 images. MODEL_CARD.md beside the model tells what it is.

As in the import, `serving_default` rotates images as EXIF requires, blends them
with white and resizes them. It refuses images of more than 100 megapixels
(`image_headers.MAX_PIXELS`) before it decodes them. It decodes the images of a
request one at a time, in at most 1 GB of memory, and then computes all of them
at once. The server determines how many images a request can have (by its
length), and how many requests run at the same time.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile

import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10.data import image_files
from cifar10.runs import checkpoints
from cifar10.runs import model_card
from cifar10.runs import sessions
from cifar10.runs import trained
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from cifar10.util.fields import field


@dataclasses.dataclass(frozen=True)
class Options(trained.Options):
  """Options of an export, which are the flags of export."""
  export_dir: str = field(
      '/tmp/cifar10_export', nonempty='a directory', help='Directory in which '
      'the next numbered directory is made.')
  eval_dir: str = field(
      '/tmp/cifar10_eval', nonempty='a directory', help='The eval_dir of an '
      'evaluation: the model card has its precision if it is of the exported '
      'checkpoint.')
  format: str = field('saved_model', choices=('saved_model', 'tflite'),
                      help='Format of the model.')


def export(options) -> tuple[pathlib.Path, str]:
  """Exports the newest checkpoint, with its moving averages if it has them.

  Args:
    options: the `Options`. Models in the format tflite always compute in
      float32.

  Returns:
    directory: path of the numbered directory. It gets its name when it is
      complete.
    checkpoint: path of the checkpoint.

  Raises:
    UserError: there is no checkpoint, or it cannot be restored or exported.
  """
  export_dir = options.export_dir
  if options.format == 'tflite':
    if options.dtype not in (None, 'float32'):
      raise UserError(f'--dtype={options.dtype}: --format=tflite computes in '
                      'float32')
    options = dataclasses.replace(options, dtype='float32')
    # Not in EXPORT_DIR, where TensorFlow Serving would load it as a version.
    export_dir = os.path.join(export_dir, options.format)
  checkpoints.check_path(export_dir)  # A SavedModel contains a checkpoint.
  export_dir = pathlib.Path(export_dir)
  with filesystem.explained(export_dir), \
      _unfinished(export_dir) as part:
    if options.format == 'saved_model':
      checkpoint, card = _write_saved_model(part, options)
    else:
      with tempfile.TemporaryDirectory() as saved_model:
        checkpoint, card = _write_saved_model(saved_model, options)
        converter = tf.compat.v2.lite.TFLiteConverter.from_saved_model(
            saved_model, signature_keys=['images'])
        try:
          (part / 'model.tflite').write_bytes(converter.convert())
        except Exception as e:  # Errors have no common base class.
          raise UserError(f'--format=tflite: {checkpoint}: cannot be '
                          f'converted: {filesystem.reason(e)}') from e
    (part / 'MODEL_CARD.md').write_text(card, encoding='utf-8')
    part.chmod(0o755)
    return _rename_to_next_version(part), checkpoint


def _write_saved_model(directory, options):
  """Writes a SavedModel; returns the path of the checkpoint, and the text of
  the model card."""
  run = trained.run_of(options.checkpoint_dir)
  with tf.Graph().as_default():
    signatures = _signatures(run, options.dtype)
    with sessions.session(options.device) as session:
      checkpoint = trained.restore_newest(session, options.checkpoint_dir, run)
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
    if options.format == 'tflite':
      del signatures['serving_default']
    return checkpoint, model_card.text(run, checkpoint, signatures,
                                       tf.trainable_variables(), options)


def _signatures(run, dtype):
  """Builds the graph.

  Returns:
    Dict from names of signatures to (inputs, outputs), both dicts of tensors.
  """
  f = run.record_format
  # Names that end in _bytes are sent to TensorFlow Serving as base64.
  encoded = tf.placeholder(tf.string, [None], 'image_bytes')
  images = tf.placeholder(tf.uint8, [None, f.height, f.width, f.depth],
                          'images')
  with tf.device('/cpu:0'):
    # One at a time, because each can take much memory.
    decoded = tf.map_fn(lambda one: image_files.decode(one, f), encoded,
                        tf.uint8, parallel_iterations=1)
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    return {'serving_default': ({'image_bytes': encoded},
                                _outputs(decoded, run, dtype)),
            'images': ({'images': images},
                       _outputs(_of_size(images), run, dtype))}


def _of_size(images):
  """Returns the images, and checks at run time that they have their static
  shape. The runtime alone does not check the shape of a placeholder."""
  images = tf.ensure_shape(images, images.shape)
  # LiteRT has no ensure_shape(), but it checks shapes in tf.concat().
  more = tf.zeros([1, *images.shape[1:]], images.dtype)
  return tf.concat([images, more], 0)[:-1]


def _outputs(images, run, dtype):
  probabilities = trained.probabilities(images, run, dtype)
  classes = tf.argmax(probabilities, 1)
  names = tf.gather(tf.constant(run.record_format.class_names), classes)
  return {'classes': classes, 'names': names, 'probabilities': probabilities}


@contextlib.contextmanager
def _unfinished(export_dir):
  """Yields a directory to fill, which is deleted after an error. TensorFlow
  Serving ignores it, as its name is not a number."""
  export_dir.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp('.part', dir=export_dir))
  try:
    yield part
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise


def _rename_to_next_version(part):
  while True:
    numbers = [int(path.name) for path in part.parent.iterdir()
               if path.name.isdecimal()]
    directory = part.parent / str(max(numbers, default=0) + 1)
    try:
      return part.rename(directory)
    except OSError:
      if not directory.exists():  # Another export was faster.
        raise


def main():
  directory, checkpoint = export(Options(**cli.values_of(Options)))
  print(f'{checkpoint} was exported to {directory}')


if __name__ == '__main__':
  # An exported model has no devices, hence no --device.
  cli.define(Options, 'checkpoint_dir', 'dtype', 'eval_dir', 'export_dir',
             'format')
  cli.run(main)
