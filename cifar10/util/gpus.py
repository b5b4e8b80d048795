"""The GPUs of this machine, and why TensorFlow finds none."""

import ctypes
import functools
import glob
import importlib.util
import os
import sys

import tensorflow.compat.v1 as tf

_WSL = '/usr/lib/wsl/lib'


def count():
  """Returns the number of GPUs that TensorFlow finds.

  If it finds none on a machine that has one, prints why, once in a process.
  """
  found = len(tf.config.list_physical_devices('GPU'))
  if not found:
    _tell_why()
  return found


@functools.cache
def _tell_why():
  if reason := _why_none():
    print(f'No GPU found: {reason}', file=sys.stderr, flush=True)


def _why_none():
  """Returns why no GPU is found and what to do; '' if there is none, or none is
  wanted."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if not is_there() or visible in ('', '-1'):
    return ''
  if not tf.test.is_built_with_cuda():
    return ('this TensorFlow is built without CUDA. Install one with it: pip '
            "install -e '.[gpu]'")
  try:
    driver = ctypes.CDLL('libcuda.so.1')
  except OSError:
    if os.path.exists(f'{_WSL}/libcuda.so.1'):
      return f"Windows' driver is not found: add {_WSL} to LD_LIBRARY_PATH"
    return ("NVIDIA's driver is not there (libcuda.so.1). Install it, so that "
            'nvidia-smi lists the GPU; start a container with --gpus=all')
  if code := driver.cuInit(0):
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return (f"NVIDIA's driver does not start: error {code}, "
            f"{(text.value or b'unknown').decode()}. See nvidia-smi" + (
                f', and CUDA_VISIBLE_DEVICES={visible}' if visible else ''))
  build = tf.sysconfig.get_build_info()
  places = importlib.util.find_spec('nvidia')
  directories = sorted(
      directory for place in places.submodule_search_locations or []
      for directory in glob.glob(f'{place}/*/lib')) if places else []
  if directories and directories[0] not in os.environ.get(
      'LD_LIBRARY_PATH', ''):
    return ("TensorFlow's messages above may tell why. If libraries of CUDA "
            'are not found: export LD_LIBRARY_PATH='
            f'{":".join(directories)}:$LD_LIBRARY_PATH')
  cuda, cudnn = (build.get(f'{name}_version') for name in ('cuda', 'cudnn'))
  try:
    ctypes.CDLL(f'libcudnn.so.{cudnn}')
  except OSError:
    return (f'CUDA {cuda} or cuDNN {cudnn} is not there. Install them: pip '
            "install -e '.[gpu]'")
  return "TensorFlow's messages above may tell why"


def is_there():
  """Returns whether this machine has an NVIDIA GPU."""
  if glob.glob('/dev/nvidia[0-9]*') or os.path.exists(
      f'{_WSL}/libcuda.so.1'):
    return True
  return any(
      _read(f'{device}/vendor') == '0x10de'
      and _read(f'{device}/class').startswith('0x03')  # A display controller.
      for device in glob.glob('/sys/bus/pci/devices/*'))


def _read(path):
  try:
    with open(path) as f:
      return f.read().strip()
  except OSError:
    return ''
