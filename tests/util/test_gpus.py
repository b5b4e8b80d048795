"""Why there is no GPU, on machines that this one is made to look like."""

import ctypes
import glob
import os
import types

import pytest
import tensorflow.compat.v1 as tf

from cifar10.util import gpus

CARD = {'sys/bus/pci/devices/0000:01:00.0/vendor': '0x10de\n',
        'sys/bus/pci/devices/0000:01:00.0/class': '0x030200\n'}
OTHER_CARD = {'sys/bus/pci/devices/0000:01:00.0/vendor': '0x1002\n',
              'sys/bus/pci/devices/0000:01:00.0/class': '0x030000\n'}
NETWORK_CARD = {'sys/bus/pci/devices/0000:01:00.0/vendor': '0x10de\n',
                'sys/bus/pci/devices/0000:01:00.0/class': '0x020000\n'}


@pytest.fixture
def machine(monkeypatch, tmp_path, capsys):
  """Makes a machine, and returns what it prints when its GPUs are counted."""
  find, exists = glob.glob, os.path.exists

  def make(files=(), driver=None, libraries=(), found=(), built=True,
           packages=None, **environment):
    for path in files:
      (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / path).write_text(dict(files)[path])

    def load(name):
      if name == 'libcuda.so.1' and driver:
        return driver
      if name not in libraries:
        raise OSError(name)

    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: found)
    monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda: built)
    monkeypatch.setattr(tf.sysconfig, 'get_build_info', lambda: {
        'cuda_version': '12.5.1', 'cudnn_version': '9'})
    monkeypatch.setattr(gpus.glob, 'glob', lambda pattern: find(
        f'{tmp_path}{pattern.removeprefix(str(tmp_path))}'))
    monkeypatch.setattr(gpus.os.path, 'exists',
                        lambda path: exists(f'{tmp_path}{path}'))
    monkeypatch.setattr(ctypes, 'CDLL', load)
    monkeypatch.setattr(
        gpus.importlib.util, 'find_spec', lambda name: packages and
        types.SimpleNamespace(submodule_search_locations=[packages]))
    for name in 'CUDA_VISIBLE_DEVICES', 'LD_LIBRARY_PATH':
      monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    gpus._tell_why.cache_clear()
    assert gpus.count() == gpus.count() == len(found)
    gpus._tell_why.cache_clear()
    out, err = capsys.readouterr()
    assert not out
    return err

  return make


def driver(code):
  """Returns a driver whose start ends with a code."""
  def text_of(number, text):
    assert number == code
    text._obj.value = b'no CUDA-capable device is detected'

  return types.SimpleNamespace(cuInit=lambda flags: code,
                               cuGetErrorString=text_of)


@pytest.mark.parametrize('arguments', [
    {}, {'files': OTHER_CARD}, {'files': NETWORK_CARD},
    {'files': CARD, 'CUDA_VISIBLE_DEVICES': ''},
    {'files': CARD, 'CUDA_VISIBLE_DEVICES': '-1'},
    {'files': CARD, 'found': ['a GPU']}])
def test_nothing_to_explain(machine, arguments):
  assert not machine(**arguments)


def test_windows_driver(machine):
  assert machine({'usr/lib/wsl/lib/libcuda.so.1': ''}) == (
      "No GPU found: Windows' driver is not found: add /usr/lib/wsl/lib to "
      'LD_LIBRARY_PATH\n')


@pytest.mark.parametrize('files', [CARD, {'dev/nvidia0': ''}])
def test_no_driver(machine, files):
  assert machine(files) == (
      "No GPU found: NVIDIA's driver is not there (libcuda.so.1). Install it, "
      'so that nvidia-smi lists the GPU; start a container with --gpus=all\n')


def test_tensorflow_without_cuda(machine):
  assert machine(CARD, built=False) == (
      'No GPU found: this TensorFlow is built without CUDA. Install one with '
      "it: pip install -e '.[gpu]'\n")


@pytest.mark.parametrize('environment, end', [
    ({}, ''), ({'CUDA_VISIBLE_DEVICES': '7'}, ', and CUDA_VISIBLE_DEVICES=7')])
def test_a_driver_that_does_not_start(machine, environment, end):
  assert machine(CARD, driver(100), **environment) == (
      "No GPU found: NVIDIA's driver does not start: error 100, no "
      f'CUDA-capable device is detected. See nvidia-smi{end}\n')


def test_cuda_is_not_installed(machine, tmp_path):
  expected = ('No GPU found: CUDA 12.5.1 or cuDNN 9 is not there. Install '
              "them: pip install -e '.[gpu]'\n")
  assert machine(CARD, driver(0)) == expected
  assert machine(CARD, driver(0), packages=str(tmp_path / 'empty')) == expected


def test_cuda_where_tensorflow_does_not_look(machine, tmp_path):
  packages = tmp_path / 'nvidia'
  for name in 'cudnn', 'cublas':
    (packages / name / 'lib').mkdir(parents=True)
  path = f'{packages}/cublas/lib:{packages}/cudnn/lib'
  assert machine(CARD, driver(0), packages=str(packages)) == (
      "No GPU found: TensorFlow's messages above may tell why. If libraries of "
      f'CUDA are not found: export LD_LIBRARY_PATH={path}:$LD_LIBRARY_PATH\n')
  assert machine(CARD, driver(0), ['libcudnn.so.9'], packages=str(packages),
                 LD_LIBRARY_PATH=path) == (
                     "No GPU found: TensorFlow's messages above may tell why\n")
