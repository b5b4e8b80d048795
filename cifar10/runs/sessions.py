"""Sessions, and the devices that they use."""

import tensorflow.compat.v1 as tf

from cifar10.util import gpus
from cifar10.util.errors import UserError


def config(log_device_placement=False, **options):
  """Returns a tf.ConfigProto: GPU memory on demand, and another device where an
  operation has no kernel for its own."""
  return tf.ConfigProto(
      allow_soft_placement=True, log_device_placement=log_device_placement,
      gpu_options=tf.GPUOptions(allow_growth=True), **options)


def device(name):
  """Returns tf.device(name); for None, TensorFlow chooses devices.

  Raises:
    UserError: the name is not that of a device, or of a GPU that is not there.
  """
  try:
    wanted = tf.DeviceSpec.from_string(name or '')
  except ValueError:
    wanted = tf.DeviceSpec(device_type='unknown')
  if wanted.device_type not in (None, 'CPU', 'GPU'):
    raise UserError(f'--device={name}: expected a device such as /cpu:0 or '
                    '/gpu:1')
  # Otherwise the CPU would compute what was built for a GPU.
  if wanted.device_type == 'GPU' and gpus.count() <= (wanted.device_index or 0):
    raise UserError(f'--device={name}: found {gpus.count()} GPUs')
  return tf.device(name)


def session(device_name):
  """Returns a tf.Session of the default graph. If the graph was built on a CPU
  by `device()`, the session leaves the GPUs alone."""
  if 'cpu' in (device_name or '').lower():
    return tf.Session(config=config(device_count={'GPU': 0}))
  gpus.count()  # Tells why there is none.
  return tf.Session(config=config())
